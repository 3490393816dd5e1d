import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import { GetWorkflowResponseSchema, WorkflowState } from "../gen/runner/admin/v1/admin_pb";
import { layOut, operations } from "./steps";

const step = (name: string, ms: number, outcome = "done", message = "") => ({ name, outcome, message, time: timestampFromMs(ms) });

describe("an instance in time", () => {
  it("begins each step where the one before ended, and tells refused from done", () => {
    const laid = layOut(create(GetWorkflowResponseSchema, { state: WorkflowState.COMPENSATED, started: timestampFromMs(1000), steps: [step("debit", 1100), step("credit", 1300, "refused", "no wallet"), step("undo debit", 1400)] }), 9000);
    expect(laid).toMatchObject({ from: 1000, to: 1400 });
    expect(laid.bars.map(({ step: name, kind, from, to }) => [name, kind, from, to])).toEqual([
      ["debit", "done", 1000, 1100],
      ["credit", "refused", 1100, 1300],
      ["undo debit", "done", 1300, 1400],
    ]);
  });

  it("begins a step at the start of its record, after the attempts that failed", () => {
    const tried = { ...step("tell", 5000), started: timestampFromMs(4900), failedAttempts: [{ started: timestampFromMs(1000), ended: timestampFromMs(1200), error: "503" }, { error: "of a version before" }] };
    const laid = layOut(create(GetWorkflowResponseSchema, { state: WorkflowState.COMPLETED, started: timestampFromMs(1000), steps: [tried, { ...step("end", 5100), started: timestampFromMs(9000) }] }), 9000);
    expect(laid.bars.map(({ step: name, kind, from, to, text }) => [name, kind, from, to, text])).toEqual([
      ["tell", "failing", 1000, 1200, "503"],
      ["tell", "done", 4900, 5000, ""],
      ["end", "done", 5100, 5100, ""],
    ]);
  });

  it("shows failed attempts and the next one, to the present or beyond", () => {
    const laid = layOut(
      create(GetWorkflowResponseSchema, {
        state: WorkflowState.RUNNING,
        started: timestampFromMs(1000),
        attempts: { step: "tell", failed: 3, lastError: "503", first: timestampFromMs(1100), last: timestampFromMs(2000), next: timestampFromMs(5000) },
      }),
      3000,
    );
    expect(laid.to).toBe(5000);
    expect(laid.bars.map(({ kind, text }) => [kind, text])).toEqual([
      ["failing", "3 attempts failed: 503"],
      ["next", "next attempt"],
    ]);
  });

  it("shows a wait to its end", () => {
    const laid = layOut(create(GetWorkflowResponseSchema, { state: WorkflowState.RUNNING, started: timestampFromMs(0), steps: [step("a", 10)], waiting: { step: "cool down", until: timestampFromMs(100) } }), 50);
    expect(laid.bars.at(-1)).toMatchObject({ kind: "waiting", from: 10, to: 100 });
    const since = create(GetWorkflowResponseSchema, { state: WorkflowState.RUNNING, started: timestampFromMs(0), waiting: { step: "cool down", since: timestampFromMs(40), until: timestampFromMs(100) } });
    expect(layOut(since, 50).bars).toMatchObject([{ kind: "waiting", from: 40, to: 100 }]);
  });
});

describe("what may be done", () => {
  it.each([
    [WorkflowState.COMPLETED, "the instance has ended", "the instance has ended", "the instance has ended"],
    [WorkflowState.RUNNING, "no step of the instance has failed", "", ""],
    [WorkflowState.STUCK, "", "", ""],
    [WorkflowState.FAILED, "", "the instance is being undone already", ""],
  ] as const)("in state %s", (state, retry, compensate, cancel) => {
    expect(operations(create(GetWorkflowResponseSchema, { state }))).toMatchObject({ retry, compensate, cancel });
  });

  it("names the step to skip: the failing, the waiting, or the one that could not be undone", () => {
    expect(operations(create(GetWorkflowResponseSchema, { state: WorkflowState.STUCK, attempts: { step: "tell" } }))).toMatchObject({ step: "tell", skip: "" });
    expect(operations(create(GetWorkflowResponseSchema, { state: WorkflowState.FAILED, steps: [step("debit", 1), step("undo debit", 2, "refused")] }))).toMatchObject({ step: "undo debit", skip: "" });
    expect(operations(create(GetWorkflowResponseSchema, { state: WorkflowState.RUNNING })).skip).not.toBe("");
  });
});

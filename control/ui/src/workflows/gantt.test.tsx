import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { cleanup, render, screen, within } from "@testing-library/react";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { GetWorkflowResponseSchema, WorkflowState } from "../gen/runner/admin/v1/admin_pb";
import { Gantt } from "./gantt";

beforeEach(() => void vi.useFakeTimers({ now: 10_000 }));
afterEach(() => {
  cleanup();
  vi.useRealTimers();
});

const at = timestampFromMs;
const show = (instance: MessageInitShape<typeof GetWorkflowResponseSchema>) => {
  render(<Gantt instance={create(GetWorkflowResponseSchema, instance)} />);
  return screen.queryAllByRole("listitem");
};
const kind = (item: HTMLElement | undefined) => item?.dataset["kind"];
const bar = (item: HTMLElement | undefined) => {
  const { left, width } = item?.querySelector<HTMLElement>("[aria-hidden] > div")?.style ?? { left: "", width: "" };
  return [parseFloat(left), parseFloat(width)].map(Math.round);
};

it("each step is a bar at its time, with how it ended in a word and its length", () => {
  const items = show({
    state: WorkflowState.COMPENSATED,
    started: at(1_000),
    steps: [
      { name: "debit", outcome: "done", time: at(2_000) },
      { name: "credit", outcome: "refused", message: "the wallet is not open", time: at(4_000) },
      { name: "notify", outcome: "skipped", time: at(4_500) },
      { name: "undo debit", outcome: "done", time: at(5_000) },
    ],
  });
  expect(items.map((item) => item.textContent)).toEqual(["debitdone1 s", "creditrefused2 sthe wallet is not open", "notifyskipped500 ms", "undo debitdone500 ms"]);
  expect(items.map(kind)).toEqual(["done", "refused", "skipped", "done"]);
  expect(items.map(bar)).toEqual([[0, 25], [25, 50], [75, 13], [88, 13]]);
});

it("failed attempts are distinguished from the attempt that succeeds, and the next one is a ghost with its time", () => {
  const items = show({
    state: WorkflowState.RUNNING,
    started: at(0),
    steps: [{ name: "book", outcome: "done", started: at(3_000), time: at(4_000), failedAttempts: [{ started: at(0), ended: at(1_000), error: "503" }] }],
    attempts: { step: "tell", failed: 2, lastError: "no route", first: at(4_000), last: at(9_000), next: at(40_000) },
  });
  expect(items.map(kind)).toEqual(["failing", "done", "failing", "next"]);
  expect(within(items[2] as HTMLElement).getByText("2 attempts failed: no route")).toBeTruthy();
  expect(items[3]?.textContent).toBe("tellnext attemptin 30 s");
  // It is at the end of the axis, and still to be seen.
  const [left = 0, width = 0] = bar(items[3]);
  expect(left).toBeLessThan(100);
  expect(width).toBeGreaterThan(0);
});

it("a wait is hatched until its end", () => {
  const items = show({ state: WorkflowState.RUNNING, started: at(0), steps: [], waiting: { step: "confirm", since: at(0), until: at(20_000) } });
  expect(items.map(kind)).toEqual(["waiting"]);
  expect(items[0]?.querySelector(".hatched")).toBeTruthy();
  expect(bar(items[0])).toEqual([0, 100]);
});

it("an instance without steps states it", () => {
  expect(show({ state: WorkflowState.RUNNING, started: at(0) })).toEqual([]);
  expect(screen.getByText("No step has ended yet.")).toBeTruthy();
});

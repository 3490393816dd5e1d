import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import { SpanSchema } from "../gen/control/v1/timeline_pb";
import { axis } from "./axis";
import { causes, failed, nest } from "./tree";

const span = (kind: string, at: number, ms: number, more: MessageInitShape<typeof SpanSchema> = {}) => create(SpanSchema, { kind, name: `${kind} at ${at}`, started: timestampFromMs(at), ms, code: "ok", ...more });

// A transfer: its event starts a workflow, whose second step is refused.
const spans = [
  span("call", 1000, 10, { requestId: "r1" }),
  span("command", 1001, 8, { requestId: "r1", subject: "transfer/t" }),
  span("event", 1002, 0, { requestId: "r1", subject: "transfer/t", eventId: "e1" }),
  span("projection", 1020, 1, { requestId: "r1", eventId: "e1" }),
  span("step", 1030, 10, { requestId: "r2", causationId: "e1", eventId: "e1" }),
  span("call", 1031, 8, { requestId: "r2", causationId: "e1" }),
  span("step", 9000, 10, { requestId: "r2", causationId: "e1", eventId: "e1", code: "refused" }),
  // Its clock is a little behind the runner's.
  span("call", 8999, 8, { requestId: "r2", causationId: "e1", code: "failed_precondition" }),
  span("command", 9001, 6, { requestId: "r2", causationId: "e1", code: "failed_precondition", subject: "wallet/missing" }),
];

describe("spans", () => {
  it("are nested by what caused them", () => {
    expect(nest(spans).map(({ depth, index }) => `${depth}:${index}`)).toEqual(["0:0", "1:1", "2:2", "3:3", "3:4", "4:5", "3:6", "4:7", "5:8"]);
  });

  it("of a call are below the step whose time covers it, though starts are rounded and steps follow each other", () => {
    const nested = nest([
      span("step", 100, 2, { requestId: "r" }),
      span("step", 102.4, 1.6, { requestId: "r" }),
      span("call", 100.2, 1.7, { requestId: "r" }),
      span("call", 102.1, 1.8, { requestId: "r" }),
    ]);
    expect(nested.map(({ depth, index }) => `${depth}:${index}`)).toEqual(["0:0", "1:2", "0:1", "1:3"]);
  });

  it("begin at their time to the microsecond, on both sides of half a millisecond", () => {
    const at = (nanos: number) => create(SpanSchema, { kind: "step", code: "ok", started: { seconds: 7n, nanos } });
    expect(nest([at(1_400_000), at(1_600_000)]).map((node) => node.from)).toEqual([7001.4, 7001.6]);
  });

  it("that name each other as cause are still shown, once", () => {
    const circle = [span("event", 1, 0, { eventId: "a", requestId: "x", causationId: "b" }), span("event", 2, 0, { eventId: "b", requestId: "y", causationId: "a" })];
    expect(nest(circle)).toHaveLength(2);
  });

  it("without a known cause stand at the first level", () => {
    expect(nest([span("projection", 5, 1, { eventId: "gone" })])[0]?.depth).toBe(0);
  });

  it("have failed for a cause, not for each that it has failed", () => {
    expect(causes(nest(spans)).map((node) => node.index)).toEqual([8]);
  });

  it.each([
    ["ok", false],
    ["done", false],
    ["skipped", false],
    ["refused", true],
    ["failed", true],
    ["not_found", true],
  ] as const)("that ended as %s have failed: %s", (code, want) => {
    expect(failed(create(SpanSchema, { code }))).toBe(want);
  });
});

describe("the axis", () => {
  it("folds the time in which nothing happened", () => {
    const laid = axis([{ from: 0, to: 100 }, { from: 60_000, to: 60_100 }]);
    expect(laid.pieces.map(({ idle, width }) => [idle, width])).toEqual([[false, 46.5], [true, 7], [false, 46.5]]);
    expect(laid.at(50)).toBeCloseTo(23.25);
    expect(laid.at(60_050)).toBeCloseTo(76.75);
    expect(laid.ticks.some((tick) => tick.after === 60_000)).toBe(true);
  });

  it("leaves short pauses as they are", () => {
    expect(axis([{ from: 0, to: 100 }, { from: 110, to: 200 }]).pieces).toHaveLength(1);
  });

  it("has room for many gaps, and for spans without a length", () => {
    const laid = axis(Array.from({ length: 60 }, (_, n) => ({ from: n * 1000, to: n * 1000 })));
    expect(laid.pieces.reduce((sum, piece) => sum + piece.width, 0)).toBeCloseTo(100);
    expect(laid.at(59_000)).toBeLessThanOrEqual(100);
    expect(laid.ticks.length).toBeLessThan(12);
  });

  it("of one moment is not empty", () => {
    const laid = axis([{ from: 5, to: 5 }]);
    expect(laid.at(5)).toBe(0);
    expect(laid.ticks).toHaveLength(1);
  });
});

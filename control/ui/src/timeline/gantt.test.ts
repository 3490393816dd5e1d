import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { expect, it } from "vitest";
import { SpanSchema } from "../gen/control/v1/timeline_pb";
import { bars, failed } from "./gantt";

it("lays spans out from the first's start to the last's end", () => {
  const span = (at: number, ms: number) => create(SpanSchema, { started: timestampFromMs(at), ms });
  const laid = bars([span(1000, 100), span(1050, 0), span(1150, 50)]);
  expect(laid.total).toBe(200);
  expect(laid.bars.map(({ left, after }) => [left, after])).toEqual([
    [0, 0],
    [25, 50],
    [75, 150],
  ]);
  expect(laid.bars[1]?.width).toBeGreaterThan(0);
});

it.each([
  ["ok", false],
  ["done", false],
  ["skipped", false],
  ["refused", true],
  ["failed", true],
  ["not_found", true],
] as const)("a span that ended as %s has failed: %s", (code, want) => {
  expect(failed(create(SpanSchema, { code }))).toBe(want);
});

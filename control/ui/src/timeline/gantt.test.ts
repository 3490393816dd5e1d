import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { expect, it } from "vitest";
import { HopSchema } from "../gen/control/v1/timeline_pb";
import { bars } from "./gantt";

it("lays hops out from the first's start to the last's end", () => {
  const hop = (at: number, ms: number) => create(HopSchema, { started: timestampFromMs(at), ms });
  const laid = bars([hop(1000, 100), hop(1050, 0), hop(1150, 50)]);
  expect(laid.total).toBe(200);
  expect(laid.bars.map(({ left, after }) => [left, after])).toEqual([
    [0, 0],
    [25, 50],
    [75, 150],
  ]);
  expect(laid.bars[1]?.width).toBeGreaterThan(0);
});

import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import { SeriesPointSchema } from "../gen/control/v1/metrics_pb";
import { moved, parseSpan, spanOf, within, writeMoment } from "./span";

describe("a span of a series", () => {
  it("is stored in the address as two moments", () => {
    const from = Date.parse("2026-03-01T10:00:15Z") / 1000;
    expect(writeMoment(from)).toBe("2026-03-01T10:00:15Z");
    expect(parseSpan(writeMoment(from), writeMoment(from + 60))).toEqual({ from, to: from + 60 });
  });

  it.each([
    ["", ""],
    ["2026-03-01T10:00:15Z", ""],
    ["yesterday", "today"],
    ["2026-03-01T10:00:15Z", "2026-03-01T10:00:15Z"],
    ["2026-03-01T11:00:00Z", "2026-03-01T10:00:00Z"],
  ])("is none from %j to %j", (from, to) => {
    expect(parseSpan(from, to)).toBeUndefined();
  });

  it("begins and ends with windows, whichever way it was drawn", () => {
    const at = [15, 30, 45, 60, 75];
    expect(spanOf(at, 20, 61)).toEqual({ from: 30, to: 60 });
    expect(spanOf(at, 61, 20)).toEqual({ from: 30, to: 60 });
    expect(spanOf(at, -100, 1000)).toEqual({ from: 15, to: 75 });
    expect(spanOf(at, 40, 50)).toBeUndefined();
    expect(spanOf(at, 31, 44)).toBeUndefined();
    expect(spanOf([], 1, 2)).toBeUndefined();
  });

  it("has the windows that end in it, both ends included", () => {
    const points = [15, 30, 45].map((second) => create(SeriesPointSchema, { end: timestampFromMs(second * 1000) }));
    expect(within(points, { from: 15, to: 30 })).toEqual(points.slice(0, 2));
    expect(within(points, undefined)).toEqual(points);
    expect(within(points, { from: 100, to: 200 })).toEqual([]);
  });
});

it.each([
  ["ArrowLeft", 3, 2],
  ["ArrowLeft", 0, 0],
  ["ArrowRight", 8, 9],
  ["ArrowRight", 9, 9],
  ["PageUp", 4, 0],
  ["PageDown", 4, 9],
  ["Home", 4, 0],
  ["End", 4, 9],
  ["a", 4, undefined],
])("%s moves from window %d of 10 to %d", (key, from, to) => {
  expect(moved(key, from, 10)).toBe(to);
});

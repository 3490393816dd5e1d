// @vitest-environment jsdom
import { create } from "@bufbuild/protobuf";
import { expect, it } from "vitest";
import { ListTimelinesResponseSchema } from "../gen/control/v1/timeline_pb";
import { extent, nameOf } from "./recent";

const answer = (count: number, complete: boolean) => create(ListTimelinesResponseSchema, { timelines: Array.from({ length: count }, (_, n) => ({ correlationId: `call-${n}` })), complete });

it.each([
  [3, true, false, "3 timelines: these are all. Spans are stored for a day."],
  [1, true, true, "1 failed timeline: these are all that failed. Spans are stored for a day."],
  [20, false, false, "The newest 20 timelines; there may be older ones."],
  [0, false, true, "None of the newest 5,000 spans has failed; older ones were not read."],
])("%d timelines, complete: %s, failed only: %s", (count, complete, failedOnly, want) => {
  expect(extent(answer(count, complete), failedOnly)).toBe(want);
});

it.each([
  [{ kind: "command", name: "deposit", subject: "wallet/w1" }, "deposit on wallet/w1"],
  [{ kind: "call", name: "/control.v1.ModelService/ApplyModel", subject: "" }, "call ApplyModel"],
  [{ kind: "step", name: "transfer credit", subject: "transfer/t" }, "step transfer credit on transfer/t"],
])("a timeline is named for what it is of: %j", (summary, want) => {
  expect(nameOf(summary)).toBe(want);
});

import { expect, it } from "vitest";
import { lastMinute } from "./history";

it.each([
  [[], []],
  [[1_000], [940, 1_000]],
  [[990, 1_000], [940, 990, 1_000]],
  [[100, 1_000], [100, 1_000]],
])("a chart of values at %j s shows a minute or more", (at, want) => {
  lastMinute(at);
  expect(at).toEqual(want);
});

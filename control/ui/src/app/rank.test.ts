import { expect, it } from "vitest";
import { rank } from "./rank";

it.each([
  ["ad", ["aggregate wallet/ada", "screen Dead letters", "command wallet deposit"], ["aggregate wallet/ada", "screen Dead letters"]],
  ["fleet", ["action show fleet", "screen Fleet", "node fl-1"], ["screen Fleet", "action show fleet"]],
  ["dead letters", ["screen Dead letters", "screen Letters"], ["screen Dead letters"]],
  ["transfer/bad", ["instance transfer/bad 01a2", "aggregate transfer/bad", "screen Fleet"], ["instance transfer/bad 01a2", "aggregate transfer/bad"]],
  ["runner 1", ["node runner-1", "node runner-2"], ["node runner-1"]],
  ["theme", ["action switch theme dark light"], ["action switch theme dark light"]],
])("%j finds, the best first", (text, items, want) => {
  const found = items.map((item) => ({ item, score: rank(item, text) })).filter((one) => one.score > 0);
  expect(found.sort((a, b) => b.score - a.score).map((one) => one.item)).toEqual(want);
});

it("without a text everything is there", () => {
  expect(rank("screen Fleet", " ")).toBe(1);
});

import { expect, it } from "vitest";
import { applyChanges, type Followed } from "./live";

it("counts the changes of each column, and none of a reset", () => {
  const none: ReadonlyMap<string, Followed> = new Map();
  const first = applyChanges(none, true, [
    { key: "ada", row: { owner: "ada", balance: 1 } },
    { key: "bob", row: { owner: "bob", balance: 2 } },
  ]);
  expect(first.get("ada")).toEqual({ row: { owner: "ada", balance: 1 }, changes: {} });
  const second = applyChanges(first, false, [
    { key: "ada", row: { owner: "ada", balance: 5 } },
    { key: "cyd", row: { owner: "cyd", tags: ["a"] } },
    { key: "bob" },
  ]);
  expect(second.get("ada")?.changes).toEqual({ balance: 1 });
  expect(second.get("cyd")?.changes).toEqual({ owner: 1, tags: 1 });
  expect(second.has("bob")).toBe(false);
  const third = applyChanges(second, false, [
    { key: "ada", row: { owner: "ada", balance: 6 } },
    { key: "cyd", row: { owner: "cyd", tags: ["a"] } },
  ]);
  expect(third.get("ada")?.changes).toEqual({ balance: 2 });
  expect(third.get("cyd")?.changes).toEqual({ owner: 1, tags: 1 });
  expect(applyChanges(third, true, [{ key: "ada", row: { owner: "ada", balance: 9 } }]).get("ada")?.changes).toEqual({});
  expect(second.get("ada")?.row["balance"]).toBe(5);
});

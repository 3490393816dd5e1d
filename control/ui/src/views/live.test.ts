import { expect, it } from "vitest";
import { applyMessages, noRows, type Change } from "./live";

const initial = (...changes: Change[]) => ({ reset: true, changes, position: "" });
const further = (...changes: Change[]) => ({ reset: false, changes, position: "" });
const later = (...changes: Change[]) => ({ reset: false, changes, position: "p" });

it("counts the changes of each column, and none of the initial rows, in however many messages they come", () => {
  const first = applyMessages(noRows, [initial({ key: "ada", row: { owner: "ada", balance: 1 } }), further({ key: "bob", row: { owner: "bob", balance: 2 } })]);
  expect(first.rows.get("ada")).toEqual({ id: "ada", row: { owner: "ada", balance: 1 }, changes: {} });
  const whole = applyMessages(first, [later({ key: "dan", row: { owner: "dan" } })]);
  expect(whole.rows.get("dan")?.changes).toEqual({});
  const second = applyMessages(whole, [later({ key: "ada", row: { owner: "ada", balance: 5 } }, { key: "cyd", row: { owner: "cyd", tags: ["a"] } }), later({ key: "bob" })]);
  expect(second.rows.get("ada")?.changes).toEqual({ balance: 1 });
  expect(second.rows.get("cyd")?.changes).toEqual({ owner: 1, tags: 1 });
  expect(second.rows.has("bob")).toBe(false);
  const third = applyMessages(second, [later({ key: "ada", row: { owner: "ada", balance: 6 } }), later({ key: "cyd", row: { owner: "cyd", tags: ["a"] } })]);
  expect(third.rows.get("ada")?.changes).toEqual({ balance: 2 });
  expect(third.rows.get("cyd")?.changes).toEqual({ owner: 1, tags: 1 });
  const again = applyMessages(third, [initial({ key: "ada", row: { owner: "ada", balance: 9 } })]);
  expect([...again.rows.values()]).toEqual([{ id: "ada", row: { owner: "ada", balance: 9 }, changes: {} }]);
  expect(second.rows.get("ada")?.row["balance"]).toBe(5);
});

it("has the keys in their order, and the same ones while no row comes or goes", () => {
  const first = applyMessages(noRows, [initial({ key: "cyd", row: {} }, { key: "ada", row: {} }), later()]);
  expect(first.keys).toEqual(["ada", "cyd"]);
  const changed = applyMessages(first, [later({ key: "cyd", row: { n: 1 } }, { key: "unknown" })]);
  expect(changed.keys).toBe(first.keys);
  const more = applyMessages(changed, [later({ key: "bob", row: {} })]);
  expect(more.keys).toEqual(["ada", "bob", "cyd"]);
  expect(applyMessages(more, [later({ key: "ada" })]).keys).toEqual(["bob", "cyd"]);
  expect(applyMessages(more, [initial()]).keys).toEqual([]);
});

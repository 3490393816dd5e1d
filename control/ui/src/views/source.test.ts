import { expect, it } from "vitest";
import { aggregateColumn } from "./source";

it.each([
  [["wallet_id", "owner"], ["transfer", "wallet"], { column: "wallet_id", type: "wallet" }],
  [["kind", "wallet_id"], ["wallet"], { column: "wallet_id", type: "wallet" }],
  [["id", "owner"], ["wallet"], { column: "id", type: "" }],
  [["id"], [], undefined],
] as const)("of the columns %j and the types %j", (names, types, want) => {
  expect(aggregateColumn(names.map((name) => ({ name, type: "string" })), types)).toEqual(want);
});

import { describe, expect, it } from "vitest";
import { covers, parsePrefix } from "./prefix";

describe("the beginning of an id", () => {
  it.each([
    ["ada", { name: "", id: "ada" }],
    [" wallet/ad ", { name: "wallet", id: "ad" }],
    ["wallet/", { name: "wallet", id: "" }],
    ["", { name: "", id: "" }],
    ["Wallet/ad", undefined],
    ["wallet/ad/x", undefined],
    ["a b", undefined],
    ["ä", undefined],
    ["x".repeat(129), undefined],
    ["order=2", undefined],
  ])("of an aggregate: %j", (text, want) => {
    expect(parsePrefix(text, "aggregate")).toEqual(want);
  });

  it("of a workflow instance may have the version of its event", () => {
    expect(parsePrefix("transfer/bad=2", "instance")).toEqual({ name: "transfer", id: "bad=2" });
    expect(parsePrefix("x".repeat(151), "instance")).toBeUndefined();
  });
});

it.each([
  [["aggregate.read"], true],
  [["aggregate.read:wallet"], true],
  [["aggregate.read:w*"], true],
  [["aggregate.read:transfer"], false],
  [["aggregate.readers"], false],
  [["events.read"], false],
  [[], false],
])("%j covers the reading of wallets: %s", (rights, want) => {
  expect(covers(rights, "aggregate.read", "wallet")).toBe(want);
});

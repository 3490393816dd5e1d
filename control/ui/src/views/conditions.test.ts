import { describe, expect, it } from "vitest";
import { comparisons, isComplete, parse, print, type Condition } from "./conditions";

const fields = [
  { name: "owner", type: "string" },
  { name: "balance", type: "int" },
  { name: "rate", type: "double" },
  { name: "paid", type: "bool" },
  { name: "due", type: "timestamp" },
  { name: "tags", type: "json" },
];
const of = (column: string, comparison: Condition["comparison"], value = ""): Condition => ({ column, comparison, value });

describe("conditions and the filter that they mean", () => {
  it.each([
    ["", []],
    ['owner = "ada"', [of("owner", "=", "ada")]],
    ['owner = ""', [of("owner", "=", "")]],
    ['owner = "a*"', [of("owner", "begins", "a")]],
    ['owner = "a\\*"', [of("owner", "=", "a*")]],
    ['owner = "1\\*2*"', [of("owner", "begins", "1*2")]],
    ['owner:"d"', [of("owner", "contains", "d")]],
    ['owner = "the \\"AND\\" \\\\"', [of("owner", "=", 'the "AND" \\')]],
    ['owner = "zeile\\n2"', [of("owner", "=", "zeile\n2")]],
    ['balance > 800 AND owner != "bob"', [of("balance", ">", "800"), of("owner", "!=", "bob")]],
    ["balance <= -5 AND rate >= 1.5e3", [of("balance", "<=", "-5"), of("rate", ">=", "1.5e3")]],
    ["paid = true AND balance = null AND owner != null", [of("paid", "=", "true"), of("balance", "unset"), of("owner", "set")]],
    ['due < "2030-01-31T12:00:00+01:00"', [of("due", "<", "2030-01-31T12:00:00+01:00")]],
    ['tags:"red"', [of("tags", "contains", "red")]],
  ] as const)("%s", (filter, conditions) => {
    expect(print(conditions, fields)).toBe(filter);
    expect(parse(filter, fields)).toEqual(conditions);
  });

  it.each([
    ["owner=ada AND  balance>1", [of("owner", "=", "ada"), of("balance", ">", "1")]],
    ["owner:*", [of("owner", "set")]],
    ["due >= 2030-01-31", [of("due", ">=", "2030-01-31")]],
  ] as const)("%s is read, too", (filter, conditions) => expect(parse(filter, fields)).toEqual(conditions));

  it.each(["balance > 1 OR balance < 0", "NOT paid = true", "(balance > 1)", "paid", "balance > rate", 'owner = "*a"', 'owner != "a*"', 'owner = "a', "unknown = 1", 'tags.color = "red"', 'tags = "red"', "balance > abc", "balance > 1 AND", "AND balance > 1", "balance > 1 balance < 3x", 'owner = "\\x"', "owner = (a OR b)"])(
    "%s is more than conditions",
    (filter) => expect(parse(filter, fields)).toBeUndefined(),
  );

  it("a condition without a usable value is left out", () => {
    const unusable = [of("balance", ">", ""), of("balance", ">", "1 OR paid"), of("rate", "=", "x"), of("paid", "=", ""), of("due", "<", 'soon" OR paid'), of("owner", "contains"), of("owner", "begins")];
    for (const one of unusable) expect([one, print([one, of("balance", "=", "1")], fields)]).toEqual([one, "balance = 1"]);
    expect(isComplete(of("owner", "="), "string")).toBe(true);
  });

  it("a type has the comparisons that the server has for it", () => {
    expect(comparisons("bool").map(([one]) => one)).toEqual(["=", "set", "unset"]);
    expect(comparisons("int").map(([one]) => one)).toEqual(["=", "!=", "<", "<=", ">", ">=", "set", "unset"]);
  });
});

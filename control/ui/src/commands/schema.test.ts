import { describe, expect, it } from "vitest";
import { fields, payload } from "./schema";

const schema = {
  type: "object",
  required: ["amount", "owner"],
  properties: {
    amount: { type: "integer", description: "cents" },
    owner: { type: "string" },
    state: { enum: ["open", "closed"] },
    urgent: { type: "boolean" },
    lines: { type: "array" },
  },
};

describe("a form from a JSON Schema", () => {
  it("asks for each member by its kind, and for what it does not know as JSON", () => {
    expect(fields(schema).map((field) => [field.name, field.kind, field.required])).toEqual([
      ["amount", "integer", true],
      ["owner", "string", true],
      ["state", "choice", false],
      ["urgent", "boolean", false],
      ["lines", "json", false],
    ]);
    expect(fields(undefined)).toEqual([]);
    expect(fields({ type: "object" })).toEqual([]);
  });

  it("makes a payload without empty fields, except required texts", () => {
    expect(payload(fields(schema), { amount: "12", urgent: "false", lines: "[1]" })).toEqual({ amount: 12, owner: "", urgent: false, lines: [1] });
  });

  it.each([
    [{ amount: "1.5" }, "amount: 1.5 is no integer"],
    [{ amount: "x" }, "amount: x is no integer"],
    [{ lines: "[" }, "lines: this is no JSON"],
  ])("names the field of %j", (texts, message) => {
    expect(() => payload(fields(schema), texts)).toThrow(message);
  });
});

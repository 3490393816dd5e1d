import { expect, it } from "vitest";
import { message, snippets } from "./snippets";

const call = { origin: "http://x", verb: "POST", path: "/v1/a", tenant: "acme", body: `{"owner":"d'Ada \\"x\\""}`, procedure: "/a.v1.S/Do", message: "{}" };

it("quotes what a shell or a program would read otherwise, and never holds the token", () => {
  const made = snippets(call);
  expect(Object.keys(made)).toEqual(["curl", "TypeScript", "Go", "Python", "buf"]);
  expect(made["curl"]).toContain(`-d '{"owner":"d'\\''Ada \\"x\\""}'`);
  for (const language of ["TypeScript", "Go", "Python"]) expect(made[language]).toContain(JSON.stringify(call.body));
  for (const text of Object.values(made)) expect(text).toMatch(/\$TOKEN|token/);
  expect(snippets({ ...call, body: undefined, procedure: "" })["Go"]).toContain("nil)");
});

it("a method's request has what stands in the path, too", () => {
  expect(message(`{"reason":"x"}`, { tenant_id: "acme", page: "" })).toBe(`{"reason":"x","tenantId":"acme"}`);
  expect(message("{", {})).toBe("{}");
});

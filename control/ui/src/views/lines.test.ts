import { expect, it } from "vitest";
import { commandLines } from "./lines";

it("quotes what a shell would read otherwise, and never holds the token", () => {
  const { curl, buf } = commandLines("http://x", "acme", "wallets", { filter: `owner = "d'Ada"`, orderBy: "" });
  expect(curl).toBe(`curl -s http://x/v1/query/wallets -H "authorization: Bearer $TOKEN" -H 'x-tenant-id: acme' --json '{"query":{"filter":"owner = \\"d'\\''Ada\\""}}'`);
  expect(buf).toContain("http://x/projection.gateway.v1.QueryService/Query");
});

import { expect, it } from "vitest";
import { filled, operations } from "./openapi";

it("reads operations and fills their paths in", () => {
  const [operation] = operations({ paths: { "/v1/{tenant_id}/x/{id}": { post: { summary: "Does", requestBody: {} } } } });
  expect(operation).toEqual({ verb: "POST", path: "/v1/{tenant_id}/x/{id}", summary: "Does", parameters: ["tenant_id", "id"], hasBody: true });
  expect(filled("/v1/{tenant_id}/x/{id}", { tenant_id: "acme", id: "a/b" })).toBe("/v1/acme/x/a%2Fb");
  expect(operations({})).toEqual([]);
});

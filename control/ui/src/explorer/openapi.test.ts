import { expect, it } from "vitest";
import { filled, operations } from "./openapi";

it("reads operations with their fields, and fills their paths in", () => {
  const [operation] = operations({
    paths: {
      "/v1/{tenant_id}/x/{id}": {
        post: { summary: "Does", operationId: "a_v1_S_Do_2", tags: ["a.v1.S"], requestBody: { content: { "application/json": { schema: { $ref: "#/components/schemas/a.v1.DoRequest" } } } }, parameters: [{ name: "id", in: "path", required: true, description: "The id." }, { name: "q", in: "query" }] },
      },
    },
    components: { schemas: { "a.v1.DoRequest": { required: ["names"], properties: { names: { type: "array", items: { type: "string" }, description: "Names." }, kind: { enum: ["a", "b"] } } } } },
  });
  expect(operation).toMatchObject({ verb: "POST", service: "a.v1.S", method: "Do", parameters: [{ name: "tenant_id", in: "path" }, { name: "id", in: "path", description: "The id." }, { name: "q", in: "query" }] });
  expect(operation?.body).toEqual([
    { name: "names", type: "list of string", required: true, description: "Names." },
    { name: "kind", type: "a | b", required: false, description: "" },
  ]);
  expect(filled("/v1/{tenant_id}/x/{id}", { tenant_id: "acme", id: "a/b" })).toBe("/v1/acme/x/a%2Fb");
  expect(operations({})).toEqual([]);
});

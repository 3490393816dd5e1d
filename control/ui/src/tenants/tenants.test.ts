// @vitest-environment jsdom
import { create } from "@bufbuild/protobuf";
import { expect, it } from "vitest";
import { NodeSchema } from "../gen/control/v1/fleet_pb";
import { TenantSchema } from "../gen/control/v1/tenant_pb";
import { failedViews, storageUsed } from "./tenants";

it("a view that fails at two nodes is one, and another tenant's is none", () => {
  const node = (...views: [tenantId: string, view: string][]) => create(NodeSchema, { failingViews: views.map(([tenantId, view]) => ({ tenantId, view })) });
  expect(failedViews([node(["acme", "wallets"], ["globex", "wallets"]), node(["acme", "wallets"], ["acme", "movements"])], "acme")).toEqual(["wallets", "movements"]);
});

it("the fullest of a tenant's own limits counts, and a limit of 0 is none", () => {
  expect(storageUsed(create(TenantSchema, { storageUse: { events: 50n, bytes: 900n }, storageQuota: { events: 100n, bytes: 1000n } }))).toBe(0.9);
  expect(storageUsed(create(TenantSchema, { storageUse: { events: 50n }, storageQuota: {} }))).toBeUndefined();
  expect(storageUsed(create(TenantSchema, { storageUse: { events: 50n } }))).toBeUndefined();
});

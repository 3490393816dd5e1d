import { create } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { WhoAmIResponseSchema } from "../gen/gateway/v1/session_pb";
import { refusal } from "./rights";
import { parseSearch, stringifySearch } from "./url";

const who = (rights: string[], tenants: string[]) => create(WhoAmIResponseSchema, { subject: "ada", rights, tenants });

describe("what the principal may not do", () => {
  it.each([
    [["fleet.admin"], ["*"], "platform", ""],
    [["fleet.admin:acme*"], ["*"], "platform", ""],
    [["fleet.read"], ["*"], "platform", "you lack the right fleet.admin"],
    [["fleet.admin"], ["acme"], "platform", "it concerns the whole platform, and your credential is not valid for all tenants"],
    [["fleet.admin"], ["acme"], "tenant", ""],
  ] as const)("rights %j, tenants %j, %s", (rights, tenants, scope, want) => {
    expect(refusal(who([...rights], [...tenants]), "fleet.admin", scope)).toBe(want);
  });

  it("is everything until the rights are loaded", () => {
    expect(refusal(undefined, "fleet.read", "platform")).not.toBe("");
  });
});

it("an address has every parameter that is not empty", () => {
  expect(stringifySearch({ q: "a b", tenant: "5", page: "" })).toBe("?q=a+b&tenant=5");
  expect(parseSearch("?q=a+b&tenant=5")).toEqual({ q: "a b", tenant: "5" });
  expect(stringifySearch({})).toBe("");
});

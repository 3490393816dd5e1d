import { expect, it } from "vitest";
import { claimsOf } from "./jwt";

const token = (claims: unknown) => {
  const text = typeof claims === "string" ? claims : JSON.stringify(claims);
  const payload = btoa(String.fromCharCode(...new TextEncoder().encode(text))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  return `e30.${payload}.sig`;
};

it("the claims that name a token are read", () => {
  const claims = { iss: "https://id.example", jti: "t-1", sub: "zoë?>~", exp: 1_800_000_000 };
  expect(claimsOf(`  ${token(claims)}\n`)).toEqual({ issuer: claims.iss, tokenId: "t-1", subject: "zoë?>~", expires: 1_800_000_000 });
  expect(claimsOf(token({ iss: 5, exp: "soon" }))).toEqual({ issuer: "", tokenId: "", subject: "", expires: undefined });
});

it.each(["", "abc", "a.b", "a.b.c.d", "e30.%.x", token("[1]"), token("null"), token("{"), `e30.${btoa("\xff\xfe")}.x`, "hgk_c.abc"])("%s is no token", (text) => expect(claimsOf(text)).toBeUndefined());

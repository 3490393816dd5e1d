// @vitest-environment jsdom
import { beforeEach, describe, expect, it } from "vitest";
import { parseCredential, removeCredential, renewalAfter, replaces, storeCredential, storedCredential, type Credential } from "./credential";
import { parsePath, placeOf, redirectUri, storeFlow, takeFlow } from "./flow";
import { labelOf, parseProviders } from "./providers";

const grant = { provider: "corp", subject: "ada", refresh: "r", until: 400_000, lifetime: 300_000 };
const credential: Credential = { token: "t", at: 100, generation: 2, grant };

beforeEach(() => sessionStorage.clear());

it("a place is one of the console; an address of elsewhere, or of a sign-in, is its first screen", () => {
  const origin = "https://gate.example";
  for (const place of ["/ui/", "/ui/fleet", "/ui/views?tenant=acme&filter=a%3Db#row", `${origin}/ui/fleet`]) expect(placeOf(place, origin)).toBe(place.replace(origin, ""));
  const elsewhere = ["", "//evil.example/ui/", "https://evil.example/ui/", "https://gate.example.evil.example/ui/", "\\\\evil.example/ui/", "/ui//evil.example", "/ui/../admin", "javascript:alert(1)", "data:text/html,x", "http://gate.example/ui/", "/v1/x", "/ui", "/ui/sign-in", "/ui/sign-in/corp", "/ui/signed-in?code=c", "https://user@evil.example/ui/", "http://["];
  for (const text of elsewhere) expect([text, placeOf(text, origin)]).toEqual([text, "/ui/"]);
});

it.each([
  ["/ui/sign-in", { kind: "begin", provider: "" }],
  ["/ui/sign-in/corp", { kind: "begin", provider: "corp" }],
  ["/ui/signed-in", { kind: "answer", provider: "" }],
  ["/ui/signed-in/corp-2/", { kind: "answer", provider: "corp-2" }],
  ["/ui/signed-in/Corp", undefined],
  ["/ui/signed-in/corp/more", undefined],
  ["/ui/signed-in-not", undefined],
  ["/ui/fleet", undefined],
  ["/x/ui/sign-in", undefined],
])("%s is %j", (path, want) => expect(parsePath(path)).toEqual(want));

it("each provider answers at another address", () => {
  expect(new URL(redirectUri("")).pathname).toBe("/ui/signed-in");
  expect(new URL(redirectUri("corp")).pathname).toBe("/ui/signed-in/corp");
  expect(parsePath(new URL(redirectUri("corp")).pathname)).toEqual({ kind: "answer", provider: "corp" });
});

it("a flow is taken once, and not when it is old", () => {
  const flow = { provider: "corp", state: "s", nonce: "n", verifier: "v", place: "/ui/", popup: false, at: 1_000 };
  expect(takeFlow()).toBeUndefined();
  storeFlow(flow);
  expect(takeFlow(2_000)).toEqual(flow);
  expect(takeFlow(2_000)).toBeUndefined();
  storeFlow(flow);
  expect(takeFlow(1_000 + 15 * 60_000)).toBeUndefined();
  expect(sessionStorage.length).toBe(0);
});

describe("a credential", () => {
  it("is stored in the tab, and removed with what renews it", () => {
    storeCredential(credential);
    expect(storedCredential()).toEqual(credential);
    expect(localStorage.length).toBe(0);
    removeCredential();
    expect(storedCredential()).toBeUndefined();
    expect(sessionStorage.length).toBe(0);
  });

  it.each(["", "{", "null", "[]", "{}", '{"at":"1","generation":0}', '{"at":1}'])("beside which %j is stored has no grant", (stored) => {
    expect(parseCredential("t", stored)).toEqual({ token: "t", at: 0, generation: 0 });
  });

  it("with a grant that lacks something cannot be renewed", () => {
    for (const name of Object.keys(grant)) {
      const stored = JSON.stringify({ at: 1, generation: 0, grant: { ...grant, [name]: undefined } });
      expect(parseCredential("t", stored)).toEqual({ token: "t", at: 1, generation: 0 });
    }
  });

  it("replaces an earlier sign-in, and of one sign-in an earlier renewal", () => {
    const of = (at: number, generation: number) => ({ ...credential, at, generation });
    expect(replaces(of(101, 0), credential)).toBe(true);
    expect(replaces(of(100, 3), credential)).toBe(true);
    expect(replaces(of(100, 2), credential)).toBe(false);
    expect(replaces(of(100, 1), credential)).toBe(false);
    expect(replaces(of(99, 9), credential)).toBe(false);
  });

  it("is renewed a minute or a quarter of its lifetime before its end", () => {
    expect(renewalAfter(credential, 100_000)).toBe(240_000);
    expect(renewalAfter({ ...credential, grant: { ...grant, lifetime: 20_000, until: 120_000 } }, 100_000)).toBe(15_000);
    expect(renewalAfter(credential, 999_000)).toBe(0);
    expect(renewalAfter({ ...credential, grant: { ...grant, refresh: "" } }, 0)).toBeUndefined();
    expect(renewalAfter({ ...credential, grant: { ...grant, until: 0 } }, 0)).toBeUndefined();
    expect(renewalAfter({ token: "t", at: 0, generation: 0 }, 0)).toBeUndefined();
  });
});

it("of an answer of providers, only what is one counts", () => {
  const corp = { name: "corp", issuer: "https://id.example/realms/corp", clientId: "console", scopes: ["openid"] };
  const wrong = [null, 1, {}, { ...corp, issuer: "id" }, { ...corp, clientId: 1 }, { ...corp, scopes: "openid" }, { ...corp, scopes: [1] }, { ...corp, name: undefined }];
  expect(parseProviders([corp, ...wrong])).toEqual([corp]);
  for (const answer of [undefined, {}, "[]"]) expect(parseProviders(answer)).toEqual([]);
  expect(labelOf(corp)).toBe("corp");
  expect(labelOf({ ...corp, name: "" })).toBe("id.example");
});

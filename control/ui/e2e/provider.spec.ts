import { expect, test, type Page } from "@playwright/test";
import { accessible, look, pass, url } from "./console";

// Sign-in at an OpenID provider: package oidctest, as a separate process.
test.describe.configure({ mode: "serial" });

const issuer = () => process.env["PROVIDER"] ?? "";

interface Change {
  user?: object;
  access?: object;
  signOut?: boolean;
  seconds?: number;
  fail?: number;
  end?: boolean;
  announce?: Record<string, unknown>;
}

/** Changes the provider, and returns its sessions and how often tokens were requested. */
async function provider(change: Change = {}): Promise<{ sessions: number; tokens: number }> {
  const res = await fetch(process.env["PROVIDER_CONTROL"] ?? "", { method: "POST", body: JSON.stringify(change) });
  return (await res.json()) as { sessions: number; tokens: number };
}

const rights = ["fleet.read", "query.read", "command.submit", "events.read", "audit.read", "workflow.read", "aggregate.read"];

/** When a token of five minutes is renewed. The browser's clock jumps to it: the gateway still accepts the token. */
const renewed = "04:00";

/** Signs a user in at the provider. */
const user = (sub: string, change: Change = {}) => provider({ user: { sub }, access: { tenants: ["*"], rights }, seconds: 300, fail: 0, ...change });

const account = (page: Page, name: string) => page.getByRole("button", { name: `Account of corp:${name}` });
const button = (page: Page) => page.getByRole("button", { name: "Sign in with corp" });

const command = "/commands?tenant=acme&type=wallet&command=deposit&id=ada";

/** Signs in, at the place of the console. */
async function enter(page: Page, place = command): Promise<void> {
  await page.goto(url(place));
  await button(page).click();
  await expect(page.getByRole("button", { name: /^Account of corp:/ })).toBeVisible();
}

/** Which tokens are in addresses, histories and storages that outlive the tab. */
const stored = (page: Page) => page.evaluate(() => ({ local: JSON.stringify(localStorage), cookies: document.cookie, address: location.href }));

test("A user signs in at a provider, in all tabs, which renew the token once, and signs out there too", async ({ page, context }) => {
  await user("ada");
  await context.clock.install();
  const asked: { url: string; referer: string }[] = [];
  const lines: string[] = [];
  context.on("request", (req) => asked.push({ url: req.url(), referer: req.headers()["referer"] ?? "" }));
  page.on("console", (line) => lines.push(line.text()));
  await page.goto(url(command));
  await expect(button(page)).toBeVisible();
  await look(page);
  await page.emulateMedia({ colorScheme: "light" });
  await accessible(page);
  await button(page).click();
  await expect(account(page, "ada")).toBeVisible();
  await expect(page).toHaveURL(url(command));

  const other = await context.newPage();
  await other.goto(url("/fleet"));
  await expect(account(other, "ada")).toBeVisible();
  await page.getByLabel("amount").fill("4711");
  const before = await provider();
  const renewals = () => page.evaluate(() => (JSON.parse(sessionStorage.getItem("headgate.grant") ?? "{}") as { generation: number }).generation);
  // The next tokens live longer than the browser's clock is ahead.
  let done = 0;
  for (const [time, seconds] of [[renewed, 1_500], ["24:00", 6_000]] as const) {
    await provider({ seconds });
    await context.clock.fastForward(time);
    await expect.poll(renewals).toBe(++done);
  }
  await expect(other.getByRole("cell", { name: "gateway-1" })).toBeVisible();
  // Two renewals in two tabs are two requests: a refresh token that is used twice ends the session.
  const after = await provider();
  expect(after.tokens - before.tokens).toBeLessThanOrEqual(2);
  expect(after.sessions).toBe(1);
  await expect(page.getByLabel("amount")).toHaveValue("4711");
  await page.reload();
  await expect(account(page, "ada")).toBeVisible();

  // Tokens and codes are in no address, no log, and nothing that outlives the tab.
  const tokens = await page.evaluate(() => [sessionStorage.getItem("headgate.token"), (JSON.parse(sessionStorage.getItem("headgate.grant") ?? "{}") as { grant: { refresh: string } }).grant.refresh]);
  const left = await stored(page);
  for (const token of tokens) {
    expect(token?.length).toBeGreaterThan(20);
    for (const place of [left.local, left.cookies, left.address, ...lines, ...asked.map((one) => one.url + one.referer)]) expect(place).not.toContain(token);
  }
  expect(left.address).not.toMatch(/code|state/);
  expect(asked.filter((one) => /[?&]code=/.test(one.referer))).toEqual([]);

  await account(other, "ada").click();
  await other.getByRole("menuitem", { name: "Sign out" }).click();
  await expect(button(other)).toBeVisible();
  await expect(page.getByText("You signed out in another tab.")).toBeVisible();
  await expect.poll(async () => (await provider()).sessions).toBe(0);
  await expect.poll(() => asked.some((one) => one.url.startsWith(`${issuer()}/logout?client_id=console`))).toBe(true);
  expect(await page.evaluate(() => sessionStorage.length)).toBe(0);
  // The provider has no user now.
  await button(page).click();
  await expect(page.getByRole("alert")).toHaveText(/The sign-in at the provider failed: it answers access_denied/);
});

test("A session that the provider ends keeps a half-filled form for the same user, and nothing for another one", async ({ page, context }) => {
  await user("bob");
  await page.clock.install();
  await enter(page);
  await page.getByLabel("amount").fill("4711");
  const lapse = async () => {
    await provider({ end: true });
    // As the gateway answers once the token has expired.
    await page.route(/WhoAmI$/, (route) => route.fulfill({ status: 401, contentType: "application/json", body: JSON.stringify({ code: "unauthenticated", message: "the token has expired" }) }));
    await pass(page, 3);
    const again = page.getByRole("dialog", { name: "Sign in again" });
    await expect(again.getByRole("alert")).toContainText("Your session has ended: the provider does not renew it: it answers invalid_grant");
    await page.unroute(/WhoAmI$/);
    const [popup] = await Promise.all([context.waitForEvent("page"), again.getByRole("button", { name: "Sign in with corp" }).click()]);
    await popup.waitForEvent("close");
    await expect(again).toBeHidden();
  };
  await lapse();
  await expect(account(page, "bob")).toBeVisible();
  await expect(page.getByLabel("amount")).toHaveValue("4711");
  await user("cyd");
  await lapse();
  await expect(account(page, "cyd")).toBeVisible();
  await expect(page.getByLabel("amount")).toHaveValue("");
  await expect(page.getByText("corp:bob")).toHaveCount(0);
});

test("Answers that are not for this sign-in, and providers that are not the configured one, are refused", async ({ page, context }) => {
  await user("dan");
  await page.goto(url(command));
  const refused = async (why: RegExp, change: (answer: URLSearchParams) => void, asks: (request: URLSearchParams) => void = () => undefined) => {
    await context.route(
      /\/authorize\?/,
      async (route) => {
        const asked = new URL(route.request().url());
        asks(asked.searchParams);
        const answer = new URL((await fetch(asked, { redirect: "manual" })).headers.get("location") ?? "");
        change(answer.searchParams);
        await route.fulfill({ status: 302, headers: { location: answer.href } });
      },
      { times: 1 },
    );
    await button(page).click();
    await expect(page.getByRole("alert")).toHaveText(why);
    await expect(page).toHaveURL(url(command));
  };
  await refused(/unexpected "state"/, (answer) => answer.set("state", "another"));
  await refused(/"state" missing/, (answer) => answer.delete("state"));
  await refused(/unexpected "iss"/, (answer) => answer.set("iss", "https://evil.example"));
  await refused(/"iss" \(issuer\) missing/, (answer) => answer.delete("iss"));
  await refused(/it answers invalid_grant/, (answer) => answer.set("code", "guessed"));
  await refused(/"code" parameter must be provided only once/, (answer) => answer.append("code", "second"));
  // A code that was made for another nonce, and for another verifier.
  await refused(/nonce/, () => undefined, (request) => request.set("nonce", "another"));
  await refused(/invalid_grant/, () => undefined, (request) => request.set("code_challenge", "a".repeat(43)));
  expect(await page.evaluate(() => sessionStorage.length)).toBe(0);

  // An answer that this tab did not ask for leads nowhere else, and is not exchanged.
  const { tokens } = await provider();
  await page.goto(url("/signed-in/corp?code=c&state=s&iss=x"));
  await expect(page.getByRole("alert")).toHaveText(/has not begun in this tab/);
  await expect(page).toHaveURL(url("/"));
  expect((await provider()).tokens).toBe(tokens);

  for (const [announce, why] of [
    [{ issuer: "https://evil.example" }, /issuer/],
    [{ token_endpoint: "https://evil.example/token" }, /may only call .* names https:\/\/evil\.example\/token/],
    [{ authorization_endpoint: "javascript:alert(1)" }, /it has no authorization endpoint/],
    [{ authorization_endpoint: null }, /it has no authorization endpoint/],
  ] as const) {
    const own = { issuer: issuer(), token_endpoint: `${issuer()}/token`, authorization_endpoint: `${issuer()}/authorize` };
    await provider({ announce: { ...own, ...announce } });
    await button(page).click();
    await expect(page.getByRole("alert")).toHaveText(why);
    await provider({ announce: own });
  }
  await provider({ fail: 503 });
  await button(page).click();
  await expect(page.getByRole("alert")).toHaveText(/The sign-in with corp could not begin/);
});

test("A token without rights at the gateway is rejected with its reason; an unreachable provider ends no session", async ({ page, context }) => {
  await user("eve", { access: { tenants: 5 } });
  await context.clock.install();
  await page.goto(url(command));
  await button(page).click();
  await expect(page.getByRole("alert")).toHaveText(/The gateway rejected the token/);
  await user("eve");
  await button(page).click();
  await expect(account(page, "eve")).toBeVisible();
  await page.getByLabel("amount").fill("1");
  await provider({ fail: 503 });
  await Promise.all([context.waitForEvent("response", { predicate: (res) => res.url().startsWith(issuer()) && res.status() === 503 }), context.clock.fastForward(renewed)]);
  await expect(page.getByLabel("amount")).toHaveValue("1");
  await expect(page.getByRole("dialog", { name: "Sign in again" })).toBeHidden();
  // Once it is back, the token is renewed before the gateway rejects it.
  await provider({ fail: 0 });
  await Promise.all([context.waitForEvent("response", { predicate: (res) => res.url() === `${issuer()}/token` && res.ok() }), context.clock.fastForward("00:10")]);
  await expect(account(page, "eve")).toBeVisible();
});

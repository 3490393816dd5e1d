import { expect, test, type Page } from "@playwright/test";
import { accessible, issue, look, post, signIn } from "./console";

/** What the gateway answers to a query with the credential. */
const query = async (credential: string) => {
  const answer = await post("/projection.gateway.v1.QueryService/ListViews", { tenantId: "acme" }, credential);
  return answer.ok ? "ok" : ((await answer.json()) as { code: string }).code;
};
const soon = { timeout: 10_000 };

/** Neither the page nor the open dialog is wider than a phone. */
async function fitsPhone(page: Page): Promise<void> {
  await page.setViewportSize({ width: 390, height: 844 });
  expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(390);
  expect(await page.getByRole("dialog").evaluate((dialog) => dialog.scrollWidth - dialog.clientWidth)).toBe(0);
  await page.setViewportSize({ width: 1280, height: 800 });
}

test("An API key is issued, its secret is shown once, it is used and revoked", async ({ page }) => {
  await signIn(page, "/access?tenant=acme");
  await page.getByRole("link", { name: "API keys and tokens" }).click();
  await page.getByRole("button", { name: "Issue a key…" }).click();
  const form = page.getByRole("dialog", { name: "Issue an API key" });
  await expect(form.getByRole("button", { name: "Issue" })).toBeDisabled();
  await form.getByLabel("Name").fill("reporting");
  await expect(form.getByLabel("Tenants")).toHaveValue("acme");
  await form.getByRole("checkbox", { name: "query.read" }).check();
  await expect(form.getByRole("checkbox", { name: "key.admin" })).toHaveCount(0);
  await look(page);
  await fitsPhone(page);
  await form.getByRole("button", { name: "Issue" }).click();
  const issued = page.getByRole("dialog", { name: "The key is issued" });
  const secret = await issued.getByRole("region", { name: "Secret" }).innerText();
  expect(secret).toMatch(/^hgk_c\./);
  await issued.getByRole("button", { name: "Copy the secret" }).click();
  expect(await page.evaluate(() => navigator.clipboard.readText())).toBe(secret);
  await look(page);
  await fitsPhone(page);
  // Only "Done" closes it, and the secret is in no state, storage or list.
  await page.keyboard.press("Escape");
  await expect(issued).toBeVisible();
  await issued.getByRole("button", { name: "Done" }).click();
  await expect(issued).toBeHidden();
  expect(await page.content()).not.toContain(secret);
  expect(await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }]))).not.toContain(secret);
  await expect.poll(() => query(secret), soon).toBe("ok");

  await page.getByRole("region", { name: "API keys" }).getByRole("button", { name: "reporting" }).click();
  const key = page.getByRole("complementary", { name: "API key reporting" });
  await expect(key).toContainText("acme");
  await key.getByRole("button", { name: "Revoke…" }).click();
  const confirm = page.getByRole("dialog", { name: "Revoke" });
  await expect(confirm).toContainText("This cannot be undone");
  await confirm.getByLabel("Reason, for the audit record").fill("found in a log");
  await confirm.getByRole("button", { name: "Revoke" }).click();
  await expect.poll(() => query(secret), soon).toBe("unauthenticated");
  await expect(key).toContainText("found in a log");
  await expect(key.getByTitle("the key is revoked")).toBeVisible();
  await look(page);
});

test("A token is revoked without being sent, and its revocation is withdrawn", async ({ page }) => {
  const token = issue("leaky", ["acme"], ["query.read"]);
  expect(await query(token)).toBe("ok");
  await signIn(page, "/credentials?list=revocations");
  const sent: string[] = [];
  page.on("request", (request) => sent.push(request.postData() ?? ""));
  const revoke = page.getByRole("region", { name: "Revoke", exact: true });
  const pasted = revoke.getByLabel("Token (read in the browser, not sent)");
  await pasted.fill("hgk_c.x");
  await expect(revoke).toContainText("This is an API key: revoke it in the list of API keys.");
  await pasted.fill(token);
  await expect(revoke.getByText("leaky")).toBeVisible();
  await revoke.getByRole("button", { name: "Revoke…" }).click();
  const confirm = page.getByRole("dialog", { name: "Revoke" });
  await confirm.getByLabel("Reason, for the audit record").fill("leaked");
  await confirm.getByRole("button", { name: "Revoke" }).click();
  await expect.poll(() => query(token), soon).toBe("unauthenticated");
  expect(sent.filter((body) => body.includes(token))).toEqual([]);
  await page.getByRole("region", { name: "Revoked tokens" }).getByRole("row").filter({ hasText: "leaked" }).getByRole("button").first().click();
  const revocation = page.getByRole("complementary", { name: "Revocation" });
  await look(page);
  await revocation.getByRole("button", { name: "Withdraw…" }).click();
  const withdraw = page.getByRole("dialog", { name: "Withdraw" });
  await withdraw.getByLabel("Reason, for the audit record").fill("not leaked");
  await withdraw.getByRole("button", { name: "Withdraw" }).click();
  await expect.poll(() => query(token), soon).toBe("ok");
  await expect(revocation).toContainText("withdrawn");
});

test("A tenant's administrator has the keys of the tenant alone; what the rights do not allow is off, with the reason, before the click", async ({ page }) => {
  await signIn(page, "/credentials", issue("globex-admin", ["globex"], ["credential.read", "key.admin", "query.read"]));
  await expect(page.getByText("API keys and revoked tokens of globex.")).toBeVisible();
  await expect(page.getByText("No API key has been issued.")).toBeVisible();
  await accessible(page);
  await page.getByRole("button", { name: "Issue a key…" }).click();
  const form = page.getByRole("dialog", { name: "Issue an API key" });
  await expect(form.getByLabel("Tenants")).toHaveCount(0);
  await form.getByLabel("Name").fill("of-globex");
  await form.getByLabel("Narrowed rights").fill("query.read:wallets");
  await form.getByRole("button", { name: "Issue" }).click();
  await page.getByRole("dialog", { name: "The key is issued" }).getByRole("button", { name: "Done" }).click();
  const row = page.getByRole("region", { name: "API keys" }).getByRole("row").filter({ hasText: "of-globex" });
  await expect(row).toContainText("query.read:wallets");
  await page.getByRole("button", { name: "Revoked tokens" }).click();
  await expect(page.getByRole("region", { name: "Revoke", exact: true }).getByTitle("you lack the right token.revoke")).toBeVisible();

  await signIn(page, "/credentials", issue("reader", ["*"], ["credential.read"]));
  await expect(page.getByTitle("you lack the right key.admin")).toBeVisible();
  await expect(page.getByRole("button", { name: "Issue a key…" })).toBeDisabled();
  await signIn(page, "/access", issue("blind", ["acme"], ["query.read"]));
  await expect(page.getByRole("navigation", { name: "Screens", exact: true }).getByTitle("API keys and tokens: you lack the right credential.read")).toBeVisible();
  await accessible(page);
});

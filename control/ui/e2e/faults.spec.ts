import { expect, test } from "@playwright/test";
import { accessible, application, gateway, issue, operator, pass, post, signIn, url } from "./console";

test("Another identity sees nothing of the one before, neither rows nor its name", async ({ page }) => {
  await signIn(page, "/fleet");
  await expect(page.getByRole("cell", { name: "gateway-1" })).toBeVisible();
  await page.getByRole("link", { name: "Tenants" }).click();
  await expect(page.getByRole("button", { name: "globex" })).toBeVisible();
  await page.getByRole("button", { name: "Account of operator" }).click();
  await page.getByRole("menuitem", { name: "Sign out" }).click();
  // The next identity's own answers are held back: nothing else may stand in their place.
  await page.route(/(GetFleet|ListTenants|ListWorkflows)$/, () => undefined);
  await page.getByLabel("Token").fill(application());
  await page.getByRole("button", { name: "Sign in", exact: true }).click();
  await expect(page.getByRole("button", { name: "Account of acme-app" })).toBeVisible();
  await page.goBack();
  await expect(page.getByText("operator")).toHaveCount(0);
  await expect(page.getByText("globex")).toHaveCount(0);
  await expect(page.getByText("gateway-1")).toHaveCount(0);
});

test("On plain http off localhost the pages work, a key is made and a text is copied", async ({ page }) => {
  const other = gateway().replace("127.0.0.1", "console.example");
  await page.goto(`${other}/ui/favicon.svg`);
  await page.evaluate((value) => sessionStorage.setItem("headgate.token", value), operator());
  await page.goto(`${other}/ui/commands?tenant=acme&type=wallet&command=deposit&id=ada`);
  expect(await page.evaluate(() => window.isSecureContext)).toBe(false);
  await expect(page.getByLabel("Idempotency key")).toHaveValue(/^[0-9a-f]{8}-/);
  await page.goto(`${other}/ui/views?tenant=acme&view=wallets`);
  await page.getByRole("button", { name: "Copy as curl" }).click();
  await expect(page.getByRole("button", { name: "Copied" })).toBeVisible();
  const filter = page.getByLabel("Filter (AIP-160)");
  await filter.focus();
  await page.keyboard.press("Control+v");
  await expect(filter).toHaveValue(/^curl -s/);
  // A refusal of the browser is shown.
  await page.evaluate(() => (document.execCommand = () => false));
  await page.getByRole("button", { name: "Copy as buf curl" }).click();
  await expect(page.getByText("The browser refused to copy").first()).toBeVisible();
});

test("A part that is missing after an upgrade reloads the page once", async ({ page }) => {
  let missing = 1;
  await page.route(/assets\/audit-.*\.js/, (route) => (missing-- > 0 ? route.fulfill({ status: 404, body: "" }) : route.continue()));
  await signIn(page, "/fleet");
  await page.getByRole("link", { name: "Audit" }).click();
  await expect(page.getByRole("heading", { name: "Audit" })).toBeVisible();
  await expect(page).toHaveURL(/\/ui\/audit/);
});

test("A part that the first view does without reloads the page once, too", async ({ page }) => {
  let missing = 1;
  await page.route(/assets\/account-.*\.js/, (route) => (missing-- > 0 ? route.fulfill({ status: 404, body: "" }) : route.continue()));
  await signIn(page, "/fleet");
  await expect(page.getByRole("button", { name: /^Account/ })).toBeVisible();
  await expect(page.getByRole("cell", { name: "gateway-1" })).toBeVisible();
});

test("A part that stays missing is reported, without a loop of reloads", async ({ page }) => {
  let loads = 0;
  await page.route(/assets\/audit-.*\.js/, (route) => route.fulfill({ status: 404, body: "" }));
  page.on("load", () => loads++);
  await signIn(page, "/fleet");
  await page.getByRole("link", { name: "Audit" }).click();
  await expect(page.getByText("A part of the console could not be loaded")).toBeVisible();
  expect(loads).toBe(2); // the fleet, the reload
  await accessible(page);
});

test("A page that crashes shows an error, and the others still work", async ({ page }) => {
  // An answer of another shape than the client's.
  await page.route(/\/openapi\.json/, (route) => route.fulfill({ contentType: "application/json", body: `{"paths": {"/x": {"get": {"summary": {"not": "a text"}}}}}` }));
  await signIn(page, "/api");
  await expect(page.getByText("This page has crashed")).toBeVisible();
  await page.getByRole("link", { name: "Tenants" }).click();
  await expect(page.getByRole("heading", { name: "Tenants" })).toBeVisible();
});

test("A chosen row opens beside the list, which stays where it was; Back closes it", async ({ page }) => {
  await page.setViewportSize({ width: 1280, height: 500 });
  await signIn(page, "/access");
  const last = page.getByRole("region", { name: "Methods" }).getByRole("row").last();
  await last.scrollIntoViewIfNeeded();
  const region = page.getByRole("region", { name: "Methods" });
  const before = await Promise.all([region.evaluate((one) => one.scrollTop), page.evaluate(() => scrollY)]);
  await last.getByRole("button").first().click();
  await expect(page).toHaveURL(/procedure=/);
  expect(await Promise.all([region.evaluate((one) => one.scrollTop), page.evaluate(() => scrollY)])).toEqual(before);

  await page.goto(url("/fleet?tenant=acme"));
  await page.getByRole("button", { name: "runner-1" }).click();
  const detail = page.getByRole("complementary", { name: "Node runner-1" });
  await expect(detail).toBeInViewport();
  await expect(detail.getByRole("heading", { name: "runner-1" })).toBeFocused();
  await page.goBack();
  await expect(detail).toBeHidden();
  await expect(page).toHaveURL(/\/ui\/fleet/);
  await page.getByRole("button", { name: "gateway-1" }).click();
  await page.keyboard.press("Escape");
  await expect(page.getByRole("button", { name: "gateway-1" })).toBeFocused();
});

test("The tenant stays through the screens", async ({ page }) => {
  await signIn(page, "/workflows?tenant=globex");
  for (const name of ["Views", "Moves", "Fleet", "Dead letters", "Timeline"]) {
    await page.getByRole("link", { name, exact: true }).click();
    await expect(page).toHaveURL(/tenant=globex/);
    await expect(page.getByRole("combobox", { name: "Tenant", exact: true })).toHaveValue("globex");
  }
  await page.getByRole("combobox", { name: "Tenant", exact: true }).selectOption("acme");
  await expect(page).toHaveURL(/tenant=acme/);
  await page.goBack();
  await expect(page.getByRole("combobox", { name: "Tenant", exact: true })).toHaveValue("globex");
});

test("A new tab is signed in, and signing out ends all tabs", async ({ context, page }) => {
  await signIn(page, "/fleet");
  await expect(page.getByRole("heading", { name: "Fleet" })).toBeVisible();
  const other = await context.newPage();
  await other.goto(url("/tenants"));
  await expect(other.getByRole("button", { name: "globex" })).toBeVisible();
  await other.getByRole("button", { name: "Account of operator" }).click();
  await other.getByRole("menuitem", { name: "Sign out" }).click();
  await expect(page.getByText("You signed out in another tab.")).toBeVisible();
});

test("When the token expires, a half-filled form stays until the same identity signs in again", async ({ page }) => {
  const rights = ["fleet.read", "query.read", "command.submit"];
  await page.clock.install();
  await signIn(page, "/commands?tenant=acme&type=wallet&command=deposit&id=ada", issue("ada", ["*"], rights));
  await page.getByLabel("amount").fill("4711");
  // As the gateway answers once the token has expired.
  await page.route(/WhoAmI$/, (route) => route.fulfill({ status: 401, contentType: "application/json", body: JSON.stringify({ code: "unauthenticated", message: "the token has expired" }) }));
  await pass(page, 3);
  const again = page.getByRole("dialog", { name: "Sign in again" });
  await expect(again).toBeVisible();
  await expect(again.getByRole("alert")).toContainText("Your session has ended: the token has expired");
  await accessible(page);
  await page.unroute(/WhoAmI$/);
  await again.getByLabel("Token").fill(issue("ada", ["*"], rights));
  await again.getByRole("button", { name: "Sign in", exact: true }).click();
  await expect(again).toBeHidden();
  await expect(page.getByLabel("amount")).toHaveValue("4711");
});

test("Audit: a record has its node and ids, typing asks once, and filters outlive Follow and Back", async ({ page }) => {
  await signIn(page, "/audit?decision=denied");
  await page.getByRole("region", { name: "Audit records" }).getByRole("row").nth(1).getByRole("button").first().click();
  const record = page.getByRole("complementary", { name: "Audit record" });
  for (const name of ["Request id", "Correlation id", "Trace id", "Right", "Procedure"]) await expect(record.getByText(name, { exact: true })).toBeVisible();
  await page.goBack();
  let asked = 0;
  page.on("request", (req) => {
    if (req.url().includes("QueryAudit")) asked++;
  });
  await page.getByLabel("Procedure contains").pressSequentially("RunnerAdmin", { delay: 20 });
  await expect(page).toHaveURL(/procedure=RunnerAdmin/);
  await expect(page.getByRole("cell", { name: "Drain" }).first()).toBeVisible();
  // Not one per key: the test itself may type slowly.
  expect(asked).toBeLessThan(6);
  await page.getByLabel("Follow").check();
  await expect(page.getByText("following", { exact: true })).toBeVisible();
  await expect(page.getByLabel("Procedure contains")).toHaveValue("RunnerAdmin");
  await fetch(`${gateway()}/admin/runner/drain`, { method: "POST", headers: { authorization: `Bearer ${application()}`, "content-type": "application/json" }, body: "{}" });
  await fetch(`${gateway()}/v1/control/tenants`, { headers: { authorization: `Bearer ${application()}` } });
  await expect(page.getByRole("cell", { name: "Drain" }).first()).toBeVisible();
  await expect(page.getByRole("cell", { name: "ListTenants" })).toBeHidden();
  await page.goBack();
  await expect(page.getByLabel("Follow")).not.toBeChecked();
  await expect(page).toHaveURL(/\/ui\/audit.*procedure=RunnerAdmin/);
});

test("A search of instances goes beyond what is loaded: the platform searches", async ({ page }) => {
  for (const id of ["searched-1", "searched-2"]) await post(`/v1/commands/transfer/${id}/request`, { payload: { from: "ada", to: "cyd", amount: 1 } });
  // Pages of two in the place of two hundred.
  await page.route(/ListWorkflows/, async (route) => {
    const body = JSON.parse(route.request().postData() ?? "{}") as { pageSize?: number };
    if (body.pageSize === 200) await route.continue({ postData: JSON.stringify({ ...body, pageSize: 2 }) });
    else await route.continue();
  });
  await signIn(page, "/workflows?tenant=acme");
  await expect(page.getByText("2 instances are loaded, the last changed ones first; there are older ones.")).toBeVisible();
  const text = page.getByLabel("Error or step contains");
  await text.fill("transfer/good");
  await expect(page.getByRole("button", { name: "transfer/good" })).toBeVisible();
  await expect(page.getByText(/^1 found in all \d+ instances\.$/)).toBeVisible();
  await text.fill("NOT OPEN");
  await expect(page.getByRole("button", { name: "transfer/bad" })).toBeVisible();
  await text.fill("nothing has this");
  await expect(page.getByText("No instance has “nothing has this” in its error, step or name.")).toBeVisible();
  // By the beginning of an id, too.
  await page.goto(url("/workflows?tenant=acme"));
  await page.getByLabel("Id begins with").fill("transfer/searched");
  await expect(page.getByRole("button", { name: /^transfer\/searched-[12]$/ })).toHaveCount(2);
  await expect(page.getByText(/^2 found in /)).toBeVisible();
});

test("All times of a page are in one zone, to the millisecond", async ({ browser }) => {
  const context = await browser.newContext({ timezoneId: "Asia/Tokyo" });
  const page = await context.newPage();
  await signIn(page, "/views?tenant=acme&view=wallets");
  const cell = page.getByRole("region", { name: "Rows of wallets" }).getByRole("row").nth(1).locator("time").first();
  await expect(cell).toHaveText(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}$/);
  const [text, instant] = [await cell.textContent(), await cell.getAttribute("datetime")];
  const tokyo = new Date(Date.parse(instant ?? "") + 9 * 3_600_000).toISOString().replace("T", " ").slice(0, 23);
  expect(text).toBe(tokyo);
  await page.getByTitle(/^Time zone/).click();
  await expect(cell).toHaveText((instant ?? "").replace("T", " ").slice(0, 23));
  await page.reload();
  await expect(page.getByTitle(/^Time zone/)).toContainText("UTC");
  await context.close();
});

test("A long text is cut off, and whole in a tooltip and the detail", async ({ page }) => {
  const long = `${"x".repeat(90)} ${"y".repeat(100)}`;
  expect((await post("/v1/commands/wallet/ada/deposit", { payload: { amount: 1, reference: long } })).ok).toBe(true);
  await signIn(page, `/views?tenant=acme&view=movements&filter=${encodeURIComponent(`reference = "${long}"`)}`);
  const rows = page.getByRole("region", { name: "Rows of movements" });
  await expect(rows.getByTitle(long)).toBeVisible();
  expect(await rows.evaluate((one) => one.scrollWidth)).toBeLessThanOrEqual(1280);
  await rows.getByRole("button", { name: "ada" }).click();
  await expect(page.getByRole("region", { name: "Row", exact: true })).toContainText(long);
});

test("After a success the next command has another idempotency key, after an error the same", async ({ page }) => {
  await signIn(page, "/commands?tenant=acme&type=wallet&command=deposit&id=ada");
  const key = page.getByLabel("Idempotency key");
  const first = await key.inputValue();
  await page.getByLabel("amount").fill("-5");
  await page.getByRole("button", { name: "Submit" }).click();
  await expect(page.getByRole("alert")).toBeVisible();
  await expect(key).toHaveValue(first);
  await page.getByLabel("amount").fill("5");
  await page.getByRole("button", { name: "Submit" }).click();
  const answer = page.getByRole("region", { name: "Answer" });
  await expect(answer.getByText("done", { exact: true })).toBeVisible();
  await expect(key).not.toHaveValue(first);
  await page.getByRole("button", { name: "Submit" }).click();
  await expect(page.getByText("answered before: the key was used")).toHaveCount(0);
  await expect(answer.getByText("done", { exact: true })).toBeVisible();
});

test("A failed step is distinguished from one that succeeded, by colour and by word", async ({ page }) => {
  await post("/v1/commands/transfer/undone/request", { payload: { from: "ada", to: "missing", amount: 10 } });
  const res = await fetch(`${gateway()}/v1/commands/transfer/shown/request`, { method: "POST", headers: { authorization: `Bearer ${application()}`, "content-type": "application/json", "x-correlation-id": "failing-transfer" }, body: JSON.stringify({ payload: { from: "ada", to: "missing", amount: 10 } }) });
  expect(res.ok).toBe(true);
  await signIn(page, "/timeline?tenant=acme&id=failing-transfer");
  const spans = page.getByRole("list", { name: "Spans" }).getByRole("listitem");
  const refused = spans.filter({ hasText: "transfer credit" });
  await expect(async () => {
    await page.getByRole("button", { name: "Show" }).click();
    await expect(refused).toHaveAttribute("data-failed", "true", { timeout: 500 });
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(1280);
  }).toPass();
  await expect(spans.filter({ hasText: "transfer debit" }).first()).toHaveAttribute("data-failed", "false");
  await expect(page.getByText(/of \d+ spans failed/)).toBeVisible();
  const bad = await page.evaluate(() => getComputedStyle(document.documentElement).getPropertyValue("--bad"));
  const color = (one: typeof refused) => one.first().locator("[data-bar]").first().getAttribute("style");
  expect(await color(refused)).toContain("var(--bad)");
  expect(await color(spans.filter({ hasText: "transfer debit" }))).not.toContain("var(--bad)");
  expect(bad).not.toBe("");
  await accessible(page);
});

test("Limits that another operator has set in the meantime are shown, not overwritten", async ({ page }) => {
  await post("/v1/control/tenants", { tenantId: "umbrella" }, operator());
  // The detail was a drawer of the list: its address leads to the page.
  await signIn(page, "/tenants?open=umbrella");
  await expect(page).toHaveURL(/\/ui\/tenants\/detail\?tenant=umbrella/);
  const detail = page.getByRole("form", { name: "Limits at each gateway" });
  await detail.getByLabel("Calls per second").fill("10");
  expect((await post("/v1/control/tenants/umbrella/quota", { quota: { rate: 77, burst: 9 } }, operator())).ok).toBe(true);
  await detail.getByRole("button", { name: "Save limits" }).click();
  await expect(detail.getByText("Another operator has set these limits in the meantime: 77 calls per second, burst 9")).toBeVisible();
  await expect(detail.getByRole("button", { name: "Save limits" })).toBeDisabled();
  await detail.getByRole("button", { name: "Use theirs" }).click();
  await expect(detail.getByLabel("Calls per second")).toHaveValue("77");
  await detail.getByLabel("Calls per second").fill("78");
  await detail.getByRole("button", { name: "Save limits" }).click();
  await expect(page.getByText("The limits of umbrella are saved.").first()).toBeVisible();
});

test("The focus returns when a dialog closes", async ({ page }) => {
  await signIn(page, "/tenants/detail?tenant=globex");
  const button = page.getByRole("button", { name: "Suspend…" });
  await button.click();
  await page.keyboard.press("Escape");
  await expect(button).toBeFocused();
});

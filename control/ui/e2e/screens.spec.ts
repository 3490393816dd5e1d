import { expect, test } from "@playwright/test";
import { accessible, application, gateway, go, look, operator, signIn, url } from "./console";

test("Signing in takes a token, shows why one is rejected, and leads to the first screen", async ({ page }) => {
  await page.goto(url("/"));
  await page.getByLabel("Token").fill("nonsense");
  await page.getByRole("button", { name: "Sign in", exact: true }).click();
  await expect(page.getByRole("alert")).toContainText("The gateway rejected the token");
  await accessible(page);
  await page.getByLabel("Token").fill(operator());
  await page.getByRole("button", { name: "Sign in", exact: true }).click();
  await expect(page.getByRole("heading", { name: "Overview" })).toBeVisible();
  await expect(page).toHaveURL(/\/ui\/overview\?tenant=acme/);
  await expect(page).toHaveTitle("Overview · Headgate");
});

test("Fleet: every node with its state, narrowed by a filter that the address keeps", async ({ page }) => {
  await signIn(page, "/fleet");
  for (const node of ["aggregate-1", "control-1", "gateway-1", "projection-1", "runner-1"]) await expect(page.getByRole("cell", { name: node })).toBeVisible();
  await expect(page.getByText("all answered")).toBeVisible();
  await look(page, true);
  await page.getByRole("heading", { name: "Fleet" }).click();
  await page.keyboard.press("/");
  await page.keyboard.type("runner");
  await expect(page.getByRole("cell", { name: "gateway-1" })).toBeHidden();
  await page.reload();
  await expect(page.getByRole("cell", { name: "runner-1" })).toBeVisible();
  await expect(page.getByRole("cell", { name: "gateway-1" })).toBeHidden();
  await page.getByRole("button", { name: "runner-1" }).click();
  await expect(page.getByRole("complementary", { name: "Node runner-1" })).toContainText("Goroutines");
  await accessible(page);
  await page.getByRole("link", { name: "Load of the last hour, procedures and settings" }).click();
  await expect(page.getByRole("region", { name: "Settings in use" })).toContainText("body_timeout");
  await expect(page.getByRole("region", { name: "Taking it out of service" })).toContainText("It finishes the workflow instances in flight and starts none");
  await expect(page.getByRole("region", { name: "Load of runner-1" }).getByRole("region", { name: "Lag" })).toBeVisible();
  await page.goto(url("/fleet/node?node=gateway-1"));
  // What draining it means is shown before anything is done, and how: its process is stopped where it runs.
  await page.getByRole("button", { name: "Drain…" }).click();
  const drain = page.getByRole("dialog", { name: "Drain gateway-1" });
  await expect(drain).toContainText("finishes the calls in flight within shutdown_timeout");
  await expect(drain).toContainText("No other node of its kind is ready");
  await expect(drain.getByRole("row", { name: /^systemd/ })).toContainText("systemctl stop headgate@gateway");
  await look(page);
  await page.keyboard.press("Escape");
  await expect(page.getByRole("button", { name: "Drain…" })).toBeFocused();
  // A gateway announces its procedures every 15 seconds.
  await expect(page.getByRole("region", { name: "Procedures with the most calls" }).getByRole("cell", { name: /FleetService\/GetFleet$/ })).toBeVisible({ timeout: 20_000 });
  await look(page);
});

test("Lists of times show them whole at 1280 pixels", async ({ page }) => {
  await signIn(page, "/workflows?tenant=acme");
  for (const [path, list] of [["/workflows", "Workflow instances"], ["/audit", "Audit records"], ["/views?view=wallets", "Rows of wallets"]] as const) {
    await go(page, path);
    const region = page.getByRole("region", { name: list });
    const time = region.locator("tbody time").last();
    await expect(time).toBeVisible();
    const [box, frame] = [await time.locator("xpath=ancestor::td").boundingBox(), await region.boundingBox()];
    expect((box?.x ?? 0) + (box?.width ?? 0), list).toBeLessThanOrEqual((frame?.x ?? 0) + (frame?.width ?? 0));
    expect(await time.locator("xpath=ancestor::td").evaluate((cell) => cell.scrollWidth <= cell.clientWidth), list).toBe(true);
  }
});

test("Views: filtered, ordered, live, exported, and copied as curl", async ({ page, request }) => {
  await signIn(page, "/views?tenant=acme&view=wallets");
  const filter = page.getByLabel("Filter (AIP-160)");
  await page.getByRole("button", { name: "Condition", exact: true }).click();
  await page.getByLabel("Column of condition 1").selectOption("balance");
  await page.getByLabel("Comparison of condition 1").selectOption(">");
  await page.getByLabel("Value of condition 1").fill("800");
  await expect(filter).toHaveValue("balance > 800");
  await page.getByLabel("Order").fill("balance desc");
  await page.getByRole("button", { name: "Run" }).click();
  const rows = page.getByRole("region", { name: "Rows of wallets" }).getByRole("row");
  await expect(rows).toHaveCount(3);
  await expect(rows.nth(1)).toContainText("1250");
  await look(page);
  await filter.fill("balance > 800 OR owner = bob");
  await expect(page.getByText("The filter is more than conditions")).toBeVisible();
  await filter.fill('owner = "b*"');
  await expect(page.getByLabel("Comparison of condition 1")).toHaveValue("begins");
  await page.getByRole("button", { name: "Copy as curl" }).click();
  expect(await page.evaluate(() => navigator.clipboard.readText())).toContain(`{"query":{"filter":"balance > 800","orderBy":"balance desc"}}`);
  await page.getByRole("button", { name: "Export Rows of wallets" }).click();
  const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("menuitem", { name: "2 rows as CSV" }).click()]);
  expect(file.suggestedFilename()).toBe("rows-of-wallets.csv");
  await page.getByLabel("Live").check();
  await expect(page.getByText("live", { exact: true })).toBeVisible();
  const res = await request.post(`${gateway()}/v1/commands/wallet/live/open`, { headers: { authorization: `Bearer ${application()}` }, data: { payload: { owner: "liv" } } });
  expect(res.ok()).toBe(true);
  const deposit = await request.post(`${gateway()}/v1/commands/wallet/live/deposit`, { headers: { authorization: `Bearer ${application()}` }, data: { payload: { amount: 5000 } } });
  expect(deposit.ok()).toBe(true);
  // What changes while it is followed is highlighted.
  await expect(page.getByRole("cell", { name: "5000" })).toHaveClass(/flash/);
});

test("Commands: a form from the schema, tried without effect, then submitted", async ({ page }) => {
  await signIn(page, "/commands?tenant=acme&type=wallet&command=deposit&id=cyd");
  await page.getByLabel("amount").fill("12");
  await page.getByRole("button", { name: "Dry run" }).click();
  await expect(page.getByText("dry run: nothing was written")).toBeVisible();
  await page.getByRole("button", { name: "Save as template" }).click();
  await page.keyboard.type("twelve");
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Submit" }).click();
  const answer = page.getByRole("region", { name: "Answer" });
  await expect(answer.getByText("done", { exact: true })).toBeVisible();
  const timeline = (await answer.getByRole("link", { name: "Timeline" }).getAttribute("href")) ?? "";
  // The history and the templates of this principal fill the form, after a reload too.
  const past = page.getByRole("region", { name: "History" });
  await expect(past.getByRole("listitem")).toHaveCount(1);
  await expect(past.getByRole("listitem")).toContainText("deposit wallet/cyd amount 12");
  await look(page);
  await page.goto(url("/commands?tenant=acme"));
  await page.getByRole("region", { name: "Templates" }).getByRole("button", { name: /^twelve/ }).click();
  await expect(page.getByLabel("amount")).toHaveValue("12");
  await expect(page.getByLabel("wallet id")).toHaveValue("cyd");
  await past.getByRole("button", { name: "Clear" }).click();
  await expect(past).toHaveCount(0);
  // What the command has caused is found by the correlation id that the console gave it.
  await page.goto(new URL(timeline, url("/")).href);
  await expect(page.getByRole("list", { name: "Spans" }).getByRole("listitem").filter({ hasText: "command deposit" })).toBeVisible();
});

test("Workflows: counts by state, an instance with its steps in time, no dead letters", async ({ page }) => {
  await signIn(page, "/workflows?tenant=acme");
  await expect(page.getByRole("button", { name: /^compensated [1-9]/ })).toBeVisible();
  await page.getByRole("button", { name: "transfer/bad" }).click();
  const instance = page.getByRole("complementary", { name: "Instance transfer/bad" });
  const steps = instance.getByRole("list", { name: "Steps of the instance" }).getByRole("listitem");
  await expect(steps.filter({ hasText: "undo debit" })).toHaveAttribute("data-kind", "done");
  await expect(steps.filter({ hasText: /^credit/ })).toHaveAttribute("data-kind", "refused");
  await expect(instance.getByText("The steps before it are undone.")).toBeVisible();
  // Refusals are shown before the click: the instance has ended.
  await expect(instance.getByRole("button", { name: "Retry now…" })).toBeDisabled();
  await expect(instance.getByTitle("the instance has ended").first()).toBeVisible();
  await look(page);
  await page.getByRole("button", { name: "Close the detail" }).click();
  // Of all tenants: a row leads to its tenant, and the list stays.
  await page.getByRole("combobox", { name: "Tenant", exact: true }).selectOption("globex");
  await page.getByRole("combobox", { name: "Instances of" }).selectOption("all tenants");
  const list = page.getByRole("region", { name: "Workflow instances" });
  await expect(list.getByRole("row").filter({ hasText: "transfer/bad" })).toContainText("acme");
  await expect(page.getByText(/^Of \d+ instances of all tenants,/)).toBeVisible();
  await look(page);
  await page.getByRole("button", { name: "transfer/bad" }).click();
  await expect(instance.getByText("The steps before it are undone.")).toBeVisible();
  await expect(page).toHaveURL(({ searchParams }) => searchParams.get("tenant") === "acme" && searchParams.get("of") === "*");
  await go(page, "/dead-letters?tenant=acme");
  await expect(page.getByText("acme has no dead letters.")).toBeVisible();
  await accessible(page);
});

test("Audit: who was denied what", async ({ page }) => {
  await signIn(page, "/audit?decision=denied");
  await expect(page.getByRole("cell", { name: "acme-app" }).first()).toBeVisible();
  await expect(page.getByRole("cell", { name: "Drain" }).first()).toBeVisible();
  await look(page);
});

test("API: an operation is tried and shown as code; a call that changes something is confirmed", async ({ page }) => {
  await signIn(page, "/api?q=control/fleet");
  await page.getByRole("button", { name: "GET /v1/control/fleet", exact: true }).click();
  await page.getByRole("button", { name: "Send" }).click();
  await expect(page.getByText("200", { exact: true })).toBeVisible();
  await page.getByRole("button", { name: "Python" }).click();
  await expect(page.getByRole("region", { name: "Code", exact: true })).toContainText("urllib.request");
  await look(page);
  await go(page, `/api?tenant=acme&operation=${encodeURIComponent("POST /v1/control/tenants")}`);
  await expect(page.getByText("It changes something")).toBeVisible();
  await expect(page.getByText("Its name, a DNS label (RFC 1123) in lower case.")).toBeVisible();
  await page.getByLabel("Body (JSON)").fill(`{"tenantId":"from-the-explorer"}`);
  await page.getByRole("button", { name: "Send…" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Send" }).click();
  await expect(page.getByText("200", { exact: true })).toBeVisible();
});

test("What the principal may not do is locked, with the reason", async ({ page }) => {
  await signIn(page, "/", application());
  // The overview of a principal of one tenant is that tenant's.
  await expect(page).toHaveURL(/\/ui\/overview/);
  await expect(page.getByRole("region", { name: "Throughput" })).toBeVisible();
  await expect(page.getByRole("region", { name: "Top tenants" })).toHaveCount(0);
  await accessible(page);
  await page.getByRole("link", { name: "Workflows" }).click();
  await expect(page.getByRole("navigation", { name: "Screens", exact: true }).getByTitle("Fleet: you lack the right fleet.read")).toBeVisible();
  await page.getByRole("button", { name: "transfer/bad" }).click();
  await expect(page.getByTitle("you lack the right runner.admin").first()).toBeVisible();
  await expect(page.getByRole("button", { name: "Retry now…" })).toBeDisabled();
  await expect(page.getByRole("combobox", { name: "Instances of" })).toHaveCount(0);
  await accessible(page);
});

test("Ctrl K finds screens, tenants, instances and actions; ? lists the shortcuts", async ({ page }) => {
  await signIn(page, "/fleet?tenant=acme");
  await expect(page.getByRole("heading", { name: "Fleet" })).toBeVisible();
  await page.keyboard.press("Control+k");
  const search = page.getByRole("combobox", { name: "Search or jump to" });
  await search.fill("an-order");
  await expect(page.getByRole("option", { name: "Timeline of an-order at acme" })).toBeVisible();
  await search.fill("transfer/bad");
  await page.getByRole("option", { name: "transfer/bad", exact: true }).first().click();
  await expect(page.getByRole("complementary", { name: "Instance transfer/bad" })).toBeVisible();
  await page.keyboard.press("Control+k");
  await search.fill("ad");
  await expect(page.getByRole("option", { name: /^wallet\/ada since / })).toBeVisible();
  // Results that come late stand where their group does.
  const order = ["Screens", "Switch to a tenant", "Nodes", "Runners", "Views of acme", "Commands", "Workflow instances of acme", "Aggregates of acme", "Actions", "Ids"];
  const headings = await page.locator("[cmdk-group-heading]").allTextContents();
  expect(headings).toContain("Aggregates of acme");
  expect(headings).toEqual(order.filter((heading) => headings.includes(heading)));
  await page.getByRole("option", { name: /^wallet\/ada since / }).click();
  await expect(page.getByRole("heading", { name: "wallet/ada" })).toBeVisible();
  await page.keyboard.press("Control+k");
  await search.fill("globex");
  await page.keyboard.press("Enter");
  await expect(page).toHaveURL(/tenant=globex/);
  await page.keyboard.press("Control+k");
  await accessible(page);
  await page.keyboard.press("Escape");
  await page.keyboard.press("?");
  await expect(page.getByRole("dialog", { name: "Keyboard shortcuts" })).toBeVisible();
});

test("On a phone nothing is wider than the screen, in both themes", async ({ page }) => {
  await page.setViewportSize({ width: 390, height: 844 });
  await signIn(page, "/fleet");
  await expect(page.getByRole("cell", { name: "gateway-1" })).toBeVisible();
  for (const [path, title] of [
    ["/overview", "Overview"],
    ["/fleet/node?node=runner-1", "runner-1"],
    ["/workflows", "Workflows"],
    ["/dead-letters", "Dead letters"],
    ["/tenants", "Tenants"],
    ["/audit", "Audit"],
    ["/timeline", "Timeline"],
    ["/timeline?id=the-transfer", "Timeline"],
    ["/access", "Access"],
    ["/views?view=wallets", "Views"],
    ["/aggregates?type=wallet&id=ada", "wallet/ada"],
    ["/events", "Events"],
    ["/tenants/detail?tenant=acme", "acme"],
    ["/models", "Models"],
    ["/moves", "Moves"],
    ["/credentials", "API keys and tokens"],
    ["/credentials?list=revocations", "API keys and tokens"],
    ["/fleet", "Fleet"],
  ] as const) {
    await go(page, path);
    await expect(page.getByRole("heading", { level: 1, name: title, exact: true })).toBeVisible();
    await expect(page.locator("main .skeleton")).toHaveCount(0);
    expect(await page.evaluate(() => document.documentElement.scrollWidth), path).toBeLessThanOrEqual(390);
  }
  await expect(page.getByRole("cell", { name: "gateway-1" })).toBeVisible();
  await page.getByRole("button", { name: /^(Light|Dark) theme$/ }).click();
  await look(page, true);
  await page.getByRole("button", { name: "More" }).click();
  await page.getByRole("dialog").getByRole("link", { name: "Audit" }).click();
  await expect(page.getByRole("heading", { name: "Audit" })).toBeVisible();
});

test("Offline, parts that are not loaded yet wait, what is shown is greyed, and both continue by themselves", async ({ page, context }) => {
  // The browser becomes idle, and loads what the first view does without (parts/later.ts), once it is offline.
  await page.addInitScript(() => {
    const waiting: IdleRequestCallback[] = [];
    window.requestIdleCallback = (call) => waiting.push(call);
    addEventListener("test:idle", () => waiting.splice(0).forEach((call) => call({ didTimeout: false, timeRemaining: () => 1 })));
  });
  await signIn(page, "/fleet");
  await expect(page.getByText("all answered", { exact: true })).toBeVisible();
  await context.setOffline(true);
  const failed = page.waitForEvent("requestfailed", (request) => request.url().includes("/account-"));
  await page.evaluate(() => dispatchEvent(new Event("test:idle")));
  await failed;
  await page.getByRole("link", { name: "Moves" }).click();
  await expect(page.getByText(/The platform has not answered for \d+ s, and this browser is offline/)).toBeVisible();
  await expect(page.locator(".stale").first()).toBeVisible();
  await accessible(page);
  await context.setOffline(false);
  await expect(page.getByRole("heading", { name: "Moves" })).toBeVisible();
  await expect(page.getByRole("button", { name: /^Account/ })).toBeVisible();
  await expect(page.getByText(/has not answered/)).toBeHidden();
});

test("The first load is small, and the overview is there within a second", async ({ page }) => {
  const sizes: Promise<number>[] = [];
  // What the first view does without is loaded once the browser is idle (parts/later.ts); here it never is.
  await page.addInitScript(() => { window.requestIdleCallback = () => 0; });
  page.on("requestfinished", (req) => {
    if (req.url().endsWith(".js")) sizes.push(req.sizes().then((size) => size.responseBodySize));
  });
  await signIn(page, "/");
  await expect(page.getByRole("region", { name: "Top tenants" })).toBeVisible();
  const bytes = (await Promise.all([...sizes])).reduce((sum, size) => sum + size, 0);
  const took = await page.evaluate(() => performance.now());
  test.info().annotations.push({ type: "measured", description: `${bytes} bytes of JavaScript, the overview is there after ${Math.round(took)} ms` });
  expect(bytes).toBeGreaterThan(50 * 1024);
  expect(bytes).toBeLessThan(250 * 1024);
  console.log(`  first load: ${bytes} bytes of JavaScript as sent, the overview is there after ${Math.round(took)} ms`);
});

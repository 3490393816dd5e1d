import { readFileSync } from "node:fs";
import { expect, test } from "@playwright/test";
import { accessible, begin, clicks, go, issue, look, operator, post, signIn, url } from "./console";

// What operators do, each with the clicks that it takes from the first screen, or from the one that it names: a job that
// takes more has become harder.

test("job 01: why a transfer failed, from a customer's correlation id: 2 clicks", async ({ page }) => {
  const count = await begin(page);
  await page.getByRole("button", { name: "Search or jump to" }).click();
  await page.getByRole("combobox", { name: "Search or jump to" }).fill("the-failure");
  await page.getByRole("option", { name: "Timeline of the-failure at acme" }).click();
  const failures = page.getByRole("region", { name: "Failures" });
  await expect(failures).toContainText("command deposit on wallet/missing ended as failed_precondition: the wallet is not open");
  expect(await count()).toBe(2);
  await expect(failures).toContainText("It made fail: call Submit at gateway-1, step transfer credit at runner-1");
  // Nested by causation: the step is below the event that caused it, and its call below it.
  const spans = page.getByRole("list", { name: "Spans" }).getByRole("listitem");
  const depth = async (text: string | RegExp) => Number(await spans.filter({ hasText: text }).first().getAttribute("data-depth"));
  expect(await depth("transfer credit")).toBe((await depth("requested")) + 1);
  expect(await depth("deposit")).toBe((await depth("transfer credit")) + 2);
  await page.getByRole("button", { name: "What command request has caused" }).click();
  await expect(spans.filter({ hasText: "transfer credit" })).toBeHidden();
  await page.getByRole("button", { name: "What command request has caused" }).click();
  await look(page);
  // Without an id: the failed timelines are listed, with where they failed.
  await page.goto(url("/timeline?tenant=acme&failed=yes"));
  const failed = page.getByRole("region", { name: "Recent timelines" }).getByRole("row").filter({ hasText: "the-failure" });
  await expect(failed).toContainText("request on transfer/bad");
  await expect(failed).toContainText("failed_precondition");
  await accessible(page);
  await failed.getByRole("button").click();
  await failures.getByRole("link", { name: "Workflow instance" }).click();
  await expect(page.getByRole("complementary", { name: "Instance transfer/bad" })).toBeVisible();
});

test("job 03: which tenant is noisy: no click, 1 to its page; job 09: lag and throughput of the last hour: no click", async ({ page }) => {
  const count = await begin(page);
  // A gateway announces its counts every 15 seconds.
  const rejected = page.getByRole("list", { name: "Most rejected by limits (429)" });
  await expect(rejected.getByRole("listitem").first()).toContainText("hooli", { timeout: 20_000 });
  await expect(page.getByRole("list", { name: "Most calls" }).getByRole("link", { name: "acme" })).toBeVisible();
  await expect(page.getByRole("heading", { name: "Greatest lag now (events)" })).toBeVisible();
  for (const [chart, line] of [["Throughput", /calls [\d.,]+commands [\d.,]+queries [\d.,]+/], ["Latency", /p99 [\d.,]+p95 [\d.,]+p50 [\d.,]+/], ["Lag", /not yet processed \d+/], ["Failed and rejected calls", /failed [\d.,]+rejected by limits [\d.,]+/]] as const) {
    const region = page.getByRole("region", { name: chart, exact: true });
    await expect(region.locator("canvas")).toBeVisible();
    await expect(region.getByRole("list", { name: `Last values of ${chart}` })).toHaveText(line);
  }
  // The plots of a row have one height, whether or not the values beside a title wrap.
  const heights = await Promise.all(["Throughput", "Latency"].map(async (chart) => (await page.getByRole("region", { name: chart, exact: true }).locator("canvas").boundingBox())?.y));
  expect(heights[0]).toBe(heights[1]);
  expect(await count()).toBe(0);
  const tiles = page.locator("dl[aria-label='Numbers of the platform'] > div");
  await expect(tiles).toHaveCount(8);
  await expect(tiles.filter({ hasText: "Availability" })).toContainText(/[\d.,]+ %/);
  await expect(tiles.filter({ hasText: "Failed views" })).toContainText(/Failed views\d/);
  const changes = page.getByRole("region", { name: "What changed lately" });
  await expect(changes.getByText("operator set call limits of hooli")).toBeVisible();
  await look(page);
  const theme = await page.locator("html").getAttribute("data-theme");
  await page.getByRole("button", { name: /^(Light|Dark) theme$/ }).click();
  await expect(page.locator("html")).toHaveAttribute("data-theme", theme === "dark" ? "light" : "dark");
  // A part of the time is drawn in a chart; all charts show it, the address holds it, Escape gives it up.
  const throughput = page.getByRole("region", { name: "Throughput", exact: true }).locator("canvas");
  const box = await throughput.boundingBox();
  if (!box) throw new Error("the chart has no place");
  await page.mouse.move(box.x + box.width * 0.5, box.y + 40);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.9, box.y + 50, { steps: 4 });
  await page.mouse.up();
  await expect(page).toHaveURL(/from=2\d{3}-.*&to=2\d{3}-/);
  await expect(page.getByRole("button", { name: /^Show the whole time again/ })).toBeVisible();
  await page.keyboard.press("Escape");
  await expect(page).not.toHaveURL(/from=/);
  // The same by the keyboard.
  await page.getByRole("slider", { name: "Latency: moment" }).focus();
  for (const key of ["ArrowLeft", "Shift+PageUp", "Enter"]) await page.keyboard.press(key);
  await expect(page).toHaveURL(/from=/);
  await accessible(page);
  await page.goBack();
  await expect(page).not.toHaveURL(/from=/);
  await page.getByRole("combobox", { name: "Time", exact: true }).selectOption("day");
  await expect(page).toHaveURL(/range=day/);
  await changes.getByRole("link", { name: "Audit record: operator set call limits of hooli" }).click();
  await expect(page.getByRole("cell", { name: "SetQuota" })).toBeVisible();
  const again = await begin(page);
  await rejected.getByRole("link", { name: "hooli" }).click();
  expect(await again()).toBe(1);
  await expect(page.getByRole("region", { name: "Load of hooli" }).getByRole("list", { name: "Last values of Failed and rejected calls" })).toHaveText(/rejected by limits [\d.,]+/);
});

test("job 04: who drained which node: 1 click", async ({ page }) => {
  expect((await post("/admin/runner/resume", { node: "runner-1" }, operator())).ok).toBe(true);
  const count = await begin(page);
  await page.getByRole("navigation", { name: "Screens", exact: true }).getByRole("link", { name: "Audit" }).click();
  await page.keyboard.press("/");
  await page.keyboard.type("RunnerAdmin/Resume");
  const row = page.getByRole("region", { name: "Audit records" }).getByRole("row").filter({ hasText: "Resume" }).first();
  await expect(row).toContainText("operator");
  await expect(row).toContainText("runner-1");
  expect(await count()).toBe(1);
});

test("job 06: move a tenant: 3 clicks", async ({ page }) => {
  await signIn(page, "/moves?tenant=globex&kind=projection");
  const plan = page.getByRole("button", { name: "Plan" });
  await expect(plan).toBeEnabled();
  const count = await clicks(page);
  await plan.click();
  await expect(page.getByText("globex moves from all nodes to projection-1")).toBeVisible();
  await page.getByRole("button", { name: "Start…" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Start" }).click();
  await expect(page.getByRole("complementary", { name: "Move of globex" }).getByText("done").first()).toBeVisible();
  expect(await count()).toBe(3);
  await look(page);
  await page.getByRole("button", { name: "Close the detail" }).click();
  await page.getByRole("button", { name: "Plan" }).click();
  await expect(page.getByText("Obstacle: tenant globex is already on node projection-1")).toBeVisible();
  // Released again: all nodes serve it.
  await page.getByRole("button", { name: "Release placement…" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Release" }).click();
  await expect(page.getByText("No tenant is placed.")).toBeVisible();
});

test("A move that waits is aborted: 2 clicks", async ({ page }) => {
  // On one machine a move ends within seconds: the answers about one that waits stand in for the platform's.
  const move = { id: "0190-waits", tenantId: "globex", kind: "projection", source: "projection-1", target: "projection-2", step: "MOVE_STEP_WARMING", waitingFor: "node projection-2 acquires the tenant", by: "operator", started: new Date().toISOString(), history: [{ step: "MOVE_STEP_PLANNED", time: new Date().toISOString(), node: "control-1" }, { step: "MOVE_STEP_WARMING", time: new Date().toISOString(), node: "control-1" }] };
  const envelope = (flags: number, text: string) => {
    const head = Buffer.alloc(5, flags);
    head.writeUInt32BE(Buffer.byteLength(text), 1);
    return Buffer.concat([head, Buffer.from(text)]);
  };
  await page.route(/PlacementService\/ListMoves$/, (route) => route.fulfill({ json: { moves: [move] } }));
  await page.route(/PlacementService\/WatchMove$/, (route) => route.fulfill({ contentType: "application/connect+json", body: Buffer.concat([envelope(0, JSON.stringify({ move })), envelope(2, "{}")]) }));
  const aborted = new Promise<unknown>((resolve) => {
    void page.route(/PlacementService\/AbortMove$/, (route) => {
      resolve(route.request().postDataJSON());
      return route.fulfill({ json: { move: { ...move, step: "MOVE_STEP_ABORTING" } } });
    });
  });
  await signIn(page, "/moves?tenant=globex&move=0190-waits");
  const detail = page.getByRole("complementary", { name: "Move of globex" });
  await expect(detail.getByText("Waiting until node projection-2 acquires the tenant.")).toBeVisible();
  await expect(detail.getByRole("listitem").filter({ hasText: "warming" })).toHaveAttribute("aria-current", "step");
  const count = await clicks(page);
  await detail.getByRole("button", { name: "Abort…" }).click();
  const dialog = page.getByRole("dialog", { name: "Abort" });
  await expect(dialog).toContainText("globex stays where it was");
  await accessible(page);
  await dialog.getByRole("button", { name: "Abort" }).click();
  expect(await aborted).toEqual({ id: "0190-waits" });
  await expect(page.getByText("The move of globex is being aborted.").first()).toBeVisible();
  expect(await count()).toBe(2);
});

test("job 10: who can call this: 1 click", async ({ page }) => {
  await signIn(page, "/access?tenant=acme");
  const method = page.getByLabel("Method", { exact: true });
  await method.fill("/projection.gateway.v1.QueryService/Query");
  const count = await clicks(page);
  await page.getByRole("button", { name: "Decide" }).click();
  const decision = page.getByRole("region", { name: "Who can call this?" }).getByRole("status");
  await expect(decision).toContainText("allowed");
  expect(await count()).toBe(1);
  await page.getByLabel("The caller's tenants").fill("globex");
  await page.getByRole("button", { name: "Decide" }).click();
  await expect(page.getByText("the credential is not for tenant acme")).toBeVisible();
  await page.getByRole("button", { name: "Use my credential" }).click();
  await page.getByRole("button", { name: "Decide" }).click();
  await expect(decision).toContainText("allowed");
  const methods = page.getByRole("region", { name: "Methods" });
  await page.getByRole("group", { name: "Rights" }).getByRole("button", { name: "workflow.read" }).click();
  await expect(methods.getByRole("cell", { name: "workflow.read" }).first()).toBeVisible();
  await expect(methods.getByRole("cell", { name: "fleet.admin" })).toHaveCount(0);
  await look(page);
  // Of a principal by its name: an API key.
  const issued = await post("/v1/control/api-keys", { displayName: "shop", tenants: ["globex"], rights: ["query.read"], lifetime: "3600s" }, issue("keys", ["*"], ["key.admin", "credential.read", "query.read"]));
  expect(await issued.text()).toContain("apiKey");
  await page.goto(url("/access?tenant=globex"));
  await method.fill("/projection.gateway.v1.QueryService/Query");
  await page.getByRole("combobox", { name: "The caller", exact: true }).selectOption("shop");
  await expect(page.getByLabel("The caller's tenants")).toHaveValue("globex");
  await page.getByRole("button", { name: "Decide" }).click();
  await expect(decision).toContainText("allowed");
  await expect(methods.getByRole("columnheader", { name: "shop" })).toBeVisible();
  await expect(methods.getByTitle("shop lacks the right fleet.admin").first()).toBeVisible();
});

test("job 11: suspend a tenant, 3 clicks, and resume it, 1", async ({ page }) => {
  await signIn(page, "/tenants");
  await page.getByLabel("New tenant").fill("initech");
  await page.getByRole("button", { name: "Create" }).click();
  await expect(page.getByRole("button", { name: "initech" })).toBeVisible();
  await accessible(page);
  const count = await clicks(page);
  await page.getByRole("button", { name: "initech" }).click();
  await page.getByRole("button", { name: "Suspend…" }).click();
  const dialog = page.getByRole("dialog", { name: "Suspend" });
  await expect(dialog.getByRole("button", { name: "Suspend" })).toBeDisabled();
  await page.keyboard.type("unpaid");
  await dialog.getByRole("button", { name: "Suspend" }).click();
  await expect(page.getByText("Its calls are refused: unpaid.")).toBeVisible();
  expect(await count()).toBe(3);
  await page.getByRole("button", { name: "Resume", exact: true }).click();
  await expect(page.getByText("Its calls are refused")).toBeHidden();
  expect(await count()).toBe(4);
});

test("job 12: set quotas and see them used: 2 clicks", async ({ page }) => {
  await signIn(page, "/tenants/detail?tenant=acme");
  const limits = page.getByRole("form", { name: "Limits of what is stored" });
  const events = limits.getByLabel("Events");
  const count = await clicks(page);
  await events.click();
  await events.fill("1000");
  await limits.getByRole("button", { name: "Save storage limits" }).click();
  await expect(page.getByRole("meter", { name: "Events" })).toHaveAttribute("aria-valuetext", /^\d+ of 1,000$/);
  expect(await count()).toBe(2);
  const calls = page.getByRole("form", { name: "Limits at each gateway" });
  await calls.getByLabel("Calls per second").fill("5000");
  await calls.getByRole("button", { name: "Save limits" }).click();
  await expect(page.getByText("The limits of acme are saved.").first()).toBeVisible();
  await expect(page.getByRole("region", { name: "Placement" }).getByRole("link", { name: "projection-1" })).toBeVisible();
  await expect(page.getByRole("region", { name: "Views" }).getByText("current").first()).toBeVisible();
  await look(page);
});

test("job 13: export audit records: 2 clicks", async ({ page }) => {
  await signIn(page, "/audit?decision=denied");
  const region = page.getByRole("region", { name: "Audit records" });
  await expect(region.getByRole("row").nth(1)).toBeVisible();
  const count = await clicks(page);
  await page.getByRole("button", { name: "Export Audit records" }).click();
  const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("menuitem", { name: /as JSON/ }).click()]);
  expect(await count()).toBe(2);
  const records = JSON.parse(readFileSync(await file.path(), "utf8")) as Record<string, string>[];
  expect(records.length).toBeGreaterThan(0);
  for (const name of ["Time", "Decision", "Principal", "Procedure", "Client", "Right", "Correlation id", "Trace id", "Request id"]) expect(records[0]).toHaveProperty(name);
  expect(records[0]?.["Decision"]).toBe("denied");
  // A record of a change has its request and what was changed.
  expect((await post("/v1/control/tenants/globex/quota", { quota: { rate: 4321 } }, operator())).ok).toBe(true);
  await go(page, "/audit?changes=yes&procedure=SetQuota");
  const changed = page.getByRole("region", { name: "Audit records" }).getByRole("row").filter({ hasText: "globex" }).first();
  await changed.getByRole("button").first().click();
  const record = page.getByRole("complementary", { name: "Audit record" });
  await expect(record.getByRole("region", { name: "Changes" })).toContainText("4321");
  await expect(record.getByRole("region", { name: "Request" })).toContainText("globex");
  await look(page);
  await go(page, "/audit?decision=denied");
  // The filters are stored under a name, and used again.
  await page.getByRole("button", { name: "Save these filters" }).click();
  await page.keyboard.type("denials");
  await page.keyboard.press("Enter");
  await page.getByLabel("Decision").selectOption("");
  await page.getByLabel("Time").selectOption("1h");
  await page.getByRole("button", { name: "denials", exact: true }).click();
  await expect(page).toHaveURL(/decision=denied/);
  await expect(page).not.toHaveURL(/range=/);
  await go(page, "/fleet?open=gateway-9");
  await expect(page.getByRole("complementary", { name: "Node gateway-9" })).toContainText("not in the fleet");
  await accessible(page);
});

test("job 14: an aggregate's events from a row: 1 click; its state at a version, and what changed between two", async ({ page }) => {
  for (const amount of [1, 2]) expect((await post("/v1/commands/wallet/hal/" + (amount === 1 ? "open" : "deposit"), { payload: amount === 1 ? { owner: "hal" } : { amount: 40 } })).ok).toBe(true);
  expect((await post("/v1/commands/wallet/hal/deposit", { payload: { amount: 2 } }, undefined, { "x-correlation-id": "hal-deposit" })).ok).toBe(true);
  await signIn(page, `/views?tenant=acme&view=wallets&filter=${encodeURIComponent('owner = "hal"')}`);
  const link = page.getByRole("link", { name: "History of wallet/hal" });
  await expect(link).toBeVisible();
  const count = await clicks(page);
  await link.click();
  const history = page.getByRole("region", { name: "History" });
  await expect(history.getByRole("listitem")).toHaveCount(3);
  expect(await count()).toBe(1);
  const changed = page.getByRole("table", { name: "What changed" });
  await expect(changed.getByRole("row", { name: /balance/ })).toContainText("4042");
  await look(page);
  // Between the first and the last version.
  await page.getByLabel("Compared with version").fill("1");
  await expect(changed.getByRole("row", { name: /balance/ })).toContainText("042");
  await history.getByRole("button", { name: /opened/ }).click();
  await page.getByRole("tab", { name: "State" }).click();
  await expect(page.getByRole("region", { name: "State at version 1" })).toContainText('"balance": 0');
  await page.getByRole("button", { name: "Next" }).click();
  await page.getByRole("button", { name: "Next" }).click();
  await page.getByRole("tab", { name: "Event" }).click();
  await expect(page.getByRole("region", { name: "Data of the event" })).toContainText('"amount": 2');
  await accessible(page);
  await page.getByRole("link", { name: "Timeline" }).last().click();
  await expect(page).toHaveURL(/timeline.*id=hal-deposit/);
  // The rows that its events have made.
  await page.goBack();
  await page.getByRole("link", { name: "Rows of wallets" }).click();
  await expect(page.getByRole("region", { name: "Rows of wallets" }).getByRole("row")).toHaveCount(2);
});

test("Aggregates are searched by the beginning of the id; events are read, and followed as they are appended", async ({ page }) => {
  await signIn(page, "/aggregates?tenant=acme&type=wallet");
  const list = page.getByRole("region", { name: "Aggregates", exact: true });
  await expect(list.getByRole("button", { name: "bob" })).toBeVisible();
  await accessible(page);
  let searches = 0;
  page.on("request", (request) => {
    if (request.url().endsWith("/FindAggregates")) searches++;
  });
  await page.getByLabel("Id begins with").pressSequentially("cyd");
  await expect(list.getByRole("button", { name: "bob" })).toBeHidden();
  await expect(list.getByRole("button", { name: "cyd" })).toBeVisible();
  await expect(page.getByText("1 are loaded, by id: these are all.")).toBeVisible();
  // The pause in typing is what asks, not a key.
  expect(searches).toBe(1);
  await go(page, "/aggregates?tenant=acme&id=ada");
  await expect(page.getByRole("heading", { name: "wallet/ada" })).toBeVisible();

  await go(page, "/events?tenant=acme&type=wallet&events=opened");
  const events = page.getByRole("region", { name: "Events" });
  await expect(events.getByRole("cell", { name: "ada" }).first()).toBeVisible();
  await expect(events.getByRole("cell", { name: "wallet.deposited" })).toHaveCount(0);
  await page.getByLabel("Live").check();
  await expect(page.getByText("live", { exact: true })).toBeVisible();
  expect((await post("/v1/commands/wallet/followed/open", { payload: { owner: "fay" } })).ok).toBe(true);
  await expect(events.getByRole("cell", { name: "followed" })).toBeVisible();
  await events.getByRole("button", { name: "wallet.opened" }).first().click();
  await expect(page.getByRole("complementary", { name: "Event" })).toContainText("wallet/followed, version 1");
  await look(page);
});

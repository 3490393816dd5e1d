import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { expect, test, type Page } from "@playwright/test";
import { application, gateway, operator, post, signIn } from "./console";

// The pictures of the docs, of a platform with data that are the same each time, and the layout of each:
// HEADGATE_E2E=pictures. They are stored with HEADGATE_PICTURES=FOLDER; without it, the layout is compared
// with the one that was stored.
test.describe.configure({ mode: "serial" });

const stored = join(import.meta.dirname, "../../../docs/pictures");
const folder = process.env["HEADGATE_PICTURES"] ?? "";

type Box = readonly [x: number, y: number, width: number, height: number];
type Layout = Record<string, Box>;
const layouts: Record<string, Layout> = {};
const before = JSON.parse(readFileSync(join(stored, "layout.json"), "utf8")) as Record<string, Layout>;

/** The boxes of the page's landmarks and titles. */
function boxes(page: Page): Promise<Layout> {
  return page.evaluate(() => {
    const out: Record<string, [number, number, number, number]> = {};
    for (const element of document.querySelectorAll("nav, header, main, aside, section[aria-label], [role='region'][aria-label], [role='dialog'], form[aria-label], h1, h2, th")) {
      const { x, y, width, height } = element.getBoundingClientRect();
      if (width === 0 || height === 0) continue;
      const name = element.getAttribute("aria-label") ?? (/^(H1|H2|TH)$/.test(element.tagName) ? element.textContent.trim() : "");
      // The order of two events at the same time differs from run to run.
      const key = `${element.tagName.toLowerCase()} ${name.replace(/^(Version \d+).*/, "$1")}`.trim();
      out[key] ??= [Math.round(x), Math.round(y + scrollY), Math.round(width), Math.round(height)];
    }
    return out;
  });
}

/** What a designer would send back: a page wider than the screen, texts that leave their button, badge or field, parts that overlap. */
function flaws(page: Page): Promise<string[]> {
  return page.evaluate(() => {
    const out: string[] = [];
    const named = (element: Element) => `${element.tagName.toLowerCase()} "${(element.getAttribute("aria-label") ?? element.textContent).trim().slice(0, 40)}"`;
    const isShown = (element: Element) => element.checkVisibility() && element.getBoundingClientRect().width > 1;
    if (document.documentElement.scrollWidth > innerWidth) out.push(`the page is ${document.documentElement.scrollWidth} px wide`);
    for (const element of document.querySelectorAll("button, a, h1, h2, h3, [role='status'] > span, dt, dd, label")) {
      const isCut = getComputedStyle(element).textOverflow === "ellipsis" || element.querySelector(".truncate, .sr-only, input, select, canvas, svg") !== null;
      if (isShown(element) && !isCut && element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0) out.push(`${named(element)} is wider than its box`);
    }
    for (const list of document.querySelectorAll("main, main section, main form, aside > div")) {
      const parts = [...list.children].filter((one) => isShown(one) && !/fixed|absolute|sticky/.test(getComputedStyle(one).position));
      for (const [n, one] of parts.entries()) {
        const a = one.getBoundingClientRect();
        for (const other of parts.slice(n + 1)) {
          const b = other.getBoundingClientRect();
          if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1) out.push(`${named(one)} and ${named(other)} overlap`);
        }
      }
    }
    return out;
  });
}

/** What has moved or changed its size by more than some pixels, is missing, or is new. */
function moved(from: Layout, to: Layout): string[] {
  const far = (a: number, b: number) => Math.abs(a - b) > Math.max(16, 0.05 * Math.max(a, b));
  return [...new Set([...Object.keys(from), ...Object.keys(to)])].flatMap((name) => {
    const [was, is] = [from[name], to[name]];
    if (!was) return [`${name} is new`];
    if (!is) return [`${name} is missing`];
    return was.some((value, n) => far(value, is[n] ?? 0)) ? [`${name} was at ${was.join(", ")}, and is at ${is.join(", ")}`] : [];
  });
}

/** Takes the picture of a page, and checks its layout. */
async function picture(page: Page, name: string): Promise<void> {
  await page.mouse.move(1, 1); // nothing is under the pointer
  await page.evaluate(() => document.fonts.ready);
  await expect(page.locator(".skeleton")).toHaveCount(0);
  expect.soft(await flaws(page), name).toEqual([]);
  const layout = await boxes(page);
  layouts[name] = layout;
  if (folder) await page.screenshot({ path: join(folder, `${name}.png`) });
  else expect.soft(moved(before[name] ?? {}, layout), name).toEqual([]);
}

test.afterAll(() => {
  if (folder) writeFileSync(join(folder, "layout.json"), `${JSON.stringify(layouts, null, 1).replaceAll(/\[\s+(-?\d+),\s+(-?\d+),\s+(-?\d+),\s+(-?\d+)\s+\]/g, "[$1, $2, $3, $4]")}\n`);
});

const customers = ["alice", "amir", "beatriz", "chen", "dmitri", "elena", "farah", "george", "hannah", "ivan", "jun", "katya", "liam", "maria"];

/** What the pages show, one after the other: the order of events is that of every other run. */
test.beforeAll(async () => {
  const ok = async (path: string, body: object, token = application(), headers: Record<string, string> = {}) => {
    const res = await post(path, body, token, headers);
    expect(res.ok, `${path}: ${res.status}`).toBe(true);
    return res;
  };
  for (const [n, name] of customers.entries()) {
    await ok(`/v1/commands/wallet/${name}/open`, { payload: { owner: name[0]?.toUpperCase() + name.slice(1) } }, application(), { "x-correlation-id": `sign-up-${name}` });
    await ok(`/v1/commands/wallet/${name}/deposit`, { payload: { amount: 20_000 + ((n * 7919) % 30_000), reference: "salary" } });
  }
  for (const [n, name] of customers.entries()) await ok(`/v1/commands/transfer/order-${1001 + n}/request`, { payload: { from: name, to: n % 5 === 3 ? "closed" : (customers[(n + 3) % customers.length] ?? ""), amount: 1_200 + n * 350 } }, application(), { "x-correlation-id": `order-${1001 + n}` });
  await ok("/v1/commands/wallet/alice/withdraw", { payload: { amount: 4_500, reference: "rent" } });
});

/** The last hour of a platform that has run for one: what was just started has measured nothing yet. */
async function hour(page: Page): Promise<void> {
  const points = (share: number) => {
    const now = Math.floor(Date.now() / 15_000) * 15_000;
    return Array.from({ length: 240 }, (_, n) => {
      const wave = 1 + 0.3 * Math.sin(n / 38) + 0.08 * Math.sin(n / 3) + 0.05 * Math.sin(n * 1.7);
      const burst = n > 150 && n < 172 ? 1 : 0;
      const calls = share * 420 * (wave + 0.35 * burst);
      return {
        end: new Date(now - (239 - n) * 15_000).toISOString(),
        callsPerSecond: calls,
        commandsPerSecond: calls * 0.31,
        queriesPerSecond: calls * 0.58,
        errorsPerSecond: 0,
        limitedPerSecond: burst * 38 * wave,
        availability: 1,
        p50Ms: 2.4 * wave,
        p95Ms: 9 * wave + 4 * burst,
        p99Ms: 21 * wave + 15 * burst,
        lag: String(Math.round(3 * wave + 90 * burst * Math.abs(Math.sin(n / 4)))),
        deadLetters: "0",
        failedViews: "0",
      };
    });
  };
  await page.route(/MetricsService\/(QuerySeries|QueryTenantSeries)$/, (route) => route.fulfill({ json: { seconds: 15, points: points(/Tenant/.test(route.request().url()) || /tenantId/.test(route.request().postData() ?? "") ? 0.4 : 1) } }));
  const load = (tenantId: string, calls: number, limited: number) => ({ tenantId, calls: String(calls), limited: String(limited), errors: "0", commands: String(Math.round(calls * 0.31)), queries: String(Math.round(calls * 0.58)), p99Ms: 24 });
  await page.route(/MetricsService\/ListTopTenants$/, (route) => {
    const { order = "" } = JSON.parse(route.request().postData() ?? "{}") as { order?: string };
    const tenants = [load("acme", 168_240, 0), load("hooli", 121_903, 12_540), load("globex", 64_377, 0)];
    return route.fulfill({ json: { minutes: 15, tenants: order === "TENANT_ORDER_ERRORS" ? [] : order === "TENANT_ORDER_LIMITED" ? tenants.filter((one) => one.limited !== "0") : tenants } });
  });
}

const region = (page: Page, name: string) => page.getByRole("region", { name, exact: true });

test("Overview, in both themes", async ({ page }) => {
  await hour(page);
  await signIn(page, "/overview?tenant=acme");
  await expect(page.getByText("all systems normal")).toBeVisible();
  await expect(region(page, "Latency").locator("canvas")).toBeVisible();
  await expect(region(page, "What changed lately").getByRole("listitem").first()).toBeVisible();
  await picture(page, "overview");
  await page.getByRole("button", { name: /^(Light|Dark) theme$/ }).click();
  await picture(page, "overview-dark");
});

test("Timeline", async ({ page }) => {
  await signIn(page, "/timeline?tenant=acme&id=order-1004");
  await expect(region(page, "Failures")).toBeVisible();
  await expect(page.getByRole("list", { name: "Spans" }).getByRole("listitem").filter({ hasText: "undo" }).first()).toBeVisible();
  await picture(page, "timeline");
});

test("Audit", async ({ page }) => {
  await signIn(page, "/audit?tenant=acme");
  await expect(page.getByRole("cell", { name: "acme-app" }).first()).toBeVisible();
  await picture(page, "audit");
});

test("An aggregate, events, views and commands", async ({ page }) => {
  await signIn(page, "/aggregates?tenant=acme&type=wallet&id=alice");
  await expect(page.getByRole("table", { name: "What changed" })).toBeVisible();
  await picture(page, "aggregate");
  await page.goto(`${gateway()}/ui/events?tenant=acme`);
  await region(page, "Events").getByRole("button", { name: "transfer.failed" }).first().click();
  await expect(page.getByRole("complementary", { name: "Event" })).toContainText("Correlation id");
  await picture(page, "events");
  await page.goto(`${gateway()}/ui/views?tenant=acme&view=wallets&filter=${encodeURIComponent("balance > 20000")}&order=${encodeURIComponent("balance desc")}`);
  await expect(region(page, "Rows of wallets").getByRole("row").nth(5)).toBeVisible();
  await picture(page, "views");
  await page.goto(`${gateway()}/ui/commands?tenant=acme&type=wallet&command=deposit&id=elena`);
  await page.getByLabel("amount").fill("2500");
  await page.getByLabel("reference (optional)").fill("refund of order-1005");
  await page.getByRole("button", { name: "Dry run" }).click();
  await expect(page.getByText("dry run: nothing was written")).toBeVisible();
  await picture(page, "commands");
});

test("A workflow instance", async ({ page }) => {
  await signIn(page, "/workflows?tenant=acme");
  await page.getByRole("button", { name: "transfer/order-1004" }).click();
  await expect(page.getByRole("complementary", { name: "Instance transfer/order-1004" }).getByText("The steps before it are undone.")).toBeVisible();
  await picture(page, "workflows");
});

test("Fleet, and on a phone", async ({ page }) => {
  await signIn(page, "/fleet?tenant=acme");
  await expect(page.getByText("all answered")).toBeVisible();
  // The chart has a line.
  await page.waitForResponse(/GetFleet$/);
  await page.waitForResponse(/GetFleet$/);
  await picture(page, "fleet");
  await page.setViewportSize({ width: 390, height: 844 });
  await page.getByRole("button", { name: /^(Light|Dark) theme$/ }).click();
  await picture(page, "phone");
});

test("A tenant", async ({ page }) => {
  await hour(page);
  await post("/v1/control/tenants/acme/quota", { quota: { rate: 5000, burst: 500 } }, operator());
  await signIn(page, "/tenants/detail?tenant=acme");
  await expect(region(page, "Views").getByText("current").first()).toBeVisible();
  await expect(region(page, "Load of acme").locator("canvas").first()).toBeVisible();
  await picture(page, "tenant");
});

test("A move", async ({ page }) => {
  await signIn(page, "/moves?tenant=globex&kind=projection");
  await page.getByRole("button", { name: "Plan" }).click();
  await page.getByRole("button", { name: "Start…" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Start" }).click();
  await expect(page.getByRole("complementary", { name: "Move of globex" }).getByText("done").first()).toBeVisible();
  await picture(page, "moves");
});

test("Access and the API", async ({ page }) => {
  await signIn(page, "/access?tenant=acme");
  await page.getByLabel("Method", { exact: true }).fill("/projection.gateway.v1.QueryService/Query");
  await page.getByRole("button", { name: "Decide" }).click();
  await expect(region(page, "Who can call this?").getByRole("status")).toContainText("allowed");
  await picture(page, "access");
  await page.goto(`${gateway()}/ui/api?tenant=acme&q=query&operation=${encodeURIComponent("POST /v1/query/{view}")}`);
  await expect(page.getByRole("region", { name: "Code", exact: true })).toBeVisible();
  await picture(page, "api");
});

test("A changed model, and dead letters", async ({ page }) => {
  const receiver = createServer((_, res) => res.writeHead(503).end());
  await new Promise<void>((resolve) => receiver.listen(0, "127.0.0.1", resolve));
  const { port } = receiver.address() as AddressInfo;
  try {
    await signIn(page, "/models?tenant=acme");
    await expect(page.getByLabel("Document (YAML)")).toBeVisible();
    const { document } = (await (await fetch(`${gateway()}/v1/control/model`, { headers: { authorization: `Bearer ${operator()}` } })).json()) as { document: { text: string; revision: string } };
    await page.evaluate((value) => navigator.clipboard.writeText(value), document.text.replace("balance: row.balance + event.amount", "balance: row.balance + event.amount - event.fee"));
    await page.getByLabel("Document (YAML)").press("Control+a");
    await page.keyboard.press("Control+v");
    await expect(page.getByRole("button", { name: /^Line \d+:/ }).or(page.getByText(/^No mistakes/)).first()).toBeVisible();
    await page.keyboard.press("Control+Home");
    await picture(page, "models");
    const text = `${document.text}
  announce:
    description: Announces a wallet to a receiver.
    on: wallet.opened
    steps:
      - {name: tell, retry: {attempts: 1}, webhook: {url: "'http://127.0.0.1:${port}/' + meta.aggregate_id", body: {id: meta.aggregate_id}}}
`;
    expect(await (await post("/v1/control/model", { text, expectedRevision: document.revision }, operator())).text()).toContain("revision");
    for (const name of ["nadia", "oscar", "priya", "quentin", "rosa"]) await post(`/v1/commands/wallet/${name}/open`, { payload: { owner: name } }, application(), { "x-correlation-id": `sign-up-${name}` });
    await page.goto(`${gateway()}/ui/dead-letters?tenant=acme`);
    const list = region(page, "Dead letters");
    await expect(list.getByRole("row").filter({ hasText: "wallet/rosa" })).toBeVisible({ timeout: 30_000 });
    await list.getByRole("row").filter({ hasText: "wallet/oscar" }).getByRole("checkbox").check();
    await expect(page.getByRole("link", { name: /Dead letters 5/ })).toBeVisible({ timeout: 15_000 });
    await picture(page, "dead-letters");
  } finally {
    receiver.close();
  }
});

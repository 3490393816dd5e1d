import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { AxeResults, ElementContext, RunOptions } from "axe-core";
import { expect, test, type Page } from "@playwright/test";

/** A value of the platform of the running test: the project "alone" has one that no other test uses. */
const of = (name: string) => process.env[`${test.info().project.name === "alone" ? "ALONE" : "SHARED"}_${name}`] ?? "";

export const gateway = () => of("URL");
export const operator = () => of("OPERATOR");
export const application = () => of("APPLICATION");
export const platformProcess = () => Number(of("PID"));

export const url = (path: string) => `${gateway()}/ui${path}`;

/** Issues a token of the platform's own issuer. */
export function issue(subject: string, tenants: string[], rights: string[], ttl = "1h"): string {
  const flags = [...tenants.flatMap((tenant) => ["--tenant", tenant]), ...rights.flatMap((right) => ["--right", right])];
  return execFileSync(of("ISSUER"), ["token", "--data", of("DATA"), "--subject", subject, "--ttl", ttl, ...flags], { encoding: "utf8" }).trim();
}

/** Leads an open page to a place of the console, as a link does: it is not loaded again. */
export async function go(page: Page, path: string): Promise<void> {
  await page.evaluate((address) => history.pushState(null, "", address), url(path));
}

let signedIn = 0;

/** Opens a page with a token in its session, as after a reload. */
export async function signIn(page: Page, path = "/", token = operator()): Promise<void> {
  // Once, before the scripts of the page: a tab that has signed out stays so. The tab's name lists which have run.
  await page.addInitScript(
    ([id, value]) => {
      if (window.name.split(" ").includes(id)) return;
      window.name += ` ${id}`;
      sessionStorage.setItem("headgate.token", value);
    },
    [String(++signedIn), token] as const,
  );
  await page.goto(url(path));
}

/** Lets the browser's clock, which flows otherwise, jump over a wait. It is installed before the page is opened: page.clock.install(). */
export async function pass(page: Page, seconds: number): Promise<void> {
  await page.clock.fastForward(seconds * 1000);
}

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const everything: RunOptions["runOnly"] = { type: "tag", values: ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"] };

/** The rows of a list and the lines of a document are alike: the first ones stand for the others. */
const further = "tbody tr:nth-child(n+7), .cm-line:nth-child(n+12)";

/** The frame is that of all screens. */
const frame = ["nav[aria-label='Screens']", "header.sticky"];

/** Nothing that WCAG 2.2 AA asks for is missing in what a screen shows. */
export async function accessible(page: Page): Promise<void> {
  await expectNone(page, everything, [further, ...frame]);
}

/** Runs rules in the page itself, which has no frames: axe is loaded once per page, and there is no second page for its results. */
async function expectNone(page: Page, runOnly: RunOptions["runOnly"], exclude: string[]): Promise<void> {
  if (!(await page.evaluate(() => "axe" in window))) await page.evaluate(axe);
  const found = await page.evaluate(
    async ([options, excluded]) => {
      const { run } = (window as unknown as { axe: { run: (of: ElementContext, options: RunOptions) => Promise<AxeResults> } }).axe;
      const { violations } = await run({ exclude: excluded }, options);
      const theme = document.documentElement.dataset["theme"] ?? "";
      return violations.map((one) => `${one.id} (${theme}): ${one.nodes.map((node) => node.html).join(" ")}`);
    },
    [{ runOnly, resultTypes: ["violations"], preload: false } as RunOptions, exclude] as const,
  );
  expect(found).toEqual([]);
}

/** What a screen shows is accessible, in both themes; with the frame around it where that is asked for. */
export async function look(page: Page, framed = false): Promise<void> {
  const excluded = framed ? [further] : [further, ...frame];
  await expectNone(page, everything, excluded);
  const other = () => page.evaluate(() => (document.documentElement.dataset["theme"] = document.documentElement.dataset["theme"] === "dark" ? "light" : "dark"));
  await other();
  await expectNone(page, { type: "rule", values: ["color-contrast"] }, excluded);
  await other();
}

/** Calls the gateway as a client does. */
export async function post(path: string, body: object, token = application(), headers: Record<string, string> = {}): Promise<Response> {
  return fetch(gateway() + path, { method: "POST", headers: { authorization: `Bearer ${token}`, "content-type": "application/json", ...headers }, body: JSON.stringify(body) });
}

/** The common start of the operators' jobs: the first screen after the sign-in. Returns the clicks since. */
export async function begin(page: Page): Promise<() => Promise<number>> {
  await signIn(page, "/overview?tenant=acme");
  await expect(page.getByRole("region", { name: "Top tenants" })).toBeVisible();
  return clicks(page);
}

/** Counts the pointer's clicks on a page from now on, until it is loaded again. */
export async function clicks(page: Page): Promise<() => Promise<number>> {
  const clicked = () =>
    page.evaluate(() => {
      const counted = window as unknown as { clicked?: number };
      if (counted.clicked === undefined) {
        counted.clicked = 0;
        addEventListener("pointerdown", () => (counted.clicked = (counted.clicked ?? 0) + 1), { capture: true });
      }
      return counted.clicked;
    });
  const before = await clicked();
  return async () => (await clicked()) - before;
}

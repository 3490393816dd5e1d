import { execFileSync } from "node:child_process";
import AxeBuilder from "@axe-core/playwright";
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

/** Opens a page with a token in its session, as after a reload. */
export async function signIn(page: Page, path = "/", token = operator()): Promise<void> {
  await page.goto(url("/favicon.svg"));
  await page.evaluate((value) => sessionStorage.setItem("headgate.token", value), token);
  await page.goto(url(path));
}

/** Nothing that WCAG 2.2 AA asks for is missing. */
export async function accessible(page: Page): Promise<void> {
  await expectNone(page, new AxeBuilder({ page }).withTags(["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]));
}

async function expectNone(page: Page, axe: AxeBuilder): Promise<void> {
  const found = await axe.analyze();
  const theme = await page.evaluate(() => document.documentElement.dataset["theme"]);
  expect(found.violations.map((one) => `${one.id} (${theme}): ${one.nodes.map((node) => node.html).join(" ")}`)).toEqual([]);
}

/** The page is accessible, in both themes, and its picture is stored for the docs. */
export async function look(page: Page, name: string): Promise<void> {
  await accessible(page);
  const other = () => page.evaluate(() => (document.documentElement.dataset["theme"] = document.documentElement.dataset["theme"] === "dark" ? "light" : "dark"));
  await other();
  await expectNone(page, new AxeBuilder({ page }).withRules(["color-contrast"]));
  await other();
  const folder = process.env["HEADGATE_PICTURES"];
  if (folder) await page.screenshot({ path: `${folder}/${name}.png` });
}

/** Calls the gateway as a client does. */
export async function post(path: string, body: object, token = application(), headers: Record<string, string> = {}): Promise<Response> {
  return fetch(gateway() + path, { method: "POST", headers: { authorization: `Bearer ${token}`, "content-type": "application/json", ...headers }, body: JSON.stringify(body) });
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

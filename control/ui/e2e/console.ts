import { execFileSync } from "node:child_process";
import AxeBuilder from "@axe-core/playwright";
import { expect, type Page } from "@playwright/test";

export const gateway = () => process.env["HEADGATE_URL"] ?? "";
export const operator = () => process.env["HEADGATE_OPERATOR"] ?? "";
export const application = () => process.env["HEADGATE_APPLICATION"] ?? "";

export const url = (path: string) => `${gateway()}/ui${path}`;

/** Issues a token of the platform's own issuer. */
export function issue(subject: string, tenants: string[], rights: string[], ttl = "1h"): string {
  const flags = [...tenants.flatMap((tenant) => ["--tenant", tenant]), ...rights.flatMap((right) => ["--right", right])];
  return execFileSync(process.env["HEADGATE_ISSUER"] ?? "", ["token", "--data", process.env["HEADGATE_DATA"] ?? "", "--subject", subject, "--ttl", ttl, ...flags], { encoding: "utf8" }).trim();
}

/** Opens a page with a token in its session, as after a reload. */
export async function signIn(page: Page, path = "/", token = operator()): Promise<void> {
  await page.goto(url("/favicon.svg"));
  await page.evaluate((value) => sessionStorage.setItem("headgate.token", value), token);
  await page.goto(url(path));
}

/** Nothing that WCAG 2.2 AA asks for is missing. */
export async function accessible(page: Page): Promise<void> {
  const found = await new AxeBuilder({ page }).withTags(["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]).analyze();
  expect(found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(" ")}`)).toEqual([]);
}

/** The page is accessible, and its picture is stored for the docs. */
export async function look(page: Page, name: string): Promise<void> {
  await accessible(page);
  const folder = process.env["HEADGATE_PICTURES"];
  if (folder) await page.screenshot({ path: `${folder}/${name}.png` });
}

/** Calls the gateway as a client does. */
export async function post(path: string, body: object, token = application()): Promise<Response> {
  return fetch(gateway() + path, { method: "POST", headers: { authorization: `Bearer ${token}`, "content-type": "application/json" }, body: JSON.stringify(body) });
}

import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, test, type Page } from "@playwright/test";
import { accessible, begin, clicks, gateway, go, look, operator, pass, platformProcess, post, signIn } from "./console";

// These tests stop the platform, drain its runner or change its model: they have a separate platform.

test("A silent platform is reported within seconds on every screen, and greys what is shown", async ({ page }) => {
  await page.clock.install();
  await signIn(page, "/fleet");
  await expect(page.getByText("all answered", { exact: true })).toBeVisible();
  const pid = platformProcess();
  process.kill(pid, "SIGSTOP");
  try {
    await pass(page, 7);
    await expect(page.getByText(/The platform has not answered for \d+ s/)).toBeVisible();
    await expect(page.getByText("all answered", { exact: true })).toBeHidden();
    await expect(page.locator(".stale").first()).toBeVisible();
    await expect(page.getByRole("status", { name: "Connection" })).toHaveText("No answer");
    await page.getByRole("link", { name: "Access" }).click();
    await expect(page.getByText(/The platform has not answered for/)).toBeVisible();
  } finally {
    process.kill(pid, "SIGCONT");
  }
  await expect(page.getByText(/The platform has not answered for/)).toBeHidden();
  await expect(page.getByRole("status", { name: "Connection" })).toHaveText("Connected");
});

test("A detail stays where it is while the platform is silent", async ({ page }) => {
  await page.setViewportSize({ width: 1280, height: 600 });
  await page.clock.install();
  await signIn(page, "/fleet?tenant=acme&open=runner-1");
  const actions = page.getByRole("complementary", { name: "Node runner-1" }).getByRole("button", { name: "Drain…" });
  await expect(actions).toBeInViewport({ ratio: 1 });
  const before = await actions.boundingBox();
  const pid = platformProcess();
  process.kill(pid, "SIGSTOP");
  try {
    await pass(page, 7);
    await expect(page.getByText(/The platform has not answered for \d+ s/)).toBeVisible();
    await expect(actions).toBeInViewport({ ratio: 1 });
    expect((await actions.boundingBox())?.x).toBe(before?.x);
  } finally {
    process.kill(pid, "SIGCONT");
  }
  await expect(page.getByRole("status", { name: "Connection" })).toHaveText("Connected");
});

/** Replaces the document in the editor, as pasting it does. */
async function write(page: Page, text: string): Promise<void> {
  await page.evaluate((value) => navigator.clipboard.writeText(value), text);
  await page.getByLabel("Document (YAML)").press("Control+a");
  await page.keyboard.press("Control+v");
}

test("job 07: check a model change, see its diff, apply it, follow the rebuild: 2 clicks; job 08: roll it back, to the first model too: 3 clicks", async ({ page }) => {
  const read = await fetch(`${gateway()}/v1/control/model`, { headers: { authorization: `Bearer ${operator()}` } });
  const { document } = (await read.json()) as { document: { text: string; revision: string } };
  await signIn(page, "/models?tenant=acme");
  await expect(page.getByLabel("Document (YAML)")).toBeVisible();
  // The outline leads to a part.
  await page.getByRole("navigation", { name: "Outline" }).getByRole("button", { name: "wallets", exact: true }).click();
  await expect(page.locator(".cm-activeLine")).toContainText("wallets:");
  // Keys are completed by their place in the document.
  await page.getByLabel("Document (YAML)").press("Control+Home");
  await page.keyboard.type("vi");
  await expect(page.getByRole("option", { name: "views" })).toBeVisible();
  await page.keyboard.press("Escape");
  await write(page, document.text.replace("model: wallet", "modell: wallet"));
  await page.getByRole("button", { name: /Line 3: unknown key "modell"/ }).click();
  await expect(page.locator(".cm-lint-marker-error").first()).toBeVisible();
  await accessible(page);
  await write(page, document.text.replace("balance: row.balance + event.amount", "balance: row.balance + event.amount * 1"));
  await expect(page.getByText(/No mistakes. Views to rebuild: wallets/)).toBeVisible();
  await expect(page.getByRole("region", { name: "Differences" })).toContainText("event.amount * 1");
  await look(page);
  const count = await clicks(page);
  await page.getByRole("button", { name: "Apply…" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByRole("textbox").fill(document.revision);
  await dialog.getByRole("button", { name: "Apply" }).click();
  await expect(page.getByText("applied by operator")).toBeVisible();
  expect(await count()).toBe(2);
  const rollout = page.getByRole("region", { name: "Rollout" });
  await expect(rollout).toContainText("nodes use the applied model");
  await expect(rollout).toContainText(/The views of all \d+ tenants are built|acme/);

  // Back to the first one.
  const back = await clicks(page);
  const history = page.getByRole("region", { name: "Applied models" });
  const used = (await history.getByRole("row").filter({ hasText: "in use" }).getByRole("button").textContent()) ?? "";
  await history.getByRole("row").last().getByRole("button").click();
  const earlier = page.getByRole("complementary", { name: `Model ${document.revision}` });
  await expect(earlier).toContainText("it is the model that the platform started with");
  await earlier.getByRole("button", { name: "Roll back to it…" }).click();
  await accessible(page);
  await dialog.getByRole("textbox").fill(used);
  await dialog.getByRole("button", { name: "Apply" }).click();
  await expect(page.getByText(`back to ${document.revision}`).first()).toBeVisible();
  expect(await back()).toBe(3);
  // The views are rebuilt beside those shown, and then shown.
  await go(page, "/views?tenant=acme&view=wallets");
  await expect(page.getByRole("cell", { name: "ada" }).first()).toBeVisible();
});

test("job 05: drain a node: 2 clicks and a confirmation from the first screen or from the fleet; and bring it back", async ({ page }) => {
  const dialog = page.getByRole("dialog", { name: "Drain" });
  const detail = page.getByRole("complementary", { name: "Node runner-1" });
  const resume = async () => {
    await detail.getByRole("button", { name: "Resume…" }).click();
    await page.getByRole("dialog", { name: "Resume" }).getByRole("button", { name: "Resume" }).click();
    await expect(detail.getByRole("button", { name: "Drain…" })).toBeVisible();
    await expect(detail.getByText("ready", { exact: true })).toBeVisible();
  };
  const count = await begin(page);
  await page.getByRole("button", { name: "Search or jump to" }).click();
  await page.getByRole("combobox", { name: "Search or jump to" }).fill("drain runner-1");
  await page.getByRole("option", { name: "Drain runner-1…" }).click();
  await expect(dialog).toContainText(process.env["HEADGATE_E2E"] === "cluster" ? "The other runner takes its work over" : "No other runner takes work: workflows wait until this one is resumed");
  await accessible(page);
  await dialog.getByRole("button", { name: "Drain" }).click();
  await expect(detail.getByText("the node is drained")).toBeVisible();
  expect(await count()).toBe(3);
  await resume();
  expect(await count()).toBe(5);

  await detail.getByRole("button", { name: "Close the detail" }).click();
  const inList = await clicks(page);
  await page.getByRole("button", { name: "runner-1" }).click();
  await detail.getByRole("button", { name: "Drain…" }).click();
  // Nothing is done until it is confirmed, and the focus returns.
  await page.keyboard.press("Escape");
  await expect(detail.getByRole("button", { name: "Drain…" })).toBeFocused();
  await page.keyboard.press("Enter");
  await dialog.getByRole("button", { name: "Drain" }).click();
  await expect(detail.getByText("the node is drained")).toBeVisible();
  expect(await inList()).toBe(3);
  await resume();
});

test("An aggregate node is drained with a reason, and resumed; what fails until then is shown before", async ({ page }) => {
  test.skip(process.env["HEADGATE_E2E"] === "cluster", "its aggregate nodes are several");
  await signIn(page, "/fleet?tenant=acme&open=aggregate-1");
  const detail = page.getByRole("complementary", { name: "Node aggregate-1" });
  await detail.getByRole("button", { name: "Drain…" }).click();
  const dialog = page.getByRole("dialog", { name: "Drain" });
  await expect(dialog).toContainText("It is the only ready aggregate node: until it is resumed, it answers reads alone.");
  await accessible(page);
  await dialog.getByRole("textbox", { name: /Reason/ }).fill("new kernel");
  await dialog.getByRole("button", { name: "Drain" }).click();
  await expect(detail.getByText("drained", { exact: true })).toBeVisible();
  await expect(detail).toContainText("by operator: new kernel");
  await accessible(page);
  await detail.getByRole("button", { name: "Resume…" }).click();
  await page.getByRole("dialog", { name: "Resume" }).getByRole("button", { name: "Resume" }).click();
  await expect(detail.getByText("ready", { exact: true })).toBeVisible();
  await expect(detail.getByRole("button", { name: "Drain…" })).toBeVisible();
});

test("job 02: find a stuck workflow and replay it: 3 clicks; dead letters by cause", async ({ page }) => {
  // A receiver of webhooks that is down, and a workflow that calls it once.
  let up = false;
  const receiver = createServer((_, res) => res.writeHead(up ? 200 : 500).end());
  await new Promise<void>((resolve) => receiver.listen(0, "127.0.0.1", resolve));
  const { port } = receiver.address() as AddressInfo;
  try {
    const model = (await (await fetch(`${gateway()}/v1/control/model`, { headers: { authorization: `Bearer ${operator()}` } })).json()) as { document: { text: string; revision: string } };
    const text = `${model.document.text}
  announce:
    description: Announces a wallet to a receiver, which may be down.
    on: wallet.opened
    when: event.owner == 'announced'
    steps:
      - {name: tell, retry: {attempts: 1}, webhook: {url: "'http://127.0.0.1:${port}/' + meta.aggregate_id", body: {id: meta.aggregate_id}}}
`;
    const applied = await post("/v1/control/model", { text, expectedRevision: model.document.revision }, operator());
    expect(await applied.text()).toContain("revision");
    for (const id of ["w1", "w2", "w3", "w4"]) expect((await post(`/v1/commands/wallet/${id}/open`, { payload: { owner: "announced" } })).ok).toBe(true);

    // The page asks for dead letters every ten seconds: it is opened once all are there.
    const letters = async () => ((await (await post("/runner.admin.v1.RunnerAdmin/ListDeadLetters", { tenantId: "acme" }, operator())).json()) as { letters?: unknown[] }).letters ?? [];
    await expect.poll(async () => (await letters()).length, { timeout: 30_000 }).toBe(4);
    await signIn(page, "/workflows?tenant=acme");
    await expect(page.getByRole("link", { name: /Dead letters 4/ })).toBeVisible();
    await expect(page.getByRole("button", { name: "announce/w1" })).toBeVisible();
    const count = await clicks(page);
    await page.getByRole("button", { name: "announce/w1" }).click();
    const instance = page.getByRole("complementary", { name: "Instance announce/w1" });
    await expect(instance.getByText(/Step tell has failed once/)).toBeVisible();
    await expect(instance.getByText("No further attempt follows")).toBeVisible();
    await accessible(page);
    up = true;
    await instance.getByRole("button", { name: "Retry now…" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Reason").fill("the receiver is back");
    await dialog.getByRole("button", { name: "Retry" }).click();
    await expect(instance.getByText("completed", { exact: true })).toBeVisible();
    expect(await count()).toBe(3);

    await go(page, "/dead-letters?tenant=acme");
    await expect(page.getByRole("region", { name: "Causes" }).getByRole("listitem")).toHaveCount(1);
    const list = page.getByRole("region", { name: "Dead letters" });
    await list.getByRole("row").filter({ hasText: "wallet/w2" }).getByRole("checkbox").check();
    await expect(page.getByText("1 letter is marked")).toBeVisible();
    await accessible(page);
    await page.getByRole("status").getByRole("button", { name: "Discard…" }).click();
    await dialog.getByLabel("Reason").fill("a test");
    await dialog.getByLabel(/^Type/).fill("acme");
    await dialog.getByRole("button", { name: "Discard" }).click();
    await expect(dialog).toBeHidden();
    await expect(list.getByRole("row").filter({ hasText: "wallet/w2" })).toBeHidden();
    await list.getByRole("row").filter({ hasText: "wallet/w3" }).getByRole("button").first().click();
    await page.getByRole("complementary").getByRole("button", { name: "Replay…" }).click();
    await dialog.getByLabel("Reason").fill("the receiver is back");
    await dialog.getByRole("button", { name: "Replay" }).click();
    // What is behind an open dialog is hidden, too, and leaving the page cancels the call.
    await expect(dialog).toBeHidden();
    await expect(list.getByRole("row").filter({ hasText: "wallet/w3" })).toBeHidden();
    // From the first screen: all that failed for one cause.
    const fromStart = await begin(page);
    await page.getByRole("link", { name: /^Dead letters 1/ }).click();
    await page.getByRole("region", { name: "Causes" }).getByRole("button", { name: "Replay…" }).click();
    await dialog.getByLabel("Reason").fill("the receiver is back");
    await dialog.getByRole("button", { name: "Replay" }).click();
    await expect(page.getByText("acme has no dead letters.")).toBeVisible();
    expect(await fromStart()).toBe(3);
    // The replayed instance ends while the receiver still answers.
    await expect(async () => {
      const replayed = await fetch(`${gateway()}/admin/runner/tenants/acme/workflows/announce/w3`, { headers: { authorization: `Bearer ${operator()}` } });
      expect(await replayed.text()).toContain("WORKFLOW_STATE_COMPLETED");
    }).toPass({ timeout: 30_000 });
  } finally {
    receiver.close();
  }
});

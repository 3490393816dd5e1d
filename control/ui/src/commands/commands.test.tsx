import { Code, ConnectError } from "@connectrpc/connect";
import { cleanup, screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { afterEach, expect, it } from "vitest";
import { CommandService, type SubmitRequest } from "../gen/aggregate/gateway/v1/command_pb";
import { ModelService } from "../gen/control/v1/model_pb";
import { show } from "../parts/show";
import { Commands } from "./commands";

afterEach(() => {
  cleanup();
  localStorage.clear();
});

const schema = {
  properties: { amount: { type: "integer", description: "in cents" }, currency: { type: "string", enum: ["EUR", "USD"] }, urgent: { type: "boolean" }, tags: { type: "array" } },
  required: ["amount"],
};

function start(answer: (request: SubmitRequest) => { version: bigint }) {
  const asked: SubmitRequest[] = [];
  const shown = show(<Commands />, {
    at: "/?tenant=acme&type=wallet&command=pay&id=ada",
    rights: ["command.submit"],
    services: (router) => {
      router.service(ModelService, { getModel: () => ({ aggregates: [{ name: "wallet", commands: [{ name: "close" }, { name: "pay", schema }] }] }) });
      router.service(CommandService, {
        submit: (request) => {
          asked.push(request);
          return answer(request);
        },
      });
    },
  });
  return { asked, ...shown };
}
const field = (name: string) => screen.findByLabelText<HTMLInputElement>(name);
const press = (name: string) => userEvent.click(screen.getByRole("button", { name }));

it("the form has the schema's fields, and its texts become the payload", async () => {
  const { asked, address } = start(() => ({ version: 3n }));
  await userEvent.type(await field("amount"), "12");
  expect((await field("amount")).placeholder).toBe("in cents");
  await userEvent.selectOptions(await field("currency (optional)"), "USD");
  await userEvent.selectOptions(await field("urgent (optional)"), "false");
  await userEvent.type(await field("tags (optional), JSON"), '[["a", 1]');
  await press("Dry run");
  expect(await within(await screen.findByRole("region", { name: "Answer" })).findByText("dry run: nothing was written")).toBeTruthy();
  expect(asked[0]).toMatchObject({ tenantId: "acme", aggregateType: "wallet", aggregateId: "ada", command: "pay", dryRun: true, idempotencyKey: "", payload: { amount: 12, currency: "USD", urgent: false, tags: ["a", 1] } });
  await userEvent.clear(await field("wallet id"));
  expect(screen.getByRole("button", { name: "Submit" })).toHaveProperty("disabled", true);
  await userEvent.selectOptions(screen.getByLabelText("Command"), "close");
  expect(await screen.findByText("The command takes no payload.")).toBeTruthy();
  expect(address()).toMatchObject({ tenant: "acme", command: "close" });
});

it.each([
  ["amount", "1.5", "amount: 1.5 is no integer"],
  ["tags (optional), JSON", "[[1", "tags: this is no JSON"],
])("a text of %s that cannot be read names its field, and nothing is sent", async (name, text, message) => {
  const { asked } = start(() => ({ version: 1n }));
  await userEvent.type(await field(name), text);
  await press("Submit");
  expect((await screen.findByRole("alert")).textContent).toBe(message);
  expect(asked).toEqual([]);
});

it("the idempotency key stays after an error, and is another one after a success", async () => {
  let up = false;
  const { asked } = start(() => {
    if (!up) throw new ConnectError("no aggregate node answers", Code.Unavailable);
    return { version: 2n };
  });
  await userEvent.type(await field("amount"), "1");
  const first = (await field("Idempotency key")).value;
  await press("Submit");
  expect((await screen.findByRole("alert")).textContent).toContain("no aggregate node answers");
  expect((await field("Idempotency key")).value).toBe(first);
  up = true;
  await press("Submit");
  await screen.findByRole("region", { name: "Answer" });
  await waitFor(async () => expect((await field("Idempotency key")).value).not.toBe(first));
  expect(asked.map((request) => request.idempotencyKey)).toEqual([first, first]);
  // It leads to what it has caused.
  expect(within(screen.getByRole("group", { name: "What it has caused" })).getAllByRole("link").map((link) => link.textContent)).toEqual(["Timeline", "History of wallet/ada", "Views of acme"]);
  // Both are in the history, the latest first.
  expect(within(screen.getByRole("region", { name: "History" })).getAllByRole("listitem").map((item) => item.textContent)).toEqual([expect.stringMatching(/^pay wallet\/ada amount 1done.*Timeline$/), expect.stringMatching(/^pay wallet\/ada amount 1Unavailable.*Timeline$/)]);
});

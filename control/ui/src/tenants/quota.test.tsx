import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { cleanup, screen, waitFor } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { useState } from "react";
import { afterEach, expect, it, vi } from "vitest";
import { TenantSchema, TenantService, type SetQuotaRequest, type Tenant } from "../gen/control/v1/tenant_pb";
import { show } from "../parts/show";
import { CallLimits } from "./quota";

afterEach(cleanup);

const tenant = (rate = 10, revision = 7n): Tenant => create(TenantSchema, { tenantId: "acme", revision, quota: { rate } });

/** The form, and what another operator does. */
function start(set: (request: SetQuotaRequest) => Tenant, rights = ["fleet.admin"]) {
  let change: (next: Tenant) => void = () => undefined;
  const reload = vi.fn(() => Promise.resolve());
  function Stored() {
    const [stored, setStored] = useState(tenant());
    change = setStored;
    return <CallLimits tenant={stored} reload={reload} />;
  }
  show(<Stored />, { rights, services: (router) => void router.service(TenantService, { setQuota: (request) => ({ tenant: set(request) }) }) });
  return { reload, change: (next: Tenant) => change(next) };
}

const rate = () => screen.findByLabelText("Calls per second");
const save = () => screen.getByRole("button", { name: "Save limits" });

it("limits are saved against the revision that they were read at, and an untouched form follows what is stored", async () => {
  const user = userEvent.setup();
  const asked: SetQuotaRequest[] = [];
  const { reload, change } = start((request) => {
    asked.push(request);
    return tenant(request.quota?.rate, 9n);
  });
  expect(await rate()).toHaveProperty("value", "10");
  expect(save()).toHaveProperty("disabled", true);
  change(tenant(20, 8n));
  await waitFor(async () => expect(await rate()).toHaveProperty("value", "20"));
  await user.clear(await rate());
  await user.type(await rate(), "2.5");
  await user.click(save());
  await waitFor(() => expect(reload).toHaveBeenCalled());
  expect(asked.map(({ expectedRevision, quota }) => [expectedRevision, quota?.rate])).toEqual([[8n, 2.5]]);
  expect(await rate()).toHaveProperty("value", "2.5");
});

it("a text that is no number is refused by name; calls in flight are whole", async () => {
  const user = userEvent.setup();
  start(() => tenant());
  await user.type(await rate(), "x");
  expect(screen.getByText("Calls per second: this is no number.")).toBeTruthy();
  expect(save()).toHaveProperty("disabled", true);
  await user.type(await rate(), "{Backspace}");
  await user.type(screen.getByLabelText("Calls in flight"), ".5");
  expect(screen.getByText("Calls in flight: this is no whole number.")).toBeTruthy();
});

it("what another operator has set in the meantime is shown instead of overwritten", async () => {
  const user = userEvent.setup();
  const { reload, change } = start(() => {
    throw new ConnectError("the tenant was changed", Code.Aborted);
  });
  await user.type(await rate(), "0");
  await user.click(save());
  expect((await screen.findByRole("alert")).textContent).toContain("Changed by another operator");
  expect(reload).toHaveBeenCalled();
  change(tenant(77, 8n));
  expect(await screen.findByText(/Another operator has set these limits in the meantime: 77 calls per second/)).toBeTruthy();
  expect(save()).toHaveProperty("disabled", true);
  expect(await rate()).toHaveProperty("value", "100");
  await user.click(screen.getByRole("button", { name: "Use theirs" }));
  expect(await rate()).toHaveProperty("value", "77");
  expect(screen.queryByRole("alert")).toBeNull();
});

it("without the right the form states it", async () => {
  start(() => tenant(), ["fleet.read"]);
  expect(await screen.findByTitle("you lack the right fleet.admin")).toBeTruthy();
});

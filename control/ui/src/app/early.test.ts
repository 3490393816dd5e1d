import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { FleetService } from "../gen/control/v1/fleet_pb";
import { MetricsService, SeriesRange } from "../gen/control/v1/metrics_pb";
import { TenantService } from "../gen/control/v1/tenant_pb";
import { SessionService } from "../gen/gateway/v1/session_pb";
import { fetchOnce, sendEarly } from "./early";

const credential = (token: string) => ({ token, at: 0, generation: 0 });

let rights: string[];
let asked: string[];

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "Date"] });
  rights = ["fleet.read"];
  asked = [];
  vi.stubGlobal("fetch", (input: string) => {
    asked.push(input.slice(input.lastIndexOf("/") + 1));
    return Promise.resolve(Response.json(input.endsWith("/WhoAmI") ? { subject: "ada", tenants: ["*"], rights } : {}));
  });
});

afterEach(() => {
  vi.runAllTimers(); // no answer is left for the next test
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

/** The console's clients, with a token. */
function clients(token: string) {
  const transport = createConnectTransport({
    baseUrl: "/",
    fetch: fetchOnce,
    interceptors: [
      (next) => (req) => {
        req.header.set("authorization", `Bearer ${token}`);
        return next(req);
      },
    ],
  });
  return { session: createClient(SessionService, transport), fleet: createClient(FleetService, transport), tenants: createClient(TenantService, transport), metrics: createClient(MetricsService, transport) };
}

it("the console's first calls have the answers that were sent for early, each once", async () => {
  await sendEarly(credential("t"), "/overview", "?tenant=acme");
  const early = ["WhoAmI", "QuerySeries", "GetFleet", "ListTenants"];
  expect(asked).toEqual(early);
  const { session, fleet, tenants, metrics } = clients("t");
  expect((await session.whoAmI({})).subject).toBe("ada");
  await fleet.getFleet({});
  await tenants.listTenants({});
  await metrics.querySeries({ range: SeriesRange.HOUR });
  expect(asked).toEqual(early);
  await session.whoAmI({});
  expect(asked).toEqual([...early, "WhoAmI"]);
});

it("an early answer is not for another token", async () => {
  await sendEarly(credential("t"), "/fleet", "");
  await clients("other").session.whoAmI({});
  expect(asked).toEqual(["WhoAmI", "WhoAmI"]);
});

it("an early answer is not used when it is old", async () => {
  await sendEarly(credential("t"), "/fleet", "");
  vi.advanceTimersByTime(10_000);
  await clients("t").session.whoAmI({});
  expect(asked).toEqual(["WhoAmI", "WhoAmI"]);
});

it.each([
  ["another screen", "/fleet", "", ["fleet.read"]],
  ["a principal without the right", "/overview", "", ["metrics.read"]],
])("nothing of the overview is asked for early for %s", async (_, page, search, held) => {
  rights = held;
  await sendEarly(credential("t"), page, search);
  expect(asked).toEqual(["WhoAmI"]);
});

it("a part of the time that the address names is not asked for early", async () => {
  await sendEarly(credential("t"), "/overview", "?range=day");
  expect(asked).toEqual(["WhoAmI", "GetFleet", "ListTenants"]);
});

it("nothing is sent with a token that has ended", async () => {
  const grant = { provider: "corp", subject: "ada", refresh: "r", until: Date.now() - 1, lifetime: 60_000 };
  await sendEarly({ ...credential("t"), grant }, "/overview", "");
  expect(asked).toEqual([]);
});

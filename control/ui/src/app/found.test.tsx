import { createRouterTransport } from "@connectrpc/connect";
import { TransportProvider } from "@connectrpc/connect-query";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { act, cleanup, renderHook, waitFor } from "@testing-library/react";
import type { ReactNode } from "react";
import { afterEach, expect, it, vi } from "vitest";
import { ModelService } from "../gen/control/v1/model_pb";
import { SessionService } from "../gen/gateway/v1/session_pb";
import { QueryService } from "../gen/projection/gateway/v1/query_pb";
import { RunnerAdmin } from "../gen/runner/admin/v1/admin_pb";
import { useFound } from "./found";

/** A platform with wallets and transfers, of which the principal may read the wallets; it notes what is asked. */
function platform(found: (prefix: string) => Promise<string[]>, { incomplete = false } = {}) {
  const asked: string[] = [];
  const transport = createRouterTransport(({ service }) => {
    service(SessionService, { whoAmI: () => ({ subject: "ada", tenants: ["*"], rights: ["aggregate.read:wallet", "workflow.read", "fleet.read"] }) });
    service(ModelService, { getModel: () => ({ aggregates: [{ name: "transfer" }, { name: "wallet" }] }) });
    service(QueryService, {
      findAggregates: async ({ aggregateType, idPrefix }) => {
        asked.push(`${aggregateType}/${idPrefix}`);
        return { aggregates: (await found(idPrefix)).map((aggregateId) => ({ aggregateType, aggregateId })), incomplete, percent: 42, nextPageToken: idPrefix === "many" ? "next" : "" };
      },
    });
    service(RunnerAdmin, {
      listWorkflows: ({ workflow, idPrefix, pageToken }) => {
        asked.push(`instances ${workflow}/${idPrefix} ${pageToken}`);
        return { nextPageToken: pageToken === "" ? "second" : "" };
      },
    });
  });
  const queries = new QueryClient();
  const wrapper = ({ children }: { children: ReactNode }) => (
    <TransportProvider transport={transport}>
      <QueryClientProvider client={queries}>{children}</QueryClientProvider>
    </TransportProvider>
  );
  return { asked, wrapper };
}

// The pause is tested by itself.
vi.mock("./url", async (original) => ({ ...(await original<typeof import("./url")>()), usePaused: (value: string) => value }));
afterEach(cleanup);

const ids = (found: { aggregates: { aggregateType: string; aggregateId: string }[] }) => found.aggregates.map((one) => `${one.aggregateType}/${one.aggregateId}`);

it("ids of the types that the principal may read are searched, and what the results lack is noted", async () => {
  const { asked, wrapper } = platform((prefix) => Promise.resolve([`${prefix}a`]), { incomplete: true });
  const { result } = renderHook(() => useFound(" ad ", "acme"), { wrapper });
  await waitFor(() => expect(ids(result.current)).toEqual(["wallet/ada"]));
  await waitFor(() => expect(result.current.searching).toBe(false));
  // An empty page is followed: it is not the last one.
  expect(asked.sort()).toEqual(["instances /ad ", "instances /ad second", "wallet/ad"]);
  expect(result.current.moreInstances).toBe(false);
  expect(result.current.notes).toEqual(["The index of aggregates covers 42 % of the journal: later ones are missing."]);
});

it("an answer that is late does not replace that of a later text", async () => {
  let release: () => void = () => undefined;
  const late = new Promise<string[]>((resolve) => (release = () => resolve(["adele"])));
  const { asked, wrapper } = platform((prefix) => (prefix === "ad" ? late : Promise.resolve([`${prefix}b`])));
  const { result, rerender } = renderHook(({ typed }) => useFound(typed, "acme"), { wrapper, initialProps: { typed: "ad" } });
  await waitFor(() => expect(asked).toContain("wallet/ad"));
  rerender({ typed: "bo" });
  await waitFor(() => expect(ids(result.current)).toEqual(["wallet/bob"]));
  await act(async () => {
    release();
    await late;
  });
  expect(ids(result.current)).toEqual(["wallet/bob"]);
});

it("a name before the slash searches that type and workflow alone, and more than are listed are offered", async () => {
  const { asked, wrapper } = platform(() => Promise.resolve(["many-1"]));
  const { result } = renderHook(() => useFound("wallet/many", "acme"), { wrapper });
  await waitFor(() => expect(result.current.more).toEqual([{ type: "wallet", id: "many" }]));
  expect(asked).toEqual(expect.arrayContaining(["wallet/many", "instances wallet/many "]));
});

it("one character searches nothing", async () => {
  const { asked, wrapper } = platform(() => Promise.resolve(["a"]));
  const { result, rerender } = renderHook(({ typed }) => useFound(typed, "acme"), { wrapper, initialProps: { typed: "wallet/a" } });
  await waitFor(() => expect(ids(result.current)).toEqual(["wallet/a"]));
  asked.length = 0;
  rerender({ typed: "a" });
  expect(result.current).toMatchObject({ aggregates: [], instances: [], searching: false });
  expect(asked).toEqual([]);
});

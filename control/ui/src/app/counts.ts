import { useQuery, useTransport } from "@connectrpc/connect-query";
import { useQuery as useAnyQuery } from "@tanstack/react-query";
import { FleetService, NodeState } from "../gen/control/v1/fleet_pb";
import { problems } from "../overview/problems";
import { part, whenIdle } from "../parts/later";
import { useRefusal } from "./session";

/** What stands beside a screen's name: a number that was counted, as text, and what it counts. */
export interface Count {
  text: string;
  of: string;
}

export interface Counts {
  problems?: Count;
  failing?: Count;
  letters?: Count;
  silent?: Count;
}

/** The numbers of the navigation that are not zero: of the whole fleet, as the overview names its problems, and of the tenant's dead letters. */
export function useCounts(tenant: string): Counts {
  const noFleet = useRefusal("fleet.read");
  const noWork = useRefusal("workflow.read", "tenant");
  const fleet = useQuery(FleetService.method.getFleet, {}, { enabled: noFleet === "", refetchInterval: 5_000 });
  const transport = useTransport();
  // The first view does without the runners' service, whose descriptor is the largest.
  const listed = useAnyQuery({
    queryKey: ["number of dead letters", tenant],
    queryFn: async ({ signal }) => {
      await whenIdle();
      const { countLetters } = await part(() => import("./letters-count"));
      return countLetters(transport, tenant, signal);
    },
    enabled: noWork === "" && tenant !== "",
    refetchInterval: 10_000,
    retry: false,
  });
  const nodes = fleet.data?.fleet?.nodes ?? [];
  const views = new Set(nodes.flatMap((node) => node.failingViews.map((view) => `${view.tenantId}/${view.view}`)));
  const silent = nodes.filter((node) => node.state === NodeState.LOST || !node.answered).length;
  const letters = listed.data?.count ?? 0;
  const found = fleet.data?.fleet ? problems(fleet.data.fleet, []).length : 0;
  return {
    ...(found > 0 ? { problems: { text: String(found), of: found === 1 ? "problem that needs an operator" : "problems that need an operator" } } : {}),
    ...(views.size > 0 ? { failing: { text: String(views.size), of: "failed views of all tenants" } } : {}),
    ...(letters > 0 ? { letters: { text: listed.data?.more ? `${letters}+` : String(letters), of: `dead letters of ${tenant}` } } : {}),
    ...(silent > 0 ? { silent: { text: String(silent), of: "nodes that do not answer" } } : {}),
  };
}

import { useQuery } from "@connectrpc/connect-query";
import { FleetService, NodeState } from "../gen/control/v1/fleet_pb";
import { RunnerAdmin } from "../gen/runner/admin/v1/admin_pb";
import { problems } from "../overview/problems";
import { useRefusal } from "./session";

/** What stands beside a screen's name: a number that was counted, as text, and what it counts. */
export interface Count {
  text: string;
  of: string;
}

/** The largest page of dead letters: more are shown as "500+". */
const most = 500;

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
  const listed = useQuery(RunnerAdmin.method.listDeadLetters, { tenantId: tenant, pageSize: most }, { enabled: noWork === "" && tenant !== "", refetchInterval: 10_000, retry: false });
  const nodes = fleet.data?.fleet?.nodes ?? [];
  const views = new Set(nodes.flatMap((node) => node.failingViews.map((view) => `${view.tenantId}/${view.view}`)));
  const silent = nodes.filter((node) => node.state === NodeState.LOST || !node.answered).length;
  const letters = listed.data?.letters.length ?? 0;
  const found = fleet.data?.fleet ? problems(fleet.data.fleet, []).length : 0;
  return {
    ...(found > 0 ? { problems: { text: String(found), of: found === 1 ? "problem that needs an operator" : "problems that need an operator" } } : {}),
    ...(views.size > 0 ? { failing: { text: String(views.size), of: "failed views of all tenants" } } : {}),
    ...(letters > 0 ? { letters: { text: listed.data?.nextPageToken ? `${letters}+` : String(letters), of: `dead letters of ${tenant}` } } : {}),
    ...(silent > 0 ? { silent: { text: String(silent), of: "nodes that do not answer" } } : {}),
  };
}

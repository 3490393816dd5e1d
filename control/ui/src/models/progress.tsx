import { timestampMs, type Timestamp } from "@bufbuild/protobuf/wkt";
import { callUnaryMethod, useQuery, useTransport } from "@connectrpc/connect-query";
import { useQueries } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { FleetService } from "../gen/control/v1/fleet_pb";
import { QueryService } from "../gen/projection/gateway/v1/query_pb";
import { useSecondsSince } from "../app/pulse";
import { Card } from "../parts/card";
import { Badge } from "../parts/state";
import { useTenants } from "../parts/tenant";

/** Tenants whose views are asked for, and how long after a change. */
const most = 100;
const watched = 3600;

/** Which nodes use the applied model, and how far the rebuild of each tenant's views is. */
export function Progress({ applied }: { applied: Timestamp | undefined }) {
  const transport = useTransport();
  const fleet = useQuery(FleetService.method.getFleet, {}, { refetchInterval: 3_000 });
  const tenants = useTenants();
  const age = useSecondsSince(applied ? timestampMs(applied) : 0);
  const nodes = (fleet.data?.fleet?.nodes ?? []).filter((node) => node.modelRevision !== "");
  const behind = nodes.filter((node) => node.modelPending !== "" || node.modelProblem !== "");
  const isRecent = age < watched;
  const views = useQueries({
    queries: (isRecent ? tenants.slice(0, most) : []).map((tenant) => ({
      queryKey: ["views of a rebuild", tenant],
      queryFn: ({ signal }: { signal: AbortSignal }) => callUnaryMethod(transport, QueryService.method.listViews, { tenantId: tenant }, { signal }),
      refetchInterval: (query: { state: { data: { generations: { shown: boolean }[] } | undefined } }) => (query.state.data?.generations.some((one) => !one.shown) ? 1_000 : age < 30 ? 2_000 : 15_000),
    })),
  });
  const rebuilds = views.map((view, n) => ({ tenant: tenants[n] ?? "", building: view.data?.generations.find((one) => !one.shown), loaded: view.data !== undefined }));
  const building = rebuilds.filter((one) => one.building);
  if (!isRecent && behind.length === 0) return null;
  return (
    <Card title="Rollout">
      <p className="flex flex-wrap items-center gap-2">
        {behind.length === 0 ? <Badge tone="ok">all {nodes.length} nodes</Badge> : <Badge tone="warn">{nodes.length - behind.length} of {nodes.length} nodes</Badge>} use the applied model.
      </p>
      {behind.length > 0 ? (
        <ul>
          {behind.map((node) => (
            <li key={node.id}>
              <Link to="/fleet" search={{ open: node.id }}>
                {node.id}
              </Link>{" "}
              uses {node.modelRevision}: {node.modelProblem || "its views are being built"}
            </li>
          ))}
        </ul>
      ) : null}
      {isRecent ? (
        building.length === 0 ? (
          <p className="text-muted">{rebuilds.every((one) => one.loaded) ? `The views of ${rebuilds.length === 1 ? "the tenant" : `all ${rebuilds.length} tenants`} are built.` : "The tenants' views are being asked for."}</p>
        ) : (
          <ul className="flex flex-col gap-2" aria-label="Rebuild of the tenants' views">
            {building.map(({ tenant, building: generation }) => (
              <li key={tenant}>
                <label className="flex items-center gap-3">
                  <span className="w-40 truncate">{tenant}</span>
                  <progress className="flex-1" max={100} value={generation?.percent ?? 0} />
                  <span className={`w-28 text-right ${generation?.failing ? "text-bad" : "text-muted"}`}>{generation?.failing ? "does not advance" : `${generation?.percent ?? 0} %`}</span>
                </label>
              </li>
            ))}
          </ul>
        )
      ) : null}
      {tenants.length > most ? <p className="text-muted">These are the first {most} of {tenants.length} tenants.</p> : null}
    </Card>
  );
}

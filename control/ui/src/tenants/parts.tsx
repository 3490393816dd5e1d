import { useMutation, useQuery } from "@connectrpc/connect-query";
import { Link } from "@tanstack/react-router";
import { AuditService } from "../gen/control/v1/audit_pb";
import { FleetService } from "../gen/control/v1/fleet_pb";
import { PlacementService } from "../gen/control/v1/placement_pb";
import { RunnerAdmin } from "../gen/runner/admin/v1/admin_pb";
import { number } from "../app/format";
import { useRefusal } from "../app/session";
import { Button } from "../parts/action";
import { Answered, Badge, Problem } from "../parts/state";
import { Time } from "../parts/time";

/** Which nodes serve a tenant. */
export function Placements({ tenant }: { tenant: string }) {
  const placements = useQuery(PlacementService.method.listPlacements, {}, { refetchInterval: 5_000 });
  const fleet = useQuery(FleetService.method.getFleet, {}, { refetchInterval: 5_000 });
  const all = fleet.data?.fleet?.nodes ?? [];
  const open = all.flatMap((node) => node.openBreakers);
  return (
    <section className="flex flex-col gap-1">
      <h3>Placement</h3>
      <Answered of={placements}>
        {(data) => (
          <ul className="flex flex-col gap-1">
            {["aggregate", "projection", "runner"].map((kind) => {
              const placed = data.placements.find((placement) => placement.kind === kind && placement.tenantId === tenant && placement.node !== "");
              return (
                <li key={kind}>
                  <span className="text-muted">{kind}:</span> {placed ? `placed on ${placed.node}` : "any node"}
                  {placed?.move ? " (moving)" : ""}
                  <ul className="ml-4">
                    {all
                      .filter((node) => node.kind === kind && node.tenants.includes(tenant))
                      .map((node) => (
                        <li key={node.id}>
                          <Link to="/fleet" search={{ open: node.id }}>
                            {node.id}
                          </Link>
                          {node.lag === undefined ? "" : `, lag ${number(node.lag)} events`} {open.includes(node.endpoint) ? <Badge tone="bad">breaker open</Badge> : null}
                        </li>
                      ))}
                  </ul>
                </li>
              );
            })}
          </ul>
        )}
      </Answered>
      <Link to="/moves" search={{ tenant }}>
        Move the tenant…
      </Link>
    </section>
  );
}

/** What a tenant's runner does, paused and resumed here. */
export function Work({ tenant }: { tenant: string }) {
  const refusal = useRefusal("runner.admin");
  const fleet = useQuery(FleetService.method.getFleet, {});
  const runner = fleet.data?.fleet?.nodes.find((node) => node.kind === "runner" && node.tenants.includes(tenant))?.id ?? "";
  const status = useQuery(RunnerAdmin.method.status, { node: runner }, { enabled: refusal === "" && runner !== "", refetchInterval: 3_000 });
  const pause = useMutation(RunnerAdmin.method.pauseTenant, { onSuccess: () => void status.refetch() });
  const resume = useMutation(RunnerAdmin.method.resumeTenant, { onSuccess: () => void status.refetch() });
  const now = status.data?.status?.tenants.find((one) => one.tenantId === tenant);
  const error = pause.error ?? resume.error ?? status.error;
  return (
    <section className="flex flex-col gap-2" aria-label="Workflows">
      <h3>Workflows</h3>
      {refusal ? <p className="text-muted">Not shown: {refusal}.</p> : null}
      {refusal === "" && runner === "" && fleet.data ? <p className="text-muted">No runner serves the tenant.</p> : null}
      {now ? (
        <p>
          {now.paused ? <Badge tone="warn">paused</Badge> : <Badge tone="ok">running</Badge>} on {runner}: {number(now.inFlight)} in progress, {number(now.pending)} events waiting, {number(now.ackPending)} delivered
        </p>
      ) : null}
      <div className="flex items-center gap-2">
        {now?.paused ? (
          <Button refusal={refusal} onClick={() => resume.mutate({ tenantId: tenant, node: runner })}>
            Resume workflows
          </Button>
        ) : (
          <Button refusal={refusal} disabled={!now} onClick={() => pause.mutate({ tenantId: tenant, node: runner })}>
            Pause workflows
          </Button>
        )}
        <Link to="/workflows" search={{ tenant }}>
          Instances
        </Link>
      </div>
      {error ? <Problem error={error} /> : null}
    </section>
  );
}

/** The last calls of a tenant that were denied. */
export function Denials({ tenant }: { tenant: string }) {
  const refusal = useRefusal("audit.read");
  const denials = useQuery(AuditService.method.queryAudit, { tenantId: tenant, decision: "denied", pageSize: 5 }, { enabled: refusal === "", refetchInterval: 10_000 });
  return (
    <section className="flex flex-col gap-1">
      <h3>Latest denials</h3>
      {refusal ? (
        <p className="text-muted">Not shown: {refusal}.</p>
      ) : (
        <Answered of={denials}>
          {(data) =>
            data.records.length === 0 ? (
              <p className="text-muted">No call was denied.</p>
            ) : (
              <ul className="flex flex-col gap-1">
                {data.records.map((record) => (
                  <li key={record.requestId + record.procedure}>
                    <span className="text-muted">
                      <Time of={record.time} />
                    </span>{" "}
                    {record.principal} {record.procedure.split("/").at(-1)}: {record.reason}
                  </li>
                ))}
              </ul>
            )
          }
        </Answered>
      )}
      <Link to="/audit" search={{ of: tenant, decision: "denied" }}>
        All denials of {tenant}
      </Link>
    </section>
  );
}

import { useMutation, useQuery } from "@connectrpc/connect-query";
import { Link } from "@tanstack/react-router";
import { AuditService } from "../gen/control/v1/audit_pb";
import { FleetService } from "../gen/control/v1/fleet_pb";
import { PlacementService } from "../gen/control/v1/placement_pb";
import type { Tenant } from "../gen/control/v1/tenant_pb";
import { QueryService, ViewState, type View } from "../gen/projection/gateway/v1/query_pb";
import { RunnerAdmin, WorkflowState } from "../gen/runner/admin/v1/admin_pb";
import { bytes, number, since, unknown } from "../app/format";
import { useRefusal } from "../app/session";
import { causes } from "../letters/causes";
import { Button } from "../parts/action";
import { Card, Stat, Stats } from "../parts/card";
import { Answered, Badge, Problem } from "../parts/state";
import { Time } from "../parts/time";
import { useStateCounts } from "../workflows/counts";
import { states, stateName } from "../workflows/states";
import { failedViews } from "./tenants";

/** The largest page of dead letters. */
const most = 500;

function useLetters(tenant: string) {
  const refusal = useRefusal("workflow.read", "tenant");
  const listed = useQuery(RunnerAdmin.method.listDeadLetters, { tenantId: tenant, pageSize: most }, { enabled: refusal === "", refetchInterval: 10_000, retry: false });
  return { refusal, listed };
}

function useFleet() {
  return useQuery(FleetService.method.getFleet, {}, { refetchInterval: 5_000 });
}

/** Whether something of the tenant needs an operator, in numbers. */
export function Numbers({ tenant }: { tenant: Tenant }) {
  const id = tenant.tenantId;
  const counts = useStateCounts(id).data;
  const { listed } = useLetters(id);
  const nodes = useFleet().data?.fleet?.nodes;
  const failed = nodes ? failedViews(nodes, id) : undefined;
  const waiting = (counts?.of.get(WorkflowState.STUCK) ?? 0) + (counts?.of.get(WorkflowState.FAILED) ?? 0);
  const letters = listed.data?.letters.length;
  const use = tenant.storageUse;
  return (
    <Stats label={`Numbers of ${id}`}>
      <Stat name="Events" value={number(use?.events)} note={use ? `${bytes(use.bytes)} stored` : "none stored"} />
      <Stat name="Aggregates" value={number(use?.aggregates)} note="with events" />
      <Stat name="Failed views" value={number(failed?.length)} tone={failed?.length ? "bad" : "plain"} note={failed?.length ? failed.join(", ") : "at any node"} />
      <Stat name="Stuck or failed" value={counts ? number(waiting) : unknown} tone={waiting > 0 ? "bad" : "plain"} note={counts ? `of ${number(counts.counted)}${counts.complete ? "" : "+"} instances` : "workflow instances"} />
      <Stat name="Dead letters" value={letters === undefined ? unknown : `${number(letters)}${listed.data?.nextPageToken ? "+" : ""}`} tone={letters ? "bad" : "plain"} note={letters ? `oldest ${since(listed.data?.letters[0]?.time)} ago` : "work given up"} />
      <Stat name="Nodes" value={number(tenant.nodes.length)} tone={tenant.nodes.length === 0 ? "warn" : "plain"} note="serve it" />
    </Stats>
  );
}

/** The tenant's views: whether each can be read, and how far each build of them has come. */
export function Views({ tenant }: { tenant: string }) {
  const refusal = useRefusal("query.read", "tenant");
  const views = useQuery(QueryService.method.listViews, { tenantId: tenant }, { enabled: refusal === "", refetchInterval: 5_000 });
  const fleet = useFleet();
  const nodes = (fleet.data?.fleet?.nodes ?? []).filter((node) => node.kind === "projection" && node.tenants.includes(tenant));
  return (
    <Card title="Views" more={<Link to="/views">Rows</Link>}>
      {refusal ? (
        <p className="text-muted">Not shown: {refusal}.</p>
      ) : (
        <Answered of={views}>
          {(data) => (
            <>
              {data.views.length === 0 ? <p className="text-muted">The model has no view.</p> : null}
              <ul className="divide-border divide-y">
                {data.views.map((view) => (
                  <li key={view.name} className="flex items-center gap-2 py-1.5">
                    <Link to="/views" search={{ view: view.name }} className="min-w-0 flex-1 truncate">
                      {view.name}
                    </Link>
                    {view.skipped > 0 ? <span className="text-warn text-sm">{view.skipped} skipped</span> : null}
                    <ViewBadge view={view} />
                  </li>
                ))}
              </ul>
              {data.generations
                .filter((generation) => !generation.shown || generation.percent < 100)
                .map((generation) => (
                  <label key={generation.model} className="flex flex-col gap-1">
                    <span className={generation.failing ? "text-bad" : "text-muted"}>
                      {generation.shown ? "Catching up" : "Being built"} for model <code>{generation.model}</code>: {generation.percent} %{generation.failing ? ", does not advance" : ""}
                    </span>
                    <progress className="w-full" max={100} value={generation.percent} />
                  </label>
                ))}
            </>
          )}
        </Answered>
      )}
      {nodes.map((node) => (
        <p key={node.id} className="text-muted text-sm">
          <Link to="/fleet" search={{ open: node.id }}>
            {node.id}
          </Link>
          {node.lag === undefined ? " reports no lag" : ` has not applied ${number(node.lag)} events of its ${node.tenants.length === 1 ? "tenant" : `${node.tenants.length} tenants`}`}
        </p>
      ))}
    </Card>
  );
}

function ViewBadge({ view }: { view: View }) {
  switch (view.state) {
    case ViewState.CURRENT:
      return <Badge tone="ok">current</Badge>;
    case ViewState.BUILDING:
      return <Badge tone="warn">being built</Badge>;
    case ViewState.FAILED:
      return <Badge tone="bad">failed</Badge>;
    default:
      return <Badge tone="muted">unknown</Badge>;
  }
}

/** Which nodes serve the tenant. */
export function Placements({ tenant }: { tenant: string }) {
  const placements = useQuery(PlacementService.method.listPlacements, {}, { refetchInterval: 5_000 });
  const all = useFleet().data?.fleet?.nodes ?? [];
  const open = all.flatMap((node) => node.openBreakers);
  return (
    <Card
      title="Placement"
      more={
        <Link to="/moves" search={{ tenant }}>
          Move the tenant…
        </Link>
      }
    >
      <Answered of={placements}>
        {(data) => (
          <ul className="grid gap-3 sm:grid-cols-3">
            {["aggregate", "projection", "runner"].map((kind) => {
              const placed = data.placements.find((placement) => placement.kind === kind && placement.tenantId === tenant && placement.node !== "");
              const serving = all.filter((node) => node.kind === kind && node.tenants.includes(tenant));
              return (
                <li key={kind} className="bg-raised flex min-w-0 flex-col gap-1 rounded-md p-3">
                  <span className="font-semibold">{kind}</span>
                  <span className="text-muted text-sm">
                    {placed ? `placed on ${placed.node}` : "any node"}
                    {placed?.move ? ", moving" : ""}
                  </span>
                  {serving.length === 0 ? <span className="text-warn">no node serves it</span> : null}
                  {serving.map((node) => (
                    <span key={node.id} className="min-w-0 truncate">
                      <Link to="/fleet" search={{ open: node.id }}>
                        {node.id}
                      </Link>{" "}
                      {open.some((breaker) => breaker === node.endpoint || breaker.startsWith(`${node.endpoint} `)) ? <Badge tone="bad">breaker open</Badge> : null}
                    </span>
                  ))}
                </li>
              );
            })}
          </ul>
        )}
      </Answered>
    </Card>
  );
}

/** The tenant's workflows by state, paused and resumed here. */
export function Work({ tenant }: { tenant: string }) {
  const refusal = useRefusal("runner.admin");
  const counts = useStateCounts(tenant);
  const fleet = useFleet();
  const runner = fleet.data?.fleet?.nodes.find((node) => node.kind === "runner" && node.tenants.includes(tenant))?.id ?? "";
  const status = useQuery(RunnerAdmin.method.status, { node: runner }, { enabled: refusal === "" && runner !== "", refetchInterval: 3_000 });
  const pause = useMutation(RunnerAdmin.method.pauseTenant, { onSuccess: () => void status.refetch() });
  const resume = useMutation(RunnerAdmin.method.resumeTenant, { onSuccess: () => void status.refetch() });
  const now = status.data?.status?.tenants.find((one) => one.tenantId === tenant);
  const error = pause.error ?? resume.error ?? status.error;
  return (
    <Card
      title="Workflows"
      more={
        <Link to="/workflows" search={{ tenant }}>
          Instances
        </Link>
      }
    >
      <Answered of={counts}>
        {(data) =>
          data.counted === 0 ? (
            <p className="text-muted">No workflow has run.</p>
          ) : (
            <ul className="flex flex-wrap gap-x-4 gap-y-1">
              {states
                .filter((state) => (data.of.get(state) ?? 0) > 0)
                .map((state) => (
                  <li key={state}>
                    <Link to="/workflows" search={{ state: String(state) }} className="inline-block py-1">
                      {number(data.of.get(state))} {stateName(state)}
                    </Link>
                  </li>
                ))}
              {data.complete ? null : <li className="text-muted">of the {number(data.counted)} that changed last</li>}
            </ul>
          )
        }
      </Answered>
      {refusal ? <p className="text-muted">The runner's state is not shown: {refusal}.</p> : null}
      {refusal === "" && runner === "" && fleet.data ? <p className="text-muted">No runner serves the tenant.</p> : null}
      {now ? (
        <p className="flex flex-wrap items-center gap-2">
          {now.paused ? <Badge tone="warn">paused</Badge> : <Badge tone="ok">running</Badge>}
          <span className="text-muted">
            on {runner}: {number(now.inFlight)} in progress, {number(now.pending)} events waiting, {number(now.ackPending)} delivered
          </span>
        </p>
      ) : null}
      <div>
        {now?.paused ? (
          <Button refusal={refusal} disabled={resume.isPending} onClick={() => resume.mutate({ tenantId: tenant, node: runner })}>
            Resume workflows
          </Button>
        ) : (
          <Button refusal={refusal} disabled={!now || pause.isPending} onClick={() => pause.mutate({ tenantId: tenant, node: runner })}>
            Pause workflows
          </Button>
        )}
      </div>
      {error ? <Problem error={error} /> : null}
    </Card>
  );
}

/** The tenant's dead letters by cause. */
export function Letters({ tenant }: { tenant: string }) {
  const { refusal, listed } = useLetters(tenant);
  return (
    <Card title="Dead letters" more={<Link to="/dead-letters">All letters</Link>}>
      {refusal ? (
        <p className="text-muted">Not shown: {refusal}.</p>
      ) : (
        <Answered of={listed}>
          {(data) =>
            data.letters.length === 0 ? (
              <p className="text-muted">All work could be done.</p>
            ) : (
              <ul className="flex flex-col gap-1">
                {causes(data.letters)
                  .slice(0, 5)
                  .map((cause) => (
                    <li key={cause.name} className="flex items-baseline gap-2">
                      <span className="text-bad w-10 text-right font-semibold">{number(cause.letters.length)}</span>
                      <Link to="/dead-letters" search={{ cause: cause.name }} className="min-w-0 flex-1 break-words">
                        {cause.text || "no cause was recorded"}
                      </Link>
                    </li>
                  ))}
              </ul>
            )
          }
        </Answered>
      )}
    </Card>
  );
}

/** The last calls of a tenant that were denied. */
export function Denials({ tenant }: { tenant: string }) {
  const refusal = useRefusal("audit.read");
  const denials = useQuery(AuditService.method.queryAudit, { tenantId: tenant, decision: "denied", pageSize: 8 }, { enabled: refusal === "", refetchInterval: 10_000 });
  return (
    <Card
      title="Latest denials"
      wide
      more={
        <Link to="/audit" search={{ of: tenant, decision: "denied" }}>
          All denials of {tenant}
        </Link>
      }
    >
      {refusal ? (
        <p className="text-muted">Not shown: {refusal}.</p>
      ) : (
        <Answered of={denials}>
          {(data) =>
            data.records.length === 0 ? (
              <p className="text-muted">No call was denied.</p>
            ) : (
              <ul className="divide-border divide-y">
                {data.records.map((record) => (
                  <li key={record.requestId + record.procedure} className="flex flex-wrap items-baseline gap-x-3 py-1">
                    <span className="text-muted text-sm whitespace-nowrap">
                      <Time of={record.time} />
                    </span>
                    <span>{record.principal || "unauthenticated"}</span>
                    <span className="font-semibold">{record.procedure.split("/").at(-1)}</span>
                    <span className="text-muted min-w-0 flex-1 break-words">{record.reason}</span>
                    <Link to="/timeline" search={{ tenant, id: record.correlationId }}>
                      Timeline
                    </Link>
                  </li>
                ))}
              </ul>
            )
          }
        </Answered>
      )}
    </Card>
  );
}

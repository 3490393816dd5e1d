import { useState } from "react";
import { useQuery } from "@connectrpc/connect-query";
import { Link } from "@tanstack/react-router";
import { FleetService, NodeState, type Fleet as FleetMessage, type Node } from "../gen/control/v1/fleet_pb";
import { bytes, ms, number, since, unknown } from "../app/format";
import { useUrl } from "../app/url";
import { useWatch } from "../app/watch";
import { Badge, Empty, Problem } from "../parts/state";
import { FilterBox, matches, Table } from "../parts/table";
import { Choice } from "../parts/field";
import { Chart } from "./chart";

export function Fleet() {
  // The first picture is asked for; the stream tells what changes.
  const first = useQuery(FleetService.method.getFleet, {});
  const [history, setHistory] = useState<FleetMessage[]>([]);
  const watched = useWatch(FleetService.method.watchFleet, {}, {
    take: ({ fleet }) => {
      if (fleet) setHistory((before) => [...before.slice(-299), fleet]);
    },
  });
  const fleet = watched.last?.fleet ?? first.data?.fleet;
  const error = watched.error ?? (fleet ? undefined : first.error);
  return (
    <div className="flex flex-col gap-4">
      <h1>Fleet</h1>
      {error ? <Problem error={error} /> : null}
      {fleet ? <Nodes fleet={fleet} /> : error ? null : <p role="status">Loading…</p>}
      <Chart history={history} />
    </div>
  );
}

function Nodes({ fleet }: { fleet: FleetMessage }) {
  const [get, set] = useUrl();
  const filter = get("q");
  const kind = get("kind");
  const kinds = [...new Set(fleet.nodes.map((node) => node.kind))];
  const shown = fleet.nodes.filter((node) => (kind === "" || node.kind === kind) && matches(filter, node.id, node.endpoint, ...node.tenants));
  const ready = fleet.nodes.filter((node) => node.state === NodeState.READY).length;
  return (
    <>
      {fleet.outage ? (
        <p role="status">
          <Badge tone="warn">{fleet.outage}</Badge> <span className="text-muted">Announcements are from {since(fleet.asOf)} ago. Whether nodes answer is current.</span>
        </p>
      ) : null}
      <div className="flex flex-wrap items-end gap-4">
        <p>
          <strong>{ready}</strong> of <strong>{fleet.nodes.length}</strong> nodes take calls
        </p>
        <p>{fleet.silent > 0 ? <Badge tone="bad">{fleet.silent} did not answer</Badge> : <Badge tone="ok">all answered</Badge>}</p>
        <p className="text-muted">asked {number(fleet.ageMs)} ms before this was told</p>
        <span className="grow" />
        <Choice label="Kind" value={kind} options={[["", "all"], ...kinds.map((name): [string, string] => [name, name])]} onChange={(next) => set({ kind: next })} />
        <FilterBox value={filter} onChange={(next) => set({ q: next })} />
      </div>
      <Table
        label="Nodes"
        rows={shown}
        id={(node) => node.id}
        empty={fleet.nodes.length === 0 ? "No node has announced itself." : "No node fits the filter."}
        columns={[
          { name: "Node", cell: (node) => <span title={`${node.endpoint}, version ${node.version || unknown}`}>{node.id}</span> },
          { name: "Kind", cell: (node) => node.kind },
          { name: "State", cell: (node) => <State node={node} /> },
          { name: "Calls/s", number: true, cell: (node) => number(node.load?.callsPerSecond, 1) },
          { name: "Errors/s", number: true, cell: (node) => <span className={node.load && node.load.errorsPerSecond > 0 ? "text-bad" : ""}>{number(node.load?.errorsPerSecond, 1)}</span> },
          { name: "p50", number: true, cell: (node) => ms(node.load?.p50Ms) },
          { name: "p95", number: true, cell: (node) => ms(node.load?.p95Ms) },
          { name: "p99", number: true, cell: (node) => ms(node.load?.p99Ms) },
          { name: "In flight", number: true, cell: (node) => number(node.load?.inFlight) },
          { name: "Lag", number: true, cell: (node) => number(node.lag) },
          { name: "Memory", number: true, cell: (node) => bytes(node.load?.memoryBytes) },
          { name: "Tenants", number: true, cell: (node) => (node.tenants.length > 0 ? <span title={node.tenants.join(", ")}>{node.tenants.length}</span> : unknown) },
          { name: "Up", number: true, cell: (node) => (node.state === NodeState.LOST ? unknown : since(node.started)) },
        ]}
      />
      {fleet.nodes.some((node) => node.failingViewCount > 0) ? (
        <section className="panel" aria-label="Failing views">
          <h2>Views that cannot apply an event</h2>
          <ul>
            {fleet.nodes.flatMap((node) => [
              ...node.failingViews.map((view) => (
                <li key={node.id + view.tenantId + view.view}>
                  <Link to="/views" search={{ tenant: view.tenantId, view: view.view }}>
                    {view.tenantId}/{view.view}
                  </Link>
                  , at {node.id}: {view.eventType} of {view.aggregate}: {view.reason}
                </li>
              )),
              ...(node.failingViewCount > node.failingViews.length ? [<li key={node.id}>{node.failingViewCount - node.failingViews.length} more at {node.id}</li>] : []),
            ])}
          </ul>
        </section>
      ) : null}
      {fleet.nodes.some((node) => node.openBreakers.length > 0) ? (
        <section className="panel" aria-label="Open breakers">
          <h2>Diverted by breakers</h2>
          <ul>
            {fleet.nodes.flatMap((node) =>
              node.openBreakers.map((endpoint) => (
                <li key={node.id + endpoint}>
                  {endpoint}, by {node.id}
                </li>
              )),
            )}
          </ul>
        </section>
      ) : null}
      {fleet.nodes.length === 0 ? <Empty>Nodes announce themselves within a second of their start.</Empty> : null}
    </>
  );
}

function State({ node }: { node: Node }) {
  if (node.state === NodeState.LOST)
    return (
      <>
        <Badge tone="bad">lost</Badge> <span className="text-muted">announced {since(node.lastAnnounced)} ago</span>
      </>
    );
  if (!node.answered)
    return (
      <>
        <Badge tone="bad">silent</Badge> <span className="text-muted">{node.error}</span>
      </>
    );
  if (node.lastAnnounced)
    return (
      <>
        <Badge tone="warn">no announcements</Badge>{" "}
        <span className="text-muted">
          answers{node.state === NodeState.NOT_READY ? ", and takes no calls" : ""}; its last announcement arrived {since(node.lastAnnounced)} ago
        </span>
      </>
    );
  if (node.state === NodeState.READY && node.degraded.length > 0)
    return (
      <>
        <Badge tone="warn">ready, degraded</Badge> <span className="text-muted">{node.degraded.join(", ")}</span>
      </>
    );
  if (node.state === NodeState.READY) return <Badge tone="ok">ready</Badge>;
  return (
    <>
      <Badge tone="warn">takes no calls</Badge> <span className="text-muted">{node.reason}</span>
    </>
  );
}

import { timestampMs } from "@bufbuild/protobuf/wkt";
import { useQuery } from "@connectrpc/connect-query";
import { Link } from "@tanstack/react-router";
import { Suspense } from "react";
import { FleetService, NodeState, type Fleet as FleetMessage } from "../gen/control/v1/fleet_pb";
import { bytes, duration, ms, number, since, unknown } from "../app/format";
import { silence, useSecondsSince } from "../app/pulse";
import { useUrl } from "../app/url";
import { Choice, FilterBox, matches } from "../parts/field";
import { later } from "../parts/later";
import { Page } from "../parts/page";
import { Answered, Badge, Empty, LastUpdate, Notice } from "../parts/state";
import { Table } from "../parts/table";
import { useHistory } from "./history";
import { NodeDetail, NoNode } from "./node";
import { State, stateOf } from "./state";

const Chart = later(() => import("./chart"));

export function Fleet() {
  // Asked again rather than watched: a stream that hangs has no error, and takes a connection in every tab.
  const fleet = useQuery(FleetService.method.getFleet, {}, { refetchInterval: 2_000 });
  const [get, set] = useUrl();
  const history = useHistory(fleet.data?.fleet);
  const chosen = fleet.data?.fleet?.nodes.find((node) => node.id === get("open"));
  return (
    <Page
      title="Fleet"
      summary={fleet.data?.fleet ? <Summary fleet={fleet.data.fleet} at={fleet.dataUpdatedAt} /> : null}
      actions={<Filters fleet={fleet.data?.fleet} />}
      detail={chosen && fleet.data?.fleet ? <NodeDetail node={chosen} fleet={fleet.data.fleet} history={history} onClose={() => set({ open: "" })} /> : fleet.data && get("open") !== "" ? <NoNode id={get("open")} onClose={() => set({ open: "" })} /> : null}
    >
      <Answered of={fleet}>{(data) => (data.fleet ? <Nodes fleet={data.fleet} at={fleet.dataUpdatedAt} /> : <Empty title="Control knows no fleet." />)}</Answered>
      <Suspense>
        <Chart history={history} />
      </Suspense>
    </Page>
  );
}

/** What is wrong, in a sentence, which states the age of old data by the browser's clock. */
function Summary({ fleet, at }: { fleet: FleetMessage; at: number }) {
  const asked = at - Number(fleet.ageMs);
  const seconds = useSecondsSince(asked);
  const ready = fleet.nodes.filter((node) => node.state === NodeState.READY).length;
  const old = seconds * 1000 > silence;
  return (
    <span className="flex flex-wrap items-center gap-2">
      {fleet.silent > 0 ? <Badge tone="bad">{fleet.silent} did not answer</Badge> : old ? <Badge tone="muted">all answered {duration(seconds * 1000)} ago</Badge> : <Badge tone="ok">all answered</Badge>}
      <span>
        {ready} of {fleet.nodes.length} nodes are ready, as of {seconds < 1 ? "now" : `${duration(seconds * 1000)} ago`}
      </span>
    </span>
  );
}

function Filters({ fleet }: { fleet: FleetMessage | undefined }) {
  const [get, set] = useUrl();
  const kinds = [...new Set(fleet?.nodes.map((node) => node.kind))];
  return (
    <div className="flex flex-wrap items-end gap-2">
      <Choice label="Kind" value={get("kind")} options={[["", "all"], ...kinds.map((name): [string, string] => [name, name])]} onChange={(next) => set({ kind: next })} />
      <FilterBox />
    </div>
  );
}

function Nodes({ fleet, at }: { fleet: FleetMessage; at: number }) {
  const [get, set] = useUrl();
  const kind = get("kind");
  const shown = fleet.nodes.filter((node) => (kind === "" || node.kind === kind) && matches(get("q"), node.id, node.endpoint, ...node.tenants));
  const old = useSecondsSince(at) * 1000 > silence;
  const failing = fleet.nodes.filter((node) => node.failingViewCount > 0);
  const diverting = fleet.nodes.filter((node) => node.openBreakers.length > 0);
  return (
    <>
      {old ? <LastUpdate at={at} /> : null}
      {fleet.outage ? (
        <Notice tone="warn">
          {fleet.outage}. Announcements are from {since(fleet.asOf)} ago. Whether nodes answer is current.
        </Notice>
      ) : null}
      {failing.map((node) => (
        <Notice key={node.id} tone="bad">
          {node.failingViewCount} {node.failingViewCount === 1 ? "view" : "views"} at {node.id} cannot apply an event:{" "}
          {node.failingViews.map((view, n) => (
            <span key={`${view.tenantId}/${view.view}`}>
              {n > 0 ? ", " : ""}
              <Link to="/views" search={{ tenant: view.tenantId, view: view.view }}>
                {view.tenantId}/{view.view}
              </Link>
            </span>
          ))}
          {node.failingViewCount > node.failingViews.length ? ` and ${node.failingViewCount - node.failingViews.length} more` : ""}.
        </Notice>
      ))}
      {diverting.map((node) => (
        <Notice key={node.id} tone="warn">
          {node.id} diverts calls from {node.openBreakers.join(", ")}: the breaker is open.
        </Notice>
      ))}
      <div className={old ? "stale" : ""}>
        <Table
          label="Nodes"
          rows={shown}
          id={(node) => node.id}
          selected={get("open")}
          onSelect={(node) => set({ open: node.id })}
          empty={fleet.nodes.length === 0 ? <Empty title="No node has announced itself.">Nodes announce themselves within a second of their start.</Empty> : <Empty title="No node matches the filter." />}
          columns={[
            { name: "Node", width: 132, value: (node) => node.id },
            { name: "Kind", width: 96, value: (node) => node.kind },
            { name: "State", width: 254, value: (node) => stateOf(node).join(" "), cell: (node) => <State node={node} /> },
            { name: "Calls/s", width: 78, number: true, value: (node) => node.load?.callsPerSecond, cell: (node) => number(node.load?.callsPerSecond, 1) },
            { name: "Errors/s", width: 82, number: true, value: (node) => node.load?.errorsPerSecond, cell: (node) => <span className={node.load && node.load.errorsPerSecond > 0 ? "text-bad" : ""}>{number(node.load?.errorsPerSecond, 1)}</span> },
            { name: "p50", width: 72, number: true, hidden: true, value: (node) => node.load?.p50Ms, cell: (node) => ms(node.load?.p50Ms) },
            { name: "p95", width: 72, number: true, hidden: true, value: (node) => node.load?.p95Ms, cell: (node) => ms(node.load?.p95Ms) },
            { name: "p99", width: 80, number: true, value: (node) => node.load?.p99Ms, cell: (node) => ms(node.load?.p99Ms) },
            { name: "In flight", width: 80, number: true, hidden: true, value: (node) => node.load?.inFlight, cell: (node) => number(node.load?.inFlight) },
            { name: "Lag", width: 62, number: true, value: (node) => node.lag, cell: (node) => number(node.lag) },
            { name: "Memory", width: 84, number: true, value: (node) => node.load?.memoryBytes, cell: (node) => bytes(node.load?.memoryBytes) },
            { name: "Tenants", width: 80, number: true, value: (node) => node.tenants.length, cell: (node) => (node.tenants.length > 0 ? number(node.tenants.length) : unknown) },
            { name: "Up", width: 68, number: true, value: (node) => (node.started ? -timestampMs(node.started) : undefined), cell: (node) => (node.state === NodeState.LOST ? unknown : since(node.started)) },
            { name: "Version", hidden: true, value: (node) => node.version },
            { name: "Endpoint", hidden: true, value: (node) => node.endpoint },
          ]}
        />
      </div>
    </>
  );
}

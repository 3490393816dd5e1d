import { Link } from "@tanstack/react-router";
import type { ReactNode } from "react";
import { NodeState, type Fleet, type Node } from "../gen/control/v1/fleet_pb";
import { bytes, ms, number, since, unknown } from "../app/format";
import { Copy } from "../parts/copy";
import { Drawer, Facts } from "../parts/page";
import { Badge, Notice } from "../parts/state";
import { Spark } from "../parts/spark";
import { Time } from "../parts/time";
import { breakers } from "./breakers";
import { RunnerActions } from "./runner";
import { State } from "./state";

/** A node that the fleet does not list: an address outlives what it names. */
export function NoNode({ id, onClose }: { id: string; onClose: () => void }) {
  return (
    <Drawer title={id} label={`Node ${id}`} badge={<Badge tone="muted">not in the fleet</Badge>} onClose={onClose}>
      <p>
        No node has the name <code>{id}</code> now. A node that is stopped in order deregisters and leaves the list immediately; a lost one stays for a day, or until another of its kind takes its place.
      </p>
      <p>
        <Link to="/audit" search={{ procedure: "Drain" }}>
          Who drained nodes
        </Link>
      </p>
    </Drawer>
  );
}

/** Everything that is known of a node, and what can be done with it. */
export function NodeDetail({ node, fleet, history, onClose }: { node: Node; fleet: Fleet; history: Fleet[]; onClose: () => void }) {
  const others = fleet.nodes.filter((one) => one.kind === node.kind && one.id !== node.id && one.state === NodeState.READY).length;
  return (
    <Drawer title={node.id} label={`Node ${node.id}`} badge={<State node={node} />} onClose={onClose} actions={<Actions node={node} others={others} />}>
      {node.modelProblem ? <Notice tone="bad">It does not use the applied model: {node.modelProblem}</Notice> : null}
      <FailingViews node={node} />
      <Breakers node={node} fleet={fleet} />
      <Load node={node} history={history} />
      <Facts
        of={[
          ["Kind", node.kind],
          ["Endpoint", <span key="e" className="flex items-start gap-1"><code className="break-all">{node.endpoint}</code> <Copy text={node.endpoint} label="Copy the endpoint" /></span>],
          ["Version", <Version key="v" node={node} fleet={fleet} />],
          ["Started", <span key="t"><Time of={node.started} /> <span className="text-muted">({since(node.started)} ago)</span></span>],
          ["Answer took", ms(node.answerMs)],
          ["Model", node.modelRevision && <code key="m" className="break-all">{node.modelRevision}</code>],
          ["Model to come", node.modelPending && <code key="p" className="break-all">{node.modelPending}</code>],
        ]}
      />
      <Part title={`Tenants (${node.tenants.length})`}>
        {node.tenants.length === 0 ? (
          <p className="text-muted">{node.kind === "gateway" || node.kind === "control" ? "Nodes of this kind serve all tenants alike." : "It serves none."}</p>
        ) : (
          <ul className="flex flex-wrap gap-x-3 gap-y-1">
            {node.tenants.map((tenant) => (
              <li key={tenant}>
                <Link to="/tenants/detail" search={{ tenant }}>
                  {tenant}
                </Link>
              </li>
            ))}
          </ul>
        )}
      </Part>
      <p className="flex flex-wrap gap-x-4">
        {node.kind === "runner" ? (
          <Link to="/audit" search={{ procedure: "RunnerAdmin" }}>
            Who drained runners
          </Link>
        ) : null}
        {["aggregate", "projection", "runner"].includes(node.kind) ? (
          <Link to="/moves" search={{ kind: node.kind, target: node.id }}>
            Move a tenant to it…
          </Link>
        ) : null}
      </p>
    </Drawer>
  );
}

/** What an operator can do with a node of its kind. */
function Actions({ node, others }: { node: Node; others: number }) {
  if (node.kind === "runner") return <RunnerActions id={node.id} others={others} />;
  const drains: Record<string, string> = {
    gateway: "A gateway drains when it is stopped: it answers /ready with 503, and the calls in flight end.",
    aggregate: "An aggregate node drains when it is stopped: it deregisters, and the commands in flight end. Move its placed tenants away first.",
    projection: "A projection node drains when it is stopped: it deregisters, and the queries in flight end. Move its placed tenants away first.",
    control: "A control node drains when it is stopped: another one continues its moves.",
  };
  return <p className="text-muted text-sm">{drains[node.kind] ?? "It drains when it is stopped."}</p>;
}

function Part({ title, children }: { title: string; children: ReactNode }) {
  return (
    <section aria-label={title} className="flex flex-col gap-1.5">
      <h3>{title}</h3>
      {children}
    </section>
  );
}

/** The node's load, now and since the screen was opened. */
function Load({ node, history }: { node: Node; history: Fleet[] }) {
  const { load } = node;
  const before = history.map((fleet) => fleet.nodes.find((one) => one.id === node.id));
  if (!load && node.lag === undefined)
    return (
      <Part title="Load">
        <p className="text-muted">The node reports no load.</p>
      </Part>
    );
  const lines: [name: string, now: string, values: (number | undefined)[]][] = [];
  if (load)
    lines.push(
      ["Calls per second", number(load.callsPerSecond, 1), before.map((one) => one?.load?.callsPerSecond)],
      ["Errors per second", number(load.errorsPerSecond, 1), before.map((one) => one?.load?.errorsPerSecond)],
      ["p99", ms(load.p99Ms), before.map((one) => one?.load?.p99Ms)],
      ["Calls in flight", number(load.inFlight), before.map((one) => (one?.load ? Number(one.load.inFlight) : undefined))],
      ["Memory", bytes(load.memoryBytes), before.map((one) => (one?.load ? Number(one.load.memoryBytes) : undefined))],
      ["Goroutines", number(load.goroutines), before.map((one) => (one?.load ? Number(one.load.goroutines) : undefined))],
    );
  if (node.lag !== undefined) lines.push(["Lag, in events", number(node.lag), before.map((one) => (one?.lag === undefined ? undefined : Number(one.lag)))]);
  return (
    <Part title="Load of the last seconds">
      <table className="w-full text-left">
        <thead className="sr-only">
          <tr>
            <th scope="col">Measure</th>
            <th scope="col">Now</th>
            <th scope="col">Since the screen was opened</th>
          </tr>
        </thead>
        <tbody>
          {lines.map(([name, now, values]) => (
            <tr key={name} className="h-7">
              <th scope="row" className="text-muted font-normal">
                {name}
              </th>
              <td className="pr-4 text-right">{now}</td>
              <td className="w-28">
                <Spark label={`${name} since the screen was opened`} values={values} width={112} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {load ? (
        <p className="text-muted text-sm">
          p50 {ms(load.p50Ms)}, p95 {ms(load.p95Ms)}. The lines begin when this screen was opened.
        </p>
      ) : null}
    </Part>
  );
}

/** The breakers that a gateway has open, or that gateways have open for this node. */
function Breakers({ node, fleet }: { node: Node; fleet: Fleet }) {
  const all = breakers(fleet.nodes);
  const found = all.filter((one) => (node.kind === "gateway" ? one.gateway === node.id : one.endpoint === node.endpoint));
  if (node.kind === "control" && found.length === 0) return null;
  return (
    <Part title="Open breakers">
      {found.length === 0 ? (
        <p className="text-muted">{node.kind === "gateway" ? "None: it diverts calls from no node." : "None: no gateway diverts calls from it."}</p>
      ) : (
        <ul className="flex flex-col gap-1">
          {found.map((one) => (
            <li key={`${one.gateway} ${one.endpoint} ${one.method}`} className="flex flex-wrap items-center gap-2">
              <Badge tone="bad">open</Badge>
              <Link to="/fleet" search={{ open: node.kind === "gateway" ? one.node : one.gateway }}>
                {node.kind === "gateway" ? one.node : one.gateway}
              </Link>
              <span className="text-muted">{one.method === "" ? "all methods" : <code className="break-all">{one.method}</code>}</span>
            </li>
          ))}
        </ul>
      )}
    </Part>
  );
}

function Version({ node, fleet }: { node: Node; fleet: Fleet }) {
  const others = [...new Set(fleet.nodes.map((one) => one.version))].filter((version) => version !== "" && version !== node.version);
  return (
    <>
      {node.version || unknown} {others.length > 0 ? <span className="text-warn">(others: {others.join(", ")})</span> : null}
    </>
  );
}

function FailingViews({ node }: { node: Node }) {
  if (node.failingViews.length === 0) return null;
  return (
    <Part title={`Failed views (${node.failingViewCount})`}>
      <ul className="flex flex-col gap-1">
        {node.failingViews.map((view) => (
          <li key={`${view.tenantId}/${view.view}`}>
            <Link to="/views" search={{ tenant: view.tenantId, view: view.view }}>
              {view.tenantId}/{view.view}
            </Link>
            : {view.eventType} of {view.aggregate}: {view.reason}
          </li>
        ))}
      </ul>
    </Part>
  );
}

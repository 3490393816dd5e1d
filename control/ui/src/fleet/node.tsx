import { Link } from "@tanstack/react-router";
import type { Fleet, Node } from "../gen/control/v1/fleet_pb";
import { bytes, ms, number } from "../app/format";
import { Drawer } from "../parts/page";
import { Badge, Notice } from "../parts/state";
import { Spark } from "../parts/spark";
import { Actions } from "./actions";
import { Breakers, Expiry, FailingViews, Identity, NodeLinks, OutOfService, Part, peers, Tenants, useNode } from "./node-parts";
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

/** What is known of a node and what can be done with it, beside the list; the node's page has the rest. */
export function NodeDetail({ node, fleet, history, onClose }: { node: Node; fleet: Fleet; history: Fleet[]; onClose: () => void }) {
  const { data } = useNode(node.id);
  return (
    <Drawer title={node.id} label={`Node ${node.id}`} badge={<State node={node} />} onClose={onClose} actions={<Actions node={node} drain={data?.drain} others={peers(node, fleet)} />}>
      <p>
        <Link to="/fleet/node" search={{ node: node.id }}>
          Load of the last hour, procedures and settings
        </Link>
      </p>
      {node.modelProblem ? <Notice tone="bad">It does not use the applied model: {node.modelProblem}</Notice> : null}
      <FailingViews node={node} />
      <Part title="Open breakers">
        <Breakers node={node} fleet={fleet} />
      </Part>
      <Load node={node} history={history} />
      <Identity
        node={node}
        fleet={fleet}
        more={[
          ["Answer took", ms(node.answerMs)],
          ["Certificate expires", data?.certificate ? <Expiry key="c" of={data.certificate.notAfter} /> : ""],
        ]}
      />
      <Part title={`Tenants (${node.tenants.length})`}>
        <Tenants node={node} />
      </Part>
      {data?.drain ? (
        <Part title="Taking it out of service">
          <OutOfService drain={data.drain} />
        </Part>
      ) : null}
      <NodeLinks node={node} />
    </Drawer>
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

import type { Node, NodeDrain } from "../gen/control/v1/fleet_pb";
import { RunnerActions } from "./runner";
import { Stop } from "./stop";

/** What an operator can do with a node. Runners are drained and resumed from here; for other kinds it is shown how, and what that means. */
export function Actions({ node, drain, others }: { node: Node; drain: NodeDrain | undefined; others: number }) {
  return node.kind === "runner" ? <RunnerActions id={node.id} others={others} placed={drain?.placedTenants ?? []} /> : <Stop node={node} drain={drain} />;
}

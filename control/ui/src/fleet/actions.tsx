import type { Node, NodeDrain } from "../gen/control/v1/fleet_pb";
import { DrainActions } from "./drain";
import { RunnerActions } from "./runner";
import { Stop } from "./stop";

/** What an operator can do with a node: drain and resume it from here, or see how, and what that means, where a call cannot. */
export function Actions({ node, drain, others }: { node: Node; drain: NodeDrain | undefined; others: number }) {
  if (node.kind === "runner") return <RunnerActions id={node.id} others={others} placed={drain?.placedTenants ?? []} />;
  if (drain?.supported && (drain.drained || drain.refusal === "")) return <DrainActions node={node} drain={drain} />;
  return <Stop node={node} drain={drain} />;
}

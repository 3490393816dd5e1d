import { NodeState, type Node } from "../gen/control/v1/fleet_pb";
import { number, since } from "../app/format";
import { Badge } from "../parts/state";

/** A node's state: tone, word, and details. */
export function stateOf(node: Node): ["ok" | "warn" | "bad", string, string] {
  if (node.state === NodeState.LOST) return ["bad", "lost", `last announcement ${since(node.lastAnnounced)} ago`];
  if (!node.answered) return ["bad", "no answer", node.error];
  if (node.lastAnnounced) return ["warn", "no announcements", `answers${node.state === NodeState.NOT_READY ? ", not ready" : ""}; last announcement ${since(node.lastAnnounced)} ago`];
  if (node.state === NodeState.READY && node.degraded.length > 0) return ["warn", "degraded", node.kind === "gateway" ? `no ready ${node.degraded.join(", ")}` : node.degraded.join(", ")];
  if (node.state === NodeState.READY) return ["ok", "ready", ""];
  if (node.drained && node.kind !== "runner") return ["warn", "drained", node.load && node.load.inFlight > 0n ? `${number(node.load.inFlight)} calls in flight, streams included` : "no calls in flight"];
  return ["warn", "not ready", node.reason];
}

export function State({ node }: { node: Node }) {
  const [tone, word, more] = stateOf(node);
  return (
    <>
      <Badge tone={tone}>{word}</Badge> <span className="text-muted">{more}</span>
    </>
  );
}

import { NodeState, type Node } from "../gen/control/v1/fleet_pb";
import type { Placement } from "../gen/control/v1/placement_pb";

/** A move that is worth planning, and why. */
export interface Suggestion {
  tenant: string;
  kind: string;
  source: string;
  target: string;
  why: string;
}

/** The difference in placed tenants from which on one is suggested to move. */
const uneven = 2;

/**
 * Suggests moves: of tenants whose node is not ready, and of one tenant where a node has at least two
 * more placed tenants than another of its kind. Tenants that are moving are left out.
 */
export function suggestions(placements: readonly Placement[], nodes: readonly Node[]): Suggestion[] {
  const out: Suggestion[] = [];
  for (const kind of ["aggregate", "projection", "runner"]) {
    const placed = placements.filter((one) => one.kind === kind && one.node !== "");
    const count = new Map(nodes.filter((node) => node.kind === kind && node.state === NodeState.READY && node.answered).map((node) => [node.id, 0]));
    for (const { node } of placed) if (count.has(node)) count.set(node, (count.get(node) ?? 0) + 1);
    const byCount = () => [...count.entries()].sort(([a, n], [b, m]) => n - m || a.localeCompare(b));
    for (const { tenantId, node, move } of placed) {
      const target = byCount()[0]?.[0];
      if (count.has(node) || move !== "" || target === undefined) continue;
      out.push({ tenant: tenantId, kind, source: node, target, why: `${node} is not ready` });
      count.set(target, (count.get(target) ?? 0) + 1);
    }
    const [least, most] = [byCount()[0], byCount().at(-1)];
    if (!least || !most || most[1] - least[1] < uneven) continue;
    const one = placed.find(({ node, move }) => node === most[0] && move === "");
    if (one) out.push({ tenant: one.tenantId, kind, source: most[0], target: least[0], why: `${most[0]} has ${most[1]} placed tenants, ${least[0]} has ${least[1]}` });
  }
  return out;
}

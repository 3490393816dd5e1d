import type { Node } from "../gen/control/v1/fleet_pb";

/** An open breaker: which gateway diverts calls from which node; of one method only, or of all. */
export interface Breaker {
  gateway: string;
  endpoint: string;
  /** The node's name; its endpoint if no node has it. */
  node: string;
  /** Such as "/service/Method"; "" is all methods. */
  method: string;
}

/** The open breakers of all gateways. */
export function breakers(nodes: readonly Node[]): Breaker[] {
  return nodes.flatMap((gateway) =>
    gateway.openBreakers.map((text) => {
      const [endpoint = "", method = ""] = text.split(" ", 2);
      return { gateway: gateway.id, endpoint, method, node: nodes.find((node) => node.endpoint === endpoint)?.id ?? endpoint };
    }),
  );
}

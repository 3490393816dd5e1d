import type { Fleet } from "../gen/control/v1/fleet_pb";
import type { SeriesPoint } from "../gen/control/v1/metrics_pb";
import { number } from "../app/format";
import { stateOf } from "../fleet/state";
import { began, latest, values } from "./series";

/** Something that needs an operator, and the screen that shows it. */
export interface Problem {
  tone: "bad" | "warn";
  text: string;
  to: "/fleet" | "/views" | "/dead-letters";
  search?: Record<string, string>;
  /** When it began; undefined where the series does not show it. */
  since?: Date | undefined;
}

const plural = (count: number, one: string, many: string) => `${number(count)} ${count === 1 ? one : many}`;

/** What is wrong now, the worst first: nodes, views, calls, breakers, dead letters. */
export function problems(fleet: Fleet, points: readonly SeriesPoint[]): Problem[] {
  const out: Problem[] = [];
  if (fleet.outage) out.push({ tone: "bad", text: fleet.outage, to: "/fleet" });
  const states = fleet.nodes.map((node) => ({ node, state: stateOf(node) }));
  const [lost, ...moreLost] = states.filter(({ state }) => state[0] === "bad");
  if (lost) out.push({ tone: "bad", text: moreLost.length === 0 ? `${lost.node.id}: ${lost.state[1]}` : `${number(moreLost.length + 1)} nodes do not answer`, to: "/fleet", search: { open: lost.node.id } });
  const failing = new Map(fleet.nodes.flatMap((node) => node.failingViews.map((view) => [`${view.tenantId}/${view.view}`, view] as const)));
  const [view] = failing.values();
  if (view) out.push({ tone: "bad", text: `${plural(failing.size, "view", "views")} cannot apply an event: ${view.tenantId}/${view.view}${failing.size > 1 ? " and others" : ""}`, to: "/views", search: { tenant: view.tenantId, view: view.view }, since: began(points, values.failed) });
  const errors = latest(points, values.errors) ?? 0;
  if (errors > 0) out.push({ tone: "bad", text: `${number(errors, 2)} calls per second fail by the platform's fault`, to: "/fleet", since: began(points, values.errors) });
  const [unready, ...moreUnready] = states.filter(({ state }) => state[0] === "warn");
  if (unready) out.push({ tone: "warn", text: moreUnready.length === 0 ? `${unready.node.id} is ${unready.state[1]}${unready.state[2] ? `: ${unready.state[2]}` : ""}` : `${number(moreUnready.length + 1)} nodes are not ready or degraded`, to: "/fleet", search: { open: unready.node.id } });
  const [open, ...moreOpen] = fleet.nodes.filter((node) => node.openBreakers.length > 0);
  if (open) out.push({ tone: "warn", text: `${plural(moreOpen.length + 1, "gateway diverts", "gateways divert")} calls: a breaker is open`, to: "/fleet", search: { open: open.id } });
  const letters = latest(points, values.letters) ?? 0;
  if (letters > 0) out.push({ tone: "warn", text: `${plural(letters, "dead letter waits", "dead letters wait")} for an operator`, to: "/dead-letters", since: began(points, values.letters) });
  return out;
}

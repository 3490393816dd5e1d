import { Box, Boxes, ClipboardList, Container, FileStack, Gauge, Inbox, KeyRound, LayoutList, ListTree, MoveRight, Route, ShieldCheck, SquareTerminal, Users, Workflow, type LucideIcon } from "lucide-react";
import type { WhoAmIResponse } from "../gen/gateway/v1/session_pb";
import { refusal } from "./rights";

type Need = readonly [right: string, scope: "platform" | "tenant"];

export interface Screen {
  to: string;
  name: string;
  icon: LucideIcon;
  /** The rights without which the screen shows nothing. */
  needs: readonly Need[];
  /** Whether one of the rights is enough: the screen shows what each allows. */
  any?: true;
  /** Which number stands beside its name. */
  count?: "problems" | "failing" | "letters" | "silent";
}

const fleet: Need = ["fleet.read", "platform"];

/** The screens in the groups of the navigation. */
export const groups: readonly { name: string; screens: readonly Screen[] }[] = [
  {
    name: "Observe",
    screens: [
      { to: "/overview", name: "Overview", icon: Gauge, needs: [fleet, ["metrics.read", "tenant"]], any: true, count: "problems" },
      { to: "/timeline", name: "Timeline", icon: Route, needs: [["audit.read", "tenant"]] },
      { to: "/audit", name: "Audit", icon: ClipboardList, needs: [["audit.read", "platform"]] },
    ],
  },
  {
    name: "Data",
    screens: [
      { to: "/aggregates", name: "Aggregates", icon: Box, needs: [["aggregate.read", "tenant"], ["events.read", "tenant"]] },
      { to: "/events", name: "Events", icon: ListTree, needs: [["events.read", "tenant"]] },
      { to: "/views", name: "Views", icon: LayoutList, needs: [["query.read", "tenant"]], count: "failing" },
      { to: "/commands", name: "Commands", icon: SquareTerminal, needs: [["command.submit", "tenant"], fleet] },
    ],
  },
  {
    name: "Work",
    screens: [
      { to: "/workflows", name: "Workflows", icon: Workflow, needs: [["workflow.read", "tenant"]] },
      { to: "/dead-letters", name: "Dead letters", icon: Inbox, needs: [["workflow.read", "tenant"]], count: "letters" },
    ],
  },
  {
    name: "Platform",
    screens: [
      { to: "/fleet", name: "Fleet", icon: Boxes, needs: [fleet], count: "silent" },
      { to: "/tenants", name: "Tenants", icon: Users, needs: [fleet] },
      { to: "/moves", name: "Moves", icon: MoveRight, needs: [fleet] },
      { to: "/models", name: "Models", icon: FileStack, needs: [fleet] },
      { to: "/access", name: "Access", icon: ShieldCheck, needs: [] },
      { to: "/credentials", name: "API keys and tokens", icon: KeyRound, needs: [["credential.read", "tenant"]] },
      { to: "/api", name: "API", icon: Container, needs: [] },
    ],
  },
];

export const screens: readonly Screen[] = groups.flatMap((group) => group.screens);

/** Why the principal cannot use a screen; "" when it can. */
export function locked(who: WhoAmIResponse | undefined, screen: Screen): string {
  const refusals = screen.needs.map(([right, scope]) => refusal(who, right, scope));
  if (screen.any && refusals.includes("")) return "";
  return refusals.find((why) => why !== "") ?? "";
}

/** The first screen for a principal: the overview, else the first of what the rights are for. */
export function landing(who: WhoAmIResponse): string {
  return ["/overview", "/workflows", "/views", "/timeline"].find((to) => screens.some((screen) => screen.to === to && locked(who, screen) === "")) ?? "/access";
}

import { createRootRoute, createRoute, createRouter, lazyRouteComponent, redirect, retainSearchParams, type RouteComponent } from "@tanstack/react-router";
import { MissingPart, part } from "../parts/later";
import { Crashed } from "./recover";
import { Landing, Shell } from "./shell";
import { parseSearch, stringifySearch, type Search } from "./url";

const root = createRootRoute({
  component: Shell,
  validateSearch: (search: Record<string, unknown>): Search => search as Search,
  // The tenant is the console's, not a screen's: every link keeps it.
  search: { middlewares: [retainSearchParams<Search>(["tenant"])] },
});

const start = createRoute({ getParentRoute: () => root, path: "/", component: Landing });

/** A screen, loaded when it is first shown. */
function screen<P extends string, K extends string>(path: P, load: () => Promise<Record<K, RouteComponent>>, name: K, beforeLoad: (at: { search: Search }) => void = () => undefined) {
  const importer = async (): Promise<Record<K, RouteComponent>> => {
    try {
      return await part(load);
    } catch (err) {
      return { [name]: () => <Crashed error={err} missing /> } as unknown as Record<K, RouteComponent>;
    }
  };
  return createRoute({ getParentRoute: () => root, path, component: lazyRouteComponent(importer, name), beforeLoad });
}

/** An address of before that leads to the present one. */
function moved<P extends string>(path: P, to: "/moves" | "/access") {
  return createRoute({
    getParentRoute: () => root,
    path,
    beforeLoad: ({ search }) => {
      throw redirect({ to, search });
    },
  });
}

const routes = [
  screen("/overview", () => import("../overview/overview"), "Overview"),
  screen("/fleet", () => import("../fleet/fleet"), "Fleet"),
  screen("/fleet/node", () => import("../fleet/node-page"), "NodePage"),
  screen("/tenants", () => import("../tenants/tenants"), "Tenants", ({ search: { open } }) => {
    // An address of before: the detail is a separate page.
    if (open) throw redirect({ to: "/tenants/detail", search: { tenant: open } });
  }),
  screen("/tenants/detail", () => import("../tenants/tenant"), "Tenant"),
  screen("/aggregates", () => import("../data/aggregates"), "Aggregates"),
  screen("/events", () => import("../data/events"), "Events"),
  screen("/views", () => import("../views/views"), "Views"),
  screen("/commands", () => import("../commands/commands"), "Commands"),
  screen("/workflows", () => import("../workflows/workflows"), "Workflows"),
  screen("/dead-letters", () => import("../letters/letters"), "Letters"),
  screen("/moves", () => import("../moves/moves"), "Moves"),
  screen("/models", () => import("../models/models"), "Models"),
  screen("/timeline", () => import("../timeline/timeline"), "Timeline"),
  screen("/audit", () => import("../audit/audit"), "Audit"),
  screen("/access", () => import("../access/access"), "Access"),
  screen("/credentials", () => import("../credentials/credentials"), "Credentials"),
  screen("/api", () => import("../explorer/explorer"), "Explorer"),
  moved("/rebalance", "/moves"),
  moved("/policy", "/access"),
];

export const router = createRouter({
  routeTree: root.addChildren([start, ...routes]),
  basepath: "/ui",
  parseSearch,
  stringifySearch,
  defaultErrorComponent: ({ error, reset }) => <Crashed error={error} missing={error instanceof MissingPart} reset={reset} />,
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}

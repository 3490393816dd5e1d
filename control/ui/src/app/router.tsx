import { createRootRoute, createRoute, createRouter, lazyRouteComponent, redirect } from "@tanstack/react-router";
import { Shell } from "./shell";
import { parseSearch, stringifySearch, type Search } from "./url";

const root = createRootRoute({ component: Shell, validateSearch: (search: Record<string, unknown>): Search => search as Search });

const start = createRoute({
  getParentRoute: () => root,
  path: "/",
  beforeLoad: () => {
    throw redirect({ to: "/fleet" });
  },
});

// Each screen is loaded when it is first shown.
const routes = [
  createRoute({ getParentRoute: () => root, path: "/fleet", component: lazyRouteComponent(() => import("../fleet/fleet"), "Fleet") }),
  createRoute({ getParentRoute: () => root, path: "/tenants", component: lazyRouteComponent(() => import("../tenants/tenants"), "Tenants") }),
  createRoute({ getParentRoute: () => root, path: "/views", component: lazyRouteComponent(() => import("../views/views"), "Views") }),
  createRoute({ getParentRoute: () => root, path: "/commands", component: lazyRouteComponent(() => import("../commands/commands"), "Commands") }),
  createRoute({ getParentRoute: () => root, path: "/workflows", component: lazyRouteComponent(() => import("../workflows/workflows"), "Workflows") }),
  createRoute({ getParentRoute: () => root, path: "/rebalance", component: lazyRouteComponent(() => import("../rebalance/rebalance"), "Rebalances") }),
  createRoute({ getParentRoute: () => root, path: "/models", component: lazyRouteComponent(() => import("../models/models"), "Models") }),
  createRoute({ getParentRoute: () => root, path: "/timeline", component: lazyRouteComponent(() => import("../timeline/timeline"), "Timeline") }),
  createRoute({ getParentRoute: () => root, path: "/audit", component: lazyRouteComponent(() => import("../audit/audit"), "Audit") }),
  createRoute({ getParentRoute: () => root, path: "/policy", component: lazyRouteComponent(() => import("../policy/policy"), "Policy") }),
  createRoute({ getParentRoute: () => root, path: "/api", component: lazyRouteComponent(() => import("../explorer/explorer"), "Explorer") }),
];

export const router = createRouter({ routeTree: root.addChildren([start, ...routes]), basepath: "/ui", parseSearch, stringifySearch });

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}

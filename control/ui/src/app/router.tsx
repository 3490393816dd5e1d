import { createRootRoute, createRoute, createRouter, lazyRouteComponent, redirect, retainSearchParams, type RouteComponent } from "@tanstack/react-router";
import { MissingPart, part } from "../parts/later";
import { pages } from "./pages";
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
  screen("/overview", pages["/overview"].load, "Overview"),
  screen("/fleet", pages["/fleet"].load, "Fleet"),
  screen("/fleet/node", pages["/fleet/node"].load, "NodePage"),
  screen("/tenants", pages["/tenants"].load, "Tenants", ({ search: { open } }) => {
    // An address of before: the detail is a separate page.
    if (open) throw redirect({ to: "/tenants/detail", search: { tenant: open } });
  }),
  screen("/tenants/detail", pages["/tenants/detail"].load, "Tenant"),
  screen("/aggregates", pages["/aggregates"].load, "Aggregates"),
  screen("/events", pages["/events"].load, "Events"),
  screen("/views", pages["/views"].load, "Views"),
  screen("/commands", pages["/commands"].load, "Commands"),
  screen("/workflows", pages["/workflows"].load, "Workflows"),
  screen("/dead-letters", pages["/dead-letters"].load, "Letters"),
  screen("/moves", pages["/moves"].load, "Moves"),
  screen("/models", pages["/models"].load, "Models"),
  screen("/timeline", pages["/timeline"].load, "Timeline"),
  screen("/audit", pages["/audit"].load, "Audit"),
  screen("/access", pages["/access"].load, "Access"),
  screen("/credentials", pages["/credentials"].load, "Credentials"),
  screen("/api", pages["/api"].load, "Explorer"),
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

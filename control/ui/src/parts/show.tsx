import { createRouterTransport, type ConnectRouter } from "@connectrpc/connect";
import { TransportProvider } from "@connectrpc/connect-query";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { createMemoryHistory, createRootRoute, createRouter, RouterProvider } from "@tanstack/react-router";
import { render } from "@testing-library/react";
import type { ReactNode } from "react";
import { parseSearch, stringifySearch, type Search } from "../app/url";
import { SessionService } from "../gen/gateway/v1/session_pb";

// jsdom does not scroll.
window.scrollTo = () => undefined;

/** Renders a part of the console for a test: at an address, for a principal with rights at all tenants, over services that answer in this process. */
export function show(part: ReactNode, { at = "/", rights = [], services = () => undefined }: { at?: string; rights?: string[]; services?: (router: ConnectRouter) => void } = {}) {
  const transport = createRouterTransport((router) => {
    router.service(SessionService, { whoAmI: () => ({ subject: "operator", tenants: ["*"], rights }) });
    services(router);
  });
  const route = createRootRoute({ component: () => part, validateSearch: (search: Record<string, unknown>): Search => search as Search });
  const router = createRouter({ routeTree: route, history: createMemoryHistory({ initialEntries: [at] }), parseSearch, stringifySearch });
  return {
    address: () => router.state.location.search as Search,
    ...render(
      <TransportProvider transport={transport}>
        <QueryClientProvider client={new QueryClient({ defaultOptions: { queries: { retry: false } } })}>
          <RouterProvider router={router as never} />
        </QueryClientProvider>
      </TransportProvider>,
    ),
  };
}

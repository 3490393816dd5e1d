import { Code, ConnectError } from "@connectrpc/connect";
import { TransportProvider } from "@connectrpc/connect-query";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { RouterProvider } from "@tanstack/react-router";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { router } from "./app/router";
import { arrive } from "./app/arrival";
import { keepRenewed } from "./app/renewal";
import { onIdentityChange } from "./app/session";
import { applyTheme } from "./app/theme";
import { transport } from "./app/transport";

applyTheme();

const queries = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 2_000,
      // A gateway on this machine answers without a network, too.
      networkMode: "always",
      // Only what may succeed the next time is tried again.
      retry: (count, err) => count < 2 && ConnectError.from(err).code === Code.Unavailable,
    },
    mutations: { networkMode: "always" },
  },
});

onIdentityChange(() => {
  void queries.cancelQueries();
  queries.clear();
});
keepRenewed();
void arrive((place) => router.history.replace(place));

const root = document.getElementById("root");
if (root) {
  createRoot(root).render(
    <StrictMode>
      <TransportProvider transport={transport}>
        <QueryClientProvider client={queries}>
          <RouterProvider router={router} />
        </QueryClientProvider>
      </TransportProvider>
    </StrictMode>,
  );
}

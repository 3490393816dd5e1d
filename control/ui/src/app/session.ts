import { useQuery } from "@connectrpc/connect-query";
import { useSyncExternalStore } from "react";
import { SessionService, type WhoAmIResponse } from "../gen/gateway/v1/session_pb";

// The token lives as long as the tab: a closed one is signed out.
const key = "headgate.token";
const listeners = new Set<() => void>();

export function token(): string {
  return sessionStorage.getItem(key) ?? "";
}

export function setToken(next: string): void {
  if (next === "") sessionStorage.removeItem(key);
  else sessionStorage.setItem(key, next.trim());
  for (const listener of listeners) listener();
}

export function useToken(): string {
  return useSyncExternalStore((listener) => {
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, token);
}

/** Why the principal may not do something; "" when it may. */
export function refusal(who: WhoAmIResponse | undefined, right: string, scope: "platform" | "tenant"): string {
  if (!who) return "it is not known yet who you are";
  if (!who.rights.some((held) => held === right || held.startsWith(`${right}:`))) return `you lack the right ${right}`;
  if (scope === "platform" && !who.tenants.includes("*")) return "it concerns the platform, and your credential is not for all tenants";
  return "";
}

/** Who is signed in. */
export function useWhoAmI() {
  return useQuery(SessionService.method.whoAmI, {}, { staleTime: 60_000 });
}

/** Why who is signed in may not do something; "" when they may. */
export function useRefusal(right: string, scope: "platform" | "tenant" = "platform"): string {
  return refusal(useWhoAmI().data, right, scope);
}

import type { WhoAmIResponse } from "../gen/gateway/v1/session_pb";

/** What a principal is allowed to do, as WhoAmI answers it. */
export type Rights = Pick<WhoAmIResponse, "rights" | "tenants">;

/** Why the principal may not do something; "" when it may. */
export function refusal(who: Rights | undefined, right: string, scope: "platform" | "tenant"): string {
  if (!who) return "your rights are not loaded yet";
  if (!who.rights.some((held) => held === right || held.startsWith(`${right}:`))) return `you lack the right ${right}`;
  if (scope === "platform" && !who.tenants.includes("*")) return "it concerns the whole platform, and your credential is not valid for all tenants";
  return "";
}

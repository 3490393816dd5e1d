import { useQuery } from "@connectrpc/connect-query";
import { TenantService } from "../gen/control/v1/tenant_pb";
import { useRefusal, useWhoAmI } from "../app/session";
import { useUrl } from "../app/url";

/** The tenants to choose from, as far as the principal may know them. */
export function useTenants(): string[] {
  const who = useWhoAmI().data;
  const refusal = useRefusal("fleet.read");
  const all = useQuery(TenantService.method.listTenants, {}, { enabled: refusal === "", staleTime: 10_000 });
  const own = (who?.tenants ?? []).filter((tenant) => tenant !== "*");
  return own.length > 0 ? own : (all.data?.tenants ?? []).map((tenant) => tenant.tenantId);
}

/** The tenant of the console: the address names it, and every link keeps it. Without one it is the first; "" if there is none. */
export function useTenant(): string {
  const [get] = useUrl();
  const first = useTenants()[0] ?? "";
  return get("tenant") || first;
}

import { useQuery } from "@connectrpc/connect-query";
import { useEffect } from "react";
import { TenantService } from "../gen/control/v1/tenant_pb";
import { useRefusal, useWhoAmI } from "../app/session";
import { useUrl } from "../app/url";
import { Choice, Text } from "./field";

/** The tenants that there are to choose from, as far as the principal may know. */
export function useTenants(): string[] {
  const who = useWhoAmI().data;
  const refusal = useRefusal("fleet.read");
  const all = useQuery(TenantService.method.listTenants, {}, { enabled: refusal === "" });
  const own = (who?.tenants ?? []).filter((tenant) => tenant !== "*");
  return own.length > 0 ? own : (all.data?.tenants ?? []).map((tenant) => tenant.tenantId);
}

/** The tenant that the screen is about; it stands in the address. */
export function useTenant(): string {
  const [get, set] = useUrl();
  const tenants = useTenants();
  const tenant = get("tenant");
  const first = tenants[0];
  useEffect(() => {
    if (tenant === "" && first !== undefined) set({ tenant: first });
    // Only what is chosen matters.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [tenant, first]);
  return tenant;
}

export function TenantPicker() {
  const [get, set] = useUrl();
  const tenants = useTenants();
  const tenant = get("tenant");
  if (tenants.length === 0) return <Text label="Tenant" value={tenant} onChange={(next) => set({ tenant: next })} />;
  return <Choice label="Tenant" value={tenant} options={tenants.includes(tenant) ? tenants : [tenant, ...tenants]} onChange={(next) => set({ tenant: next })} />;
}

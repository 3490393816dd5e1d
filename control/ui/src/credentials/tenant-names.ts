/** The tenants of a key, in words. */
export function tenantNames(tenants: readonly string[]): string {
  return tenants.map((one) => (one === "*" ? "all tenants" : one)).join(", ");
}

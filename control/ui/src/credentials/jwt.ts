/** What names a token in a revocation, read from the token in the browser: the token itself goes nowhere. */
export interface Claims {
  issuer: string;
  tokenId: string;
  subject: string;
  /** When it expires, in seconds since 1970; undefined: it has no such claim. */
  expires: number | undefined;
}

/** The claims of a token in compact serialization (RFC 7519 §3.1); undefined: it is none. The signature is not checked. */
export function claimsOf(text: string): Claims | undefined {
  const [, payload, signature, ...more] = text.trim().split(".");
  if (!payload || signature === undefined || more.length > 0) return undefined;
  try {
    const bytes = Uint8Array.from(atob(payload.replaceAll("-", "+").replaceAll("_", "/")), (char) => char.charCodeAt(0));
    const claims: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    if (typeof claims !== "object" || claims === null || Array.isArray(claims)) return undefined;
    const { iss, jti, sub, exp } = claims as Record<string, unknown>;
    const string = (value: unknown) => (typeof value === "string" ? value : "");
    return { issuer: string(iss), tokenId: string(jti), subject: string(sub), expires: typeof exp === "number" && Number.isFinite(exp) ? exp : undefined };
  } catch {
    return undefined;
  }
}

/** What renews an access token of an OpenID provider. */
export interface Grant {
  /** The name of the provider in the gateway's settings. */
  provider: string;
  /** The sub of the ID token: a renewal is for the same one. */
  subject: string;
  /** The refresh token; "": the provider has issued none. */
  refresh: string;
  /** When the access token ends, in milliseconds of the browser's clock; 0: not known. */
  until: number;
  /** The lifetime of the access token in milliseconds; 0: not known. */
  lifetime: number;
}

/** A token of a sign-in. */
export interface Credential {
  token: string;
  /** When the user signed in, in milliseconds of the browser's clock; 0: not known. */
  at: number;
  /** How often the token has been renewed since. */
  generation: number;
  /** Undefined for a token that was typed. */
  grant?: Grant;
}

/** Whether a credential replaces another one: the latest sign-in counts, and of one sign-in the latest renewal. */
export function replaces(next: Credential, present: Credential): boolean {
  return next.at === present.at ? next.generation > present.generation : next.at > present.at;
}

/** The time until a token must be renewed, in milliseconds; undefined: it cannot be, or its end is not known. */
export function renewalAfter({ grant }: Credential, now: number): number | undefined {
  if (!grant || grant.refresh === "" || grant.until === 0) return undefined;
  return Math.max(0, grant.until - Math.min(60_000, grant.lifetime / 4) - now);
}

// The token has a separate key; what renews it is beside it. Both live as long as the tab.
const tokenKey = "headgate.token";
const grantKey = "headgate.grant";

export function storeCredential(credential: Credential): void {
  const { token, ...rest } = credential;
  sessionStorage.setItem(grantKey, JSON.stringify(rest));
  sessionStorage.setItem(tokenKey, token);
}

export function removeCredential(): void {
  sessionStorage.removeItem(tokenKey);
  sessionStorage.removeItem(grantKey);
}

/** The tab's credential; undefined: it has none. */
export function storedCredential(): Credential | undefined {
  const token = sessionStorage.getItem(tokenKey) ?? "";
  return token === "" ? undefined : parseCredential(token, sessionStorage.getItem(grantKey) ?? "");
}

/** A token with what is stored beside it: anything but a grant is none. */
export function parseCredential(token: string, stored: string): Credential {
  const plain = { token, at: 0, generation: 0 };
  try {
    const { at, generation, grant } = JSON.parse(stored) as Partial<Credential>;
    if (typeof at !== "number" || typeof generation !== "number") return plain;
    const valid = grant && [grant.provider, grant.subject, grant.refresh].every((one) => typeof one === "string") && [grant.until, grant.lifetime].every((one) => typeof one === "number");
    return { token, at, generation, ...(valid ? { grant } : {}) };
  } catch {
    return plain;
  }
}

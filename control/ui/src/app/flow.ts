/** A sign-in that has begun in this tab: what its answer is compared with. */
export interface Flow {
  provider: string;
  state: string;
  nonce: string;
  verifier: string;
  /** Where in the console the user was. */
  place: string;
  /** Whether it is in a window that closes afterwards. */
  popup: boolean;
  /** When it began, in milliseconds of the browser's clock. */
  at: number;
}

const key = "headgate.sign-in";

/** The time within which a user signs in at the provider. */
const patience = 15 * 60_000;

export function storeFlow(flow: Flow): void {
  sessionStorage.setItem(key, JSON.stringify(flow));
}

/** Takes the flow of this tab: it is used once. Undefined: none has begun, or it was too long ago. */
export function takeFlow(now = Date.now()): Flow | undefined {
  const stored = sessionStorage.getItem(key);
  sessionStorage.removeItem(key);
  if (stored === null) return undefined;
  const flow = JSON.parse(stored) as Flow;
  return now - flow.at < patience ? flow : undefined;
}

/** Where the provider sends its answer. Each provider has another address (RFC 9700 §4.4.2). */
export function redirectUri(provider: string): string {
  return new URL(`/ui/signed-in${provider === "" ? "" : `/${encodeURIComponent(provider)}`}`, location.origin).href;
}

/** What a path of the console is to a sign-in: where one begins, where an answer arrives, or neither. */
export function parsePath(path: string): { kind: "begin" | "answer"; provider: string } | undefined {
  const [, kind, name = ""] = /^\/ui\/(sign-in|signed-in)(?:\/([a-z0-9-]+))?\/?$/.exec(path) ?? [];
  if (kind === undefined) return undefined;
  return { kind: kind === "sign-in" ? "begin" : "answer", provider: name };
}

/** A place in the console, or its first screen: an address of elsewhere, or of a sign-in, is none. */
export function placeOf(text: string, origin = location.origin): string {
  const first = "/ui/";
  if (!URL.canParse(text, origin)) return first;
  const url = new URL(text, origin);
  const inside = url.origin === origin && url.pathname.startsWith(first) && !url.pathname.includes("//") && parsePath(url.pathname) === undefined;
  return inside ? url.pathname + url.search + url.hash : first;
}

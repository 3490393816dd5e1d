import type { Credential } from "./credential";
import { refusal } from "./rights";

/** A call that was sent before the console's own code was there. */
interface Sent {
  token: string;
  answer: Promise<Response>;
}

// By the procedure and the request: what the console asks later in the same words has its answer here.
const sent = new Map<string, Sent>();

const nothing = "{}";

/** The age from which on an answer is not used any more, in milliseconds. */
const old = 10_000;

function send(token: string, procedure: string, request = nothing): Promise<Response> {
  const url = `/${procedure}`;
  const answer = fetch(url, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json", "connect-protocol-version": "1" },
    body: request,
    signal: AbortSignal.timeout(35_000),
  });
  answer.catch(() => undefined); // the call that takes it reports it
  const key = `${url} ${request}`;
  const call = { token, answer };
  sent.set(key, call);
  setTimeout(() => {
    if (sent.get(key) !== call) return;
    sent.delete(key);
    answer.then((res) => res.body?.cancel()).catch(() => undefined);
  }, old);
  return answer;
}

/**
 * Sends the first calls of a page while its code is being loaded: who is signed in, and then what the overview shows
 * first, if it is the page and the rights allow it. Each answer is for one call of the same words and token.
 */
export async function sendEarly({ token, grant }: Credential, page: string, search: string): Promise<void> {
  if (grant && grant.until !== 0 && Date.now() > grant.until) return; // it is renewed first
  const answer = await send(token, "gateway.v1.SessionService/WhoAmI");
  if (!answer.ok || page !== "/overview") return;
  const { rights = [], tenants = [] } = (await answer.clone().json()) as { rights?: string[]; tenants?: string[] };
  if (refusal({ rights, tenants }, "fleet.read", "platform") !== "") return;
  const address = new URLSearchParams(search);
  if (!["range", "from", "to"].some((name) => address.has(name))) void send(token, "control.v1.MetricsService/QuerySeries", `{"range":"SERIES_RANGE_HOUR"}`);
  void send(token, "control.v1.FleetService/GetFleet");
  void send(token, "control.v1.TenantService/ListTenants");
}

/** Fetches as fetch does; a call that was sent early, with the same token, is not sent again. */
export const fetchOnce: typeof fetch = (input, init) => {
  const key = `${String(input)} ${text(init?.body)}`;
  const early = sent.get(key);
  sent.delete(key);
  if (early && new Headers(init?.headers).get("authorization") === `Bearer ${early.token}`) return early.answer;
  return fetch(input, init);
};

function text(body: unknown): string {
  if (typeof body === "string") return body;
  return body instanceof Uint8Array ? new TextDecoder().decode(body) : "";
}

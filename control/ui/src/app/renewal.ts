import { part } from "../parts/later";
import { renewalAfter, type Credential } from "./credential";
import { askOthers, current, expire, onSession, renewed } from "./session";

const oidc = () => part(() => import("./oidc"));

/** The time after which a renewal that the provider has not answered is tried again. */
const pause = 10_000;
const longest = 2 ** 31 - 1; // of a timer, in milliseconds

let renewing: Promise<boolean> | undefined;

/**
 * Renews the credential, if a provider renews it. Returns whether there is another token now. A refresh
 * token is valid once, so one tab at a time renews, and none before it has the others' latest one.
 */
export function renew(): Promise<boolean> {
  renewing ??= exclusively()
    .catch(() => false) // an upgrade has removed the part that renews
    .finally(() => (renewing = undefined));
  return renewing;
}

async function exclusively(): Promise<boolean> {
  const before = current();
  if (!isRenewable(before)) return false;
  return navigator.locks.request("headgate.renewal", async () => {
    await askOthers();
    const present = current();
    if (present !== before) return isRenewable(present);
    const { isRefusal, reasonOf, renew, revoke } = await oidc();
    try {
      const next = await renew(before, before.grant);
      if (renewed(before, next)) return true;
      await revoke(next.grant); // the user has signed out in the meantime
    } catch (err) {
      if (isRefusal(err)) expire(before.token, `the provider does not renew it: ${reasonOf(err)}`);
    }
    return false;
  });
}

function isRenewable(credential: Credential | undefined): credential is Credential & Required<Pick<Credential, "grant">> {
  return credential?.grant !== undefined && credential.grant.refresh !== "";
}

/** Waits for a renewal if the token has ended, by the browser's clock. */
export async function fresh(): Promise<void> {
  const until = current()?.grant?.until ?? 0;
  if (until !== 0 && Date.now() > until) await renew();
}

/** Renews credentials before they end, as long as the page is open. */
export function keepRenewed(): void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let planned: Credential | undefined;
  const plan = (wait: number) => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      void renew().then((done) => {
        if (!done && current()) plan(pause);
      });
    }, Math.min(wait, longest));
  };
  onSession(() => {
    const credential = current();
    if (credential === planned) return;
    planned = credential;
    // It is needed when the gateway may not answer.
    if (isRenewable(credential)) oidc().catch(() => undefined);
    clearTimeout(timer);
    const wait = credential && renewalAfter(credential, Date.now());
    // Not in all tabs at the same time.
    if (wait !== undefined) plan(wait * (0.9 + Math.random() / 10));
  });
}

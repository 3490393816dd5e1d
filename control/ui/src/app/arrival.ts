import { part } from "../parts/later";
import { parsePath, placeOf, takeFlow } from "./flow";
import { labelOf, providerOf } from "./providers";
import { accept, hold, lookUp, report, signOut, startSession } from "./session";

const oidc = () => part(() => import("./oidc"));

/**
 * Starts the session of a page. An address where a sign-in begins, or where its answer arrives, is replaced by
 * a place of the console before anything else is done: codes do not stay in addresses.
 */
export async function arrive(replace: (place: string) => void): Promise<void> {
  const at = parsePath(location.pathname);
  if (at === undefined) return startSession();
  const answer = new URLSearchParams(location.search);
  if (at.kind === "begin") {
    replace("/ui/");
    return beginHere(at.provider);
  }
  const flow = takeFlow();
  replace(placeOf(flow?.place ?? ""));
  if (flow === undefined || flow.provider !== at.provider) return startSession("This sign-in has not begun in this tab, or too long ago. Sign in again.");
  hold("Signing in…");
  try {
    const { finish } = await oidc();
    // Where the gateway rejects the token, the page shows why.
    if ((await accept(await finish(flow, answer))) && flow.popup) close();
  } catch (err) {
    await startSession(`The sign-in at the provider failed: ${await reason(err)}`);
  }
}

/** Begins a sign-in in a window that is for it alone; the other tabs receive what comes of it. */
async function beginHere(name: string): Promise<void> {
  hold("Signing in…");
  opener = null; // the provider's pages have no hold of the console's
  if (await lookUp()) close();
  else report(await signInWith(name, "/ui/", true));
}

/** Leads the user to a provider. Returns why that is not possible; "": the page is being left. */
export async function signInWith(name: string, place: string, popup = false): Promise<string> {
  try {
    const provider = await providerOf(name);
    const { begin } = await oidc();
    return await begin(provider, place, popup).then(
      () => "",
      async (err: unknown) => `The sign-in with ${labelOf(provider)} could not begin: ${await reason(err)}`,
    );
  } catch (err) {
    return `The sign-in could not begin: ${await reason(err)}`;
  }
}

/** Signs out here, in the other tabs and at the provider. */
export async function leave(): Promise<void> {
  const grant = signOut();
  if (grant === undefined) return;
  try {
    await (await oidc()).leave(grant);
  } catch (err) {
    report(`You are signed out here, but perhaps not at the provider: ${await reason(err)}`);
  }
}

async function reason(err: unknown): Promise<string> {
  return oidc().then(
    ({ reasonOf }) => reasonOf(err),
    () => String(err),
  );
}

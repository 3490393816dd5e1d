/** An OpenID provider at which operators sign in, as the gateway's settings name it. */
export interface Provider {
  /** The name of the issuer in the settings; "": the issuer without a name. */
  name: string;
  issuer: string;
  clientId: string;
  scopes: string[];
  /** The origins of its endpoints that are not at the issuer's, which the pages may call too. */
  origins?: string[];
}

/** Reads the providers of an answer; what is not one is left out. */
export function parseProviders(answer: unknown): Provider[] {
  if (!Array.isArray(answer)) return [];
  return answer.filter((one: Partial<Provider> | null): one is Provider => {
    const texts = [one?.name, one?.issuer, one?.clientId];
    return texts.every((text) => typeof text === "string") && URL.canParse(one?.issuer ?? "") && areTexts(one?.scopes) && (one?.origins === undefined || areTexts(one.origins));
  });
}

const areTexts = (list: unknown) => Array.isArray(list) && list.every((one) => typeof one === "string");

/** What users call a provider: its name, else its host. */
export function labelOf(provider: Provider): string {
  return provider.name === "" ? new URL(provider.issuer).host : provider.name;
}

let loading: Promise<Provider[]> | undefined;

/** The providers of this gateway, loaded once. */
export function providers(): Promise<Provider[]> {
  loading ??= load().catch((err: unknown) => {
    loading = undefined;
    throw err;
  });
  return loading;
}

async function load(): Promise<Provider[]> {
  const res = await fetch("/ui/sign-in.json", { signal: AbortSignal.timeout(10_000) });
  if (!res.ok) throw new Error(`the gateway answers ${res.status}`);
  return parseProviders(await res.json());
}

/** The provider of a name. */
export async function providerOf(name: string): Promise<Provider> {
  const found = (await providers()).find((one) => one.name === name);
  if (!found) throw new Error("the gateway's settings do not name this provider any more");
  return found;
}

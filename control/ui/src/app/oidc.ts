import * as oauth from "oauth4webapi";
import type { Credential, Grant } from "./credential";
import { redirectUri, storeFlow, type Flow } from "./flow";
import { providerOf, type Provider } from "./providers";

// Sign-in at an OpenID provider (OpenID Connect Core 1.0 §3.1) by the authorization code flow with PKCE
// (RFC 7636), renewal by rotating refresh tokens (RFC 9700 §4.14.2), logout (RP-Initiated Logout 1.0).
// Requests go to the issuer's origin, and to further origins that the gateway has found; the user is led to pages of the provider.

const timeout = 10_000;

function client(provider: Provider): oauth.Client {
  return { client_id: provider.clientId, token_endpoint_auth_method: "none" };
}

/** How requests are made: without cookies, and over http to the loopback interface alone, which the gateway has checked. */
function options(provider: Provider) {
  return {
    [oauth.allowInsecureRequests]: provider.issuer.startsWith("http:"),
    [oauth.customFetch]: (url: string, init: object) => fetch(url, { ...init, credentials: "omit", cache: "no-store" }),
    signal: AbortSignal.timeout(timeout),
  };
}

/** Reads the provider's metadata (OpenID Connect Discovery 1.0). */
async function discover(provider: Provider): Promise<oauth.AuthorizationServer> {
  const issuer = new URL(provider.issuer);
  const server = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, options(provider)));
  if (server.issuer !== provider.issuer) throw new Error(`it calls itself ${server.issuer}, and is configured as ${provider.issuer}`);
  const allowed = [issuer.origin, ...(provider.origins ?? [])];
  const elsewhere = [server.token_endpoint, server.revocation_endpoint].find((one) => one !== undefined && !allowed.includes(new URL(one).origin));
  if (elsewhere !== undefined) throw new Error(`the pages may only call ${allowed.join(", ")}, and it names ${elsewhere}: reload the page if it has changed`);
  return server;
}

/** A page of the provider to which the user is led. */
function page(provider: Provider, address: string | undefined, what: string): URL {
  const url = new URL(address ?? "data:");
  if (url.protocol !== "https:" && url.protocol !== new URL(provider.issuer).protocol) throw new Error(`it has no ${what}`);
  return url;
}

/** Leads the user to the provider. A popup closes once the user has signed in. */
export async function begin(provider: Provider, place: string, popup: boolean): Promise<void> {
  const server = await discover(provider);
  const flow: Flow = {
    provider: provider.name,
    state: oauth.generateRandomState(),
    nonce: oauth.generateRandomNonce(),
    verifier: oauth.generateRandomCodeVerifier(),
    place,
    popup,
    at: Date.now(),
  };
  const to = page(provider, server.authorization_endpoint, "authorization endpoint");
  const parameters = {
    client_id: provider.clientId,
    redirect_uri: redirectUri(provider.name),
    response_type: "code",
    scope: provider.scopes.join(" "),
    state: flow.state,
    nonce: flow.nonce,
    code_challenge: await oauth.calculatePKCECodeChallenge(flow.verifier),
    code_challenge_method: "S256",
  };
  for (const [name, value] of Object.entries(parameters)) to.searchParams.set(name, value);
  storeFlow(flow);
  location.assign(to);
}

/** Exchanges the code of an answer: its state, its issuer (RFC 9207) and the nonce of the ID token are those of the flow. */
export async function finish(flow: Flow, answer: URLSearchParams): Promise<Credential> {
  const provider = await providerOf(flow.provider);
  const server = await discover(provider);
  const checked = oauth.validateAuthResponse(server, client(provider), answer, flow.state);
  const response = await oauth.authorizationCodeGrantRequest(server, client(provider), oauth.None(), checked, redirectUri(provider.name), flow.verifier, options(provider));
  const tokens = await oauth.processAuthorizationCodeResponse(server, client(provider), response, { expectedNonce: flow.nonce, requireIdToken: true });
  return { token: tokens.access_token, at: flow.at, generation: 0, grant: grantOf(tokens, { provider: provider.name, subject: oauth.getValidatedIdTokenClaims(tokens)?.sub ?? "", refresh: "" }) };
}

/** Renews a credential. The tokens before are used up. */
export async function renew(credential: Credential, grant: Grant): Promise<Credential & { grant: Grant }> {
  const provider = await providerOf(grant.provider);
  const server = await discover(provider);
  const response = await oauth.refreshTokenGrantRequest(server, client(provider), oauth.None(), grant.refresh, options(provider));
  const tokens = await oauth.processRefreshTokenResponse(server, client(provider), response);
  const claims = oauth.getValidatedIdTokenClaims(tokens);
  if (claims && claims.sub !== grant.subject) throw new Error("it answers for another user");
  return { ...credential, token: tokens.access_token, generation: credential.generation + 1, grant: grantOf(tokens, grant) };
}

function grantOf(tokens: oauth.TokenEndpointResponse, before: Pick<Grant, "provider" | "subject" | "refresh">): Grant {
  const lifetime = (tokens.expires_in ?? 0) * 1000;
  return { provider: before.provider, subject: before.subject, refresh: tokens.refresh_token ?? before.refresh, until: lifetime === 0 ? 0 : Date.now() + lifetime, lifetime };
}

/** Whether a renewal failed because the provider refuses it, so that it cannot succeed later. */
export function isRefusal(err: unknown): boolean {
  return err instanceof oauth.ResponseBodyError && err.status < 500 && err.status !== 429;
}

/** Revokes a refresh token where the provider offers it (RFC 7009). */
export async function revoke(grant: Grant): Promise<void> {
  const provider = await providerOf(grant.provider);
  await revokeAt(provider, await discover(provider), grant);
}

async function revokeAt(provider: Provider, server: oauth.AuthorizationServer, { refresh }: Grant): Promise<void> {
  if (server.revocation_endpoint === undefined || refresh === "") return;
  await oauth.processRevocationResponse(await oauth.revocationRequest(server, client(provider), oauth.None(), refresh, options(provider)));
}

/** Revokes the refresh token, and signs the user out at the provider, where it offers them. */
export async function leave(grant: Grant): Promise<void> {
  const provider = await providerOf(grant.provider);
  const server = await discover(provider);
  // A failure is none of the user's: the session at the provider ends below.
  await revokeAt(provider, server, grant).catch(() => undefined);
  if (!server.end_session_endpoint) return;
  const to = page(provider, server.end_session_endpoint, "page for logouts");
  // Without id_token_hint: tokens are never part of an address.
  to.searchParams.set("client_id", provider.clientId);
  to.searchParams.set("post_logout_redirect_uri", new URL("/ui/", location.origin).href);
  location.assign(to);
}

/** Why a sign-in or a renewal failed, in words. */
export function reasonOf(err: unknown): string {
  if (err instanceof oauth.AuthorizationResponseError || err instanceof oauth.ResponseBodyError) return `it answers ${err.error}${err.error_description ? `: ${err.error_description}` : ""}`;
  return err instanceof Error ? err.message : String(err);
}

import { Code, ConnectError } from "@connectrpc/connect";
import { useQuery } from "@connectrpc/connect-query";
import { useSyncExternalStore } from "react";
import { SessionService, type WhoAmIResponse } from "../gen/gateway/v1/session_pb";
import { refusal } from "./rights";
import { removeCredential, replaces, storeCredential, storedCredential, type Credential, type Grant } from "./credential";

/**
 * The session of this browser. "looking": another tab is asked for its token, or a provider for one.
 * "expired": the token is not valid any more, and the page stays until a user signs in.
 */
export interface Session {
  status: "looking" | "out" | "in" | "expired";
  token: string;
  /** Why the session ended, or why a token was rejected; "" if neither has happened. */
  message: string;
  /** Increases when another identity signs in: nothing of the one before is shown after that. */
  epoch: number;
}

// A credential lives as long as a tab of the console is open: sessionStorage survives a reload, the
// channel passes it on to new tabs.
const lookup = 300;

type Message = { kind: "ask" } | ({ kind: "token" } & Credential) | { kind: "out" };

const listeners = new Set<() => void>();
const cleaners = new Set<() => void>();
let channel: BroadcastChannel | undefined;
let identity = "";
let credential: Credential | undefined;
let session: Session = { status: "looking", token: "", message: "", epoch: 0 };
// Increases with each sign-in and sign-out: an answer of a check that was overtaken counts for nothing.
let turns = 0;

function update(next: Partial<Session>): void {
  session = { ...session, ...next };
  for (const listener of listeners) listener();
}

/** Registers what forgets an identity's data when another one signs in or this one signs out. */
export function onIdentityChange(clean: () => void): void {
  cleaners.add(clean);
}

/** Registers what follows the session's changes. */
export function onSession(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function forget(): void {
  identity = "";
  for (const clean of cleaners) clean();
}

/** Opens the channel to the other tabs. */
function connect(): void {
  if (channel || typeof BroadcastChannel === "undefined") return;
  channel = new BroadcastChannel("headgate.session");
  channel.onmessage = ({ data }: MessageEvent<Message>) => receive(data);
}

/** Starts the session with the tab's own credential, else with that of another tab. Returns whether there is one. */
export async function lookUp(): Promise<boolean> {
  connect();
  const own = storedCredential();
  if (own) {
    adopt(own);
    return true;
  }
  await askOthers();
  return session.status === "in";
}

/** Starts the session; without a credential the user is asked to sign in, with a message. */
export async function startSession(message = ""): Promise<void> {
  const found = await lookUp();
  if (!found && session.status === "looking") update({ status: "out", message });
}

/** Shows that the page waits for a sign-in. */
export function hold(message: string): void {
  connect();
  update({ status: "looking", message });
}

/** Asks the other tabs for their credential, and waits for their answers. */
export async function askOthers(): Promise<void> {
  send({ kind: "ask" });
  await new Promise((resolve) => setTimeout(resolve, lookup));
}

function send(message: Message): void {
  channel?.postMessage(message);
}

function receive(message: Message): void {
  switch (message.kind) {
    case "ask":
      if (session.status === "in" && credential) send({ kind: "token", ...credential });
      break;
    case "token": {
      const { token, at = 0, generation = 0, grant } = message;
      const next = { token, at, generation, ...(grant ? { grant } : {}) };
      if (session.status === "in" && credential && !replaces(next, credential)) break;
      if (session.status === "expired" && token === session.token) break;
      if (session.status === "in" && credential?.grant && credential.at === at) adopt(next);
      else void accept(next, false);
      break;
    }
    case "out":
      if (session.status === "in" || session.status === "expired") end("You signed out in another tab.");
      break;
  }
}

/** Puts a credential of the present sign-in into use. */
function adopt(next: Credential): void {
  credential = next;
  storeCredential(next);
  update({ status: "in", token: next.token, message: "" });
}

/** Uses the renewal of a credential, here and in the other tabs. Returns false if the user has signed out in the meantime. */
export function renewed(before: Credential, next: Credential): boolean {
  if (session.status !== "in" || credential !== before) return false;
  adopt(next);
  send({ kind: "token", ...next });
  return true;
}

export function token(): string {
  return session.token;
}

/** The credential in use; undefined: no user is signed in. */
export function current(): Credential | undefined {
  return session.status === "in" ? credential : undefined;
}

/** Whether calls wait for a user to sign in. */
export function hasEnded(): boolean {
  return session.status === "expired";
}

/** How an identity is compared: a token with other rights is another identity. */
function identityOf(who: WhoAmIResponse): string {
  return JSON.stringify([who.subject, who.tenants, who.rights]);
}

type Check = (token: string) => Promise<WhoAmIResponse>;
let check: Check = () => Promise.reject(new Error("no transport"));

/** Sets how a token is checked before it is used: WhoAmI with it. */
export function checkTokensWith(next: Check): void {
  check = next;
}

/**
 * Signs in with a credential whose token the gateway accepts. What an earlier identity has loaded is
 * forgotten; with the same one, the page keeps its state. Returns whether the token was accepted.
 */
export async function accept(next: Credential, announce = true): Promise<boolean> {
  const turn = ++turns;
  try {
    const who = identityOf(await check(next.token));
    if (turn !== turns) return false;
    const changed = who !== identity;
    if (changed) forget();
    identity = who;
    adopt(next);
    if (changed) update({ epoch: session.epoch + 1 });
    if (announce) send({ kind: "token", ...next });
    return true;
  } catch (err) {
    if (turn !== turns || session.status === "in") return false;
    const error = ConnectError.from(err);
    const rejected = error.code === Code.Unauthenticated;
    update({
      status: session.status === "expired" ? "expired" : "out",
      message: rejected ? `The gateway rejected the token: ${error.rawMessage}` : `The gateway could not check the token: ${error.rawMessage}`,
    });
    return false;
  }
}

/** Signs in with a token that was typed. */
export function signIn(typed: string): Promise<boolean> {
  return accept({ token: typed.trim(), at: Date.now(), generation: 0 });
}

/** Notes who the token is for. Another identity than before gets a new page, also one whose rights have changed. */
export function identified(who: WhoAmIResponse): void {
  const next = identityOf(who);
  if (identity !== "" && next !== identity) {
    forget();
    update({ epoch: session.epoch + 1 });
  }
  identity = next;
}

function end(message: string): void {
  turns++;
  credential = undefined;
  removeCredential();
  forget();
  update({ status: "out", token: "", message, epoch: session.epoch + 1 });
}

/** Signs out in all tabs. Returns what has to be ended at a provider; undefined: nothing. */
export function signOut(): Grant | undefined {
  const grant = credential?.grant;
  end("");
  send({ kind: "out" });
  return grant;
}

/** Shows a message to the user who is not signed in. */
export function report(message: string): void {
  if (session.status !== "in") update({ status: session.status === "expired" ? "expired" : "out", message });
}

/** Notes that the gateway does not accept a token any more; a token that was replaced in the meantime does not count. */
export function expire(rejected: string, why: string): void {
  if (session.status !== "in" || rejected !== session.token) return;
  removeCredential();
  const message = `Your session has ended: ${why}`;
  if (identity === "") update({ status: "out", token: "", message });
  else update({ status: "expired", message });
}

export function useSession(): Session {
  return useSyncExternalStore(onSession, () => session);
}

/** Who is signed in. */
export function useWhoAmI() {
  return useQuery(SessionService.method.whoAmI, {}, { staleTime: 60_000 });
}

/** The connection's heartbeat, for one component: who is signed in, asked again every three seconds. */
export function useHeartbeat() {
  return useQuery(SessionService.method.whoAmI, {}, { staleTime: 60_000, refetchInterval: 3_000 });
}

/** Why who is signed in may not do something; "" when they may. */
export function useRefusal(right: string, scope: "platform" | "tenant" = "platform"): string {
  return refusal(useWhoAmI().data, right, scope);
}

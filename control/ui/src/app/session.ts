import { Code, ConnectError } from "@connectrpc/connect";
import { useQuery } from "@connectrpc/connect-query";
import { useSyncExternalStore } from "react";
import { SessionService, type WhoAmIResponse } from "../gen/gateway/v1/session_pb";

/**
 * The session of this browser. "looking": another tab is asked for its token. "expired": the token
 * is not valid any more, and the page stays until a user signs in.
 */
export interface Session {
  status: "looking" | "out" | "in" | "expired";
  token: string;
  /** Why the session ended, or why a token was rejected; "" if there is nothing to say. */
  message: string;
  /** Increases when another identity signs in: nothing of the one before is shown after that. */
  epoch: number;
}

// The token lives as long as a tab of the console is open: sessionStorage survives a reload, the
// channel passes the token on to new tabs.
const key = "headgate.token";
const lookup = 300;

type Message = { kind: "ask" } | { kind: "token"; token: string } | { kind: "out" };

const listeners = new Set<() => void>();
const cleaners = new Set<() => void>();
let channel: BroadcastChannel | undefined;
let identity = "";
let session: Session = { status: "looking", token: "", message: "", epoch: 0 };

function update(next: Partial<Session>): void {
  session = { ...session, ...next };
  for (const listener of listeners) listener();
}

/** Registers what forgets an identity's data when another one signs in or this one signs out. */
export function onIdentityChange(clean: () => void): void {
  cleaners.add(clean);
}

function forget(): void {
  identity = "";
  for (const clean of cleaners) clean();
}

/** Starts the session: with the tab's own token, else with that of another tab. */
export function startSession(): void {
  if (typeof BroadcastChannel !== "undefined") {
    channel = new BroadcastChannel("headgate.session");
    channel.onmessage = ({ data }: MessageEvent<Message>) => receive(data);
  }
  const own = sessionStorage.getItem(key) ?? "";
  if (own !== "") {
    update({ status: "in", token: own });
    return;
  }
  send({ kind: "ask" });
  setTimeout(() => {
    if (session.status === "looking") update({ status: "out" });
  }, lookup);
}

function send(message: Message): void {
  channel?.postMessage(message);
}

function receive(message: Message): void {
  switch (message.kind) {
    case "ask":
      if (session.status === "in") send({ kind: "token", token: session.token });
      break;
    case "token":
      if (session.status !== "in") void signIn(message.token, false);
      break;
    case "out":
      if (session.status === "in" || session.status === "expired") end("You signed out in another tab.");
      break;
  }
}

export function token(): string {
  return session.token;
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
 * Signs in with a token that the gateway accepts. What an earlier identity has loaded is forgotten;
 * with the same one, the page keeps its state. Returns whether the token was accepted.
 */
export async function signIn(typed: string, announce = true): Promise<boolean> {
  const next = typed.trim();
  try {
    const who = identityOf(await check(next));
    const changed = who !== identity;
    if (changed) forget();
    identity = who;
    sessionStorage.setItem(key, next);
    update({ status: "in", token: next, message: "", epoch: session.epoch + (changed ? 1 : 0) });
    if (announce) send({ kind: "token", token: next });
    return true;
  } catch (err) {
    const error = ConnectError.from(err);
    const rejected = error.code === Code.Unauthenticated;
    update({
      status: session.status === "expired" ? "expired" : "out",
      message: rejected ? `The gateway rejected the token: ${error.rawMessage}` : `The gateway could not check the token: ${error.rawMessage}`,
    });
    return false;
  }
}

/** Remembers who the token is for, to notice later that another user signs in. */
export function identified(who: WhoAmIResponse): void {
  identity = identityOf(who);
}

function end(message: string): void {
  sessionStorage.removeItem(key);
  forget();
  update({ status: "out", token: "", message, epoch: session.epoch + 1 });
}

export function signOut(): void {
  end("");
  send({ kind: "out" });
}

/** Notes that the gateway does not accept a token any more; a token that was replaced in the meantime does not count. */
export function expire(rejected: string, why: string): void {
  if (session.status !== "in" || rejected !== session.token) return;
  sessionStorage.removeItem(key);
  const message = `Your session has ended: ${why}`;
  if (identity === "") update({ status: "out", token: "", message });
  else update({ status: "expired", message });
}

export function useSession(): Session {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => session,
  );
}

/** Why the principal may not do something; "" when it may. */
export function refusal(who: WhoAmIResponse | undefined, right: string, scope: "platform" | "tenant"): string {
  if (!who) return "your rights are not loaded yet";
  if (!who.rights.some((held) => held === right || held.startsWith(`${right}:`))) return `you lack the right ${right}`;
  if (scope === "platform" && !who.tenants.includes("*")) return "it concerns the whole platform, and your credential is not valid for all tenants";
  return "";
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

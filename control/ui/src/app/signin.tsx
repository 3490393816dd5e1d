import { useQuery } from "@tanstack/react-query";
import { KeyRound, LogIn } from "lucide-react";
import { useState } from "react";
import { Notice } from "../parts/state";
import { signInWith } from "./arrival";
import { Logo } from "./logo";
import { labelOf, providers, type Provider } from "./providers";
import { report, signIn, useSession } from "./session";

/** Why users cannot sign in with a provider here; "": they can. */
const insecure = isSecureContext ? "" : "A provider can only be used over https, or on localhost.";

/** Signs in with a provider: in this page, or in a window beside it that closes afterwards. */
export function Providers({ beside }: { beside: boolean }) {
  const { data, error, refetch } = useQuery({ queryKey: ["sign-in"], queryFn: providers, staleTime: Infinity, retry: 1 });
  const [busy, setBusy] = useState(false);
  const go = async (provider: Provider) => {
    if (beside) {
      const opened = open(`/ui/sign-in${provider.name === "" ? "" : `/${provider.name}`}`, "headgate-sign-in", "popup,width=520,height=720");
      if (opened === null) report("The browser has blocked the window of the provider. Allow windows of this page.");
      return;
    }
    setBusy(true);
    report(await signInWith(provider.name, location.pathname + location.search + location.hash));
    setBusy(false);
  };
  if (error)
    return (
      <Notice tone="warn">
        The ways to sign in could not be loaded.{" "}
        <button type="button" className="underline" onClick={() => void refetch()}>
          Try again
        </button>
      </Notice>
    );
  if (!data || data.length === 0) return null;
  return (
    <section aria-label="Providers" className="flex flex-col gap-2">
      {data.map((provider) => (
        <button key={provider.name} type="button" className="button button-strong w-full justify-center" disabled={insecure !== "" || busy} title={provider.issuer} onClick={() => void go(provider)}>
          <LogIn className="size-4" aria-hidden /> Sign in with {labelOf(provider)}
        </button>
      ))}
      {insecure === "" ? null : <p className="text-muted text-sm">{insecure}</p>}
      <p className="text-muted flex items-center gap-3 text-sm before:h-px before:flex-1 before:bg-(--border) after:h-px after:flex-1 after:bg-(--border)">or with a token</p>
    </section>
  );
}

export function Message() {
  const { message } = useSession();
  if (message === "") return null;
  return (
    <div role="alert">
      <Notice tone="bad">{message}</Notice>
    </div>
  );
}

export function TokenForm() {
  const [typed, setTyped] = useState("");
  const [busy, setBusy] = useState(false);
  const go = async () => {
    setBusy(true);
    await signIn(typed);
    setBusy(false);
  };
  return (
    <form
      className="flex flex-col gap-3"
      onSubmit={(event) => {
        event.preventDefault();
        void go();
      }}
    >
      <label className="flex flex-col gap-1">
        Token
        <textarea className="field h-20 w-full font-mono text-xs" value={typed} autoComplete="off" spellCheck={false} onChange={(event) => setTyped(event.target.value)} />
      </label>
      <button type="submit" className="button justify-center" disabled={typed.trim() === "" || busy}>
        <KeyRound className="size-4" aria-hidden /> {busy ? "Checking…" : "Sign in"}
      </button>
    </form>
  );
}

export function SignIn() {
  return (
    <main className="mx-auto flex min-h-dvh w-[min(26rem,92vw)] flex-col justify-center gap-4">
      <div className="flex items-center gap-2">
        <Logo />
        <h1>Sign in to Headgate</h1>
      </div>
      <Message />
      <Providers beside={false} />
      <TokenForm />
      <p className="text-muted text-sm">
        <code>headgate dev</code> prints a token as <code>OPERATOR</code>; <code>headgate token</code> issues others. The session is shared by the tabs of this browser and ends when the last one closes.
      </p>
    </main>
  );
}

/** While a provider, or another tab, is asked for a credential. */
export function SigningIn() {
  const { message } = useSession();
  if (message === "") return null;
  return (
    <main role="status" className="text-muted flex min-h-dvh flex-col items-center justify-center gap-3">
      <Logo />
      {message}
    </main>
  );
}

import { Dialog } from "radix-ui";
import { useState } from "react";
import { Notice } from "../parts/state";
import { Logo } from "./logo";
import { signIn, signOut, useSession } from "./session";

function TokenForm() {
  const { message } = useSession();
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
      {message === "" ? null : (
        <div role="alert">
          <Notice tone="bad">{message}</Notice>
        </div>
      )}
      <label className="flex flex-col gap-1">
        Token
        <textarea className="field h-28 w-full font-mono text-xs" value={typed} autoComplete="off" spellCheck={false} onChange={(event) => setTyped(event.target.value)} />
      </label>
      <button type="submit" className="button button-strong" disabled={typed.trim() === "" || busy}>
        {busy ? "Checking…" : "Sign in"}
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
      <TokenForm />
      <p className="text-muted text-sm">
        <code>headgate dev</code> prints a token as <code>OPERATOR</code>; <code>headgate token</code> issues others. The session is shared by the tabs of this browser and ends when the last one closes.
      </p>
    </main>
  );
}

/** Over the page whose session has ended: what was typed there stays. Another identity gets a new page. */
export function SignInAgain() {
  return (
    <Dialog.Root open>
      <Dialog.Portal>
        <Dialog.Overlay className="appear fixed inset-0 z-40 bg-black/50" />
        <Dialog.Content className="menu appear fixed top-1/2 left-1/2 w-[min(28rem,92vw)] -translate-x-1/2 -translate-y-1/2 p-5" onEscapeKeyDown={(event) => event.preventDefault()} onInteractOutside={(event) => event.preventDefault()}>
          <Dialog.Title className="text-lg font-semibold">Sign in again</Dialog.Title>
          <Dialog.Description className="text-muted mt-1 mb-3">The page keeps what you have typed.</Dialog.Description>
          <TokenForm />
          <button type="button" className="button button-quiet mt-2 w-full" onClick={signOut}>
            Sign out
          </button>
        </Dialog.Content>
      </Dialog.Portal>
    </Dialog.Root>
  );
}

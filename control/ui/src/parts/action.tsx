import * as Dialog from "@radix-ui/react-dialog";
import { useState, type ReactNode } from "react";
import { Problem } from "./state";

interface Action {
  children: ReactNode;
  /** Why the principal may not; it is shown, and the button is off. */
  refusal?: string;
  danger?: boolean;
  strong?: boolean;
  disabled?: boolean;
}

/** A button that says why it is off. */
export function Button({ children, refusal = "", danger, strong, disabled, onClick, type = "button" }: Action & { onClick?: () => void; type?: "button" | "submit" }) {
  const tone = danger ? "button-danger" : strong ? "button-strong" : "";
  return (
    <span title={refusal || undefined}>
      <button type={type} className={`button ${tone}`} disabled={Boolean(disabled) || refusal !== ""} onClick={onClick} {...(refusal === "" ? {} : { "aria-description": refusal })}>
        {children}
      </button>
    </span>
  );
}

/** A button for what cannot simply be undone: its name has to be typed first. */
export function Dangerous(props: Action & { title: string; what: string; name: string; run: () => Promise<unknown> }) {
  const [open, setOpen] = useState(false);
  const [typed, setTyped] = useState("");
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  const go = async () => {
    setBusy(true);
    setError(undefined);
    try {
      await props.run();
      setOpen(false);
    } catch (err) {
      setError(err);
    } finally {
      setBusy(false);
    }
  };
  return (
    <Dialog.Root
      open={open}
      onOpenChange={(next) => {
        setOpen(next);
        setTyped("");
        setError(undefined);
      }}
    >
      <Button {...props} danger={props.danger ?? true} onClick={() => setOpen(true)}>
        {props.children}
      </Button>
      <Dialog.Portal>
        <Dialog.Overlay className="fixed inset-0 bg-black/60" />
        <Dialog.Content className="panel bg-bg fixed top-1/4 left-1/2 w-[min(30rem,92vw)] -translate-x-1/2">
          <Dialog.Title className="text-base font-semibold">{props.title}</Dialog.Title>
          <Dialog.Description className="my-2">{props.what}</Dialog.Description>
          <form
            onSubmit={(event) => {
              event.preventDefault();
              void go();
            }}
          >
            <label className="block">
              Type <code>{props.name}</code> to go on
              <input className="field mt-1 w-full" value={typed} autoComplete="off" onChange={(event) => setTyped(event.target.value)} />
            </label>
            {error ? <Problem error={error} /> : null}
            <div className="mt-3 flex justify-end gap-2">
              <Dialog.Close className="button">Leave it</Dialog.Close>
              <Button type="submit" danger disabled={typed !== props.name || busy}>
                {props.title}
              </Button>
            </div>
          </form>
        </Dialog.Content>
      </Dialog.Portal>
    </Dialog.Root>
  );
}

/** Copies a text, and says so. */
export function Copy({ text, children }: { text: string; children: ReactNode }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    setDone(true);
    setTimeout(() => setDone(false), 1500);
  };
  return (
    <button type="button" className="button" onClick={() => void copy()}>
      {done ? "Copied" : children}
    </button>
  );
}

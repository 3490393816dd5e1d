import { Dialog } from "radix-ui";
import { useRef, useState, type ReactNode, type RefObject } from "react";
import { Problem } from "./state";

interface Action {
  children: ReactNode;
  /** Why the principal may not; it is shown, and the button is off. */
  refusal?: string;
  danger?: boolean;
  strong?: boolean;
  disabled?: boolean;
}

/** A button that shows why it is off. */
export function Button({ children, refusal = "", danger, strong, disabled, onClick, type = "button", ref }: Action & { onClick?: () => void; type?: "button" | "submit"; ref?: RefObject<HTMLButtonElement | null> }) {
  const tone = danger ? "button-danger" : strong ? "button-strong" : "";
  return (
    <span title={refusal || undefined}>
      <button ref={ref} type={type} className={`button ${tone}`} disabled={Boolean(disabled) || refusal !== ""} onClick={onClick} {...(refusal === "" ? {} : { "aria-description": refusal })}>
        {children}
      </button>
    </span>
  );
}

/**
 * Returns the focus when a dialog closes: to the button that opened it, or to the page's title if the
 * action has removed or disabled the button. Without it, the keyboard would start at the top again.
 */
export function returnFocus(opener: HTMLElement | null): void {
  if (opener?.isConnected && !(opener as HTMLButtonElement).disabled) opener.focus();
  else document.querySelector<HTMLElement>("main h1, main [tabindex='-1']")?.focus();
}

interface Confirmed extends Action {
  /** The verb: the dialog's title and its button. */
  title: string;
  /** What happens. */
  what: ReactNode;
  /** A name to type first, for what cannot be undone. */
  name?: string;
  /** Whether a reason is asked for, which the audit record holds. */
  reason?: boolean;
  /** Whether the dialog is open from the start: an address asks for the action. */
  asked?: boolean;
  onClose?: () => void;
  run: (reason: string) => Promise<unknown>;
}

/** A button whose effect is confirmed in a dialog that names the object and the consequences. */
export function Confirm({ title, what, name = "", reason = false, asked = false, onClose, run, children, ...action }: Confirmed) {
  const [open, setOpen] = useState(asked);
  const [typed, setTyped] = useState("");
  const [why, setWhy] = useState("");
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  const opener = useRef<HTMLButtonElement>(null);
  const go = async () => {
    setBusy(true);
    setError(undefined);
    try {
      await run(why);
      setOpen(false);
      onClose?.();
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
        if (!next) onClose?.();
        setTyped("");
        setWhy("");
        setError(undefined);
      }}
    >
      <Button {...action} ref={opener} onClick={() => setOpen(true)}>
        {children}
      </Button>
      <Dialog.Portal>
        <Dialog.Overlay className="appear fixed inset-0 z-40 bg-black/50" />
        <Dialog.Content
          className="menu appear fixed top-1/2 left-1/2 max-h-[90dvh] w-[min(30rem,92vw)] -translate-x-1/2 -translate-y-1/2 overflow-auto p-5"
          onCloseAutoFocus={(event) => {
            event.preventDefault();
            // The state that the action has changed is shown first: it may remove the button.
            requestAnimationFrame(() => returnFocus(opener.current));
          }}
        >
          <Dialog.Title className="text-lg font-semibold">{title}</Dialog.Title>
          <Dialog.Description asChild>
            <div className="text-muted my-2 break-words">{what}</div>
          </Dialog.Description>
          <form
            className="flex flex-col gap-3"
            onSubmit={(event) => {
              event.preventDefault();
              void go();
            }}
          >
            {reason ? (
              <label className="flex flex-col gap-1">
                <span>Reason, for the audit record</span>
                <input className="field w-full" value={why} maxLength={256} autoComplete="off" onChange={(event) => setWhy(event.target.value)} />
              </label>
            ) : null}
            {name === "" ? null : (
              <label className="flex flex-col gap-1">
                <span>
                  Type <code className="text-text">{name}</code> to confirm
                </span>
                <input className="field w-full" value={typed} autoComplete="off" onChange={(event) => setTyped(event.target.value)} />
              </label>
            )}
            {error ? <Problem error={error} /> : null}
            <div className="mt-2 flex justify-end gap-2">
              <Dialog.Close className="button">Cancel</Dialog.Close>
              <Button type="submit" danger={action.danger ?? false} strong={!action.danger} disabled={(name !== "" && typed !== name) || (reason && why.trim() === "") || busy}>
                {title}
              </Button>
            </div>
          </form>
        </Dialog.Content>
      </Dialog.Portal>
    </Dialog.Root>
  );
}

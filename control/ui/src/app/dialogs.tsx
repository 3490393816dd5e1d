import { X } from "lucide-react";
import { Dialog } from "radix-ui";
import type { ReactNode } from "react";
import { leave } from "./arrival";
import { Message, Providers, TokenForm } from "./signin";

const keys = [
  ["Ctrl K", "Search, jump to a screen, or run an action"],
  ["/", "Filter the list"],
  ["j, k", "Next or previous row, in a table"],
  ["Enter", "Open the row"],
  ["Esc", "Close the detail"],
  ["e", "Export the table as CSV, in a table"],
  ["?", "Show these shortcuts"],
] as const;

export function Shortcuts({ onClose }: { onClose: () => void }) {
  return (
    <Dialog.Root open onOpenChange={onClose}>
      <Dialog.Portal>
        <Dialog.Overlay className="appear fixed inset-0 z-40 bg-black/50" />
        <Dialog.Content className="menu appear fixed top-1/2 left-1/2 w-[min(26rem,92vw)] -translate-x-1/2 -translate-y-1/2 p-5" aria-describedby={undefined}>
          <div className="mb-3 flex items-center">
            <Dialog.Title className="flex-1 text-lg font-semibold">Keyboard shortcuts</Dialog.Title>
            <Dialog.Close className="icon-button" aria-label="Close">
              <X className="size-4" aria-hidden />
            </Dialog.Close>
          </div>
          <dl className="grid grid-cols-[max-content_1fr] gap-x-4 gap-y-2">
            {keys.map(([key, what]) => (
              <div key={key} className="contents">
                <dt>
                  <kbd className="border-border bg-raised rounded border px-1.5 font-mono text-xs">{key}</kbd>
                </dt>
                <dd>{what}</dd>
              </div>
            ))}
          </dl>
        </Dialog.Content>
      </Dialog.Portal>
    </Dialog.Root>
  );
}

/** What is beside the main screens on a phone. The focus returns to where it was opened. */
export function Sheet({ onClose, back, children }: { onClose: () => void; back: () => void; children: ReactNode }) {
  return (
    <Dialog.Root open onOpenChange={onClose}>
      <Dialog.Portal>
        <Dialog.Overlay className="appear fixed inset-0 z-40 bg-black/50" />
        <Dialog.Content
          className="menu appear fixed inset-x-0 bottom-0 max-h-[80dvh] overflow-auto rounded-b-none p-4"
          aria-describedby={undefined}
          onClick={onClose}
          onCloseAutoFocus={(event) => {
            event.preventDefault();
            back();
          }}
        >
          <Dialog.Title className="sr-only">All screens</Dialog.Title>
          {children}
        </Dialog.Content>
      </Dialog.Portal>
    </Dialog.Root>
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
          <div className="flex flex-col gap-4">
            <Message />
            <Providers beside />
            <TokenForm />
          </div>
          <button type="button" className="button button-quiet mt-2 w-full justify-center" onClick={() => void leave()}>
            Sign out
          </button>
        </Dialog.Content>
      </Dialog.Portal>
    </Dialog.Root>
  );
}

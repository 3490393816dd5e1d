import { X } from "lucide-react";
import { Dialog } from "radix-ui";

const keys = [
  ["Ctrl K", "Search, jump to a screen, or run an action"],
  ["/", "Filter the list"],
  ["j, k", "Next or previous row, in a table"],
  ["Enter", "Open the row"],
  ["Esc", "Close the detail"],
  ["e", "Export the table as CSV, in a table"],
  ["?", "Show these shortcuts"],
] as const;

export function Shortcuts({ open, onOpenChange }: { open: boolean; onOpenChange: (open: boolean) => void }) {
  return (
    <Dialog.Root open={open} onOpenChange={onOpenChange}>
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

import { Link } from "@tanstack/react-router";
import { Dialog } from "radix-ui";
import { useRef, useState } from "react";
import type { Node, NodeDrain } from "../gen/control/v1/fleet_pb";
import { Button, returnFocus } from "../parts/action";
import { Copy } from "../parts/copy";
import { OutOfService } from "./node-parts";

/** How a process is stopped and started again, by what runs it. */
function commands(node: Node): [where: string, stop: string, start: string][] {
  return [
    ["systemd", `systemctl stop headgate@${node.kind}`, `systemctl start headgate@${node.kind}`],
    ["Kubernetes", `kubectl -n headgate delete pod ${node.id}`, "it starts another pod by itself"],
  ];
}

function Command({ text }: { text: string }) {
  return (
    <span className="flex min-w-0 items-start gap-1">
      <code className="bg-raised min-w-0 rounded px-1.5 py-0.5 break-words">{text}</code> <Copy text={text} label={`Copy ${text}`} />
    </span>
  );
}

/**
 * How a node that no call drains is drained and brought back: its process finishes its work when it is stopped. The
 * console shows what that means, and the commands; it cannot stop processes.
 */
export function Stop({ node, drain }: { node: Node; drain: NodeDrain | undefined }) {
  const [open, setOpen] = useState(false);
  const opener = useRef<HTMLButtonElement>(null);
  const isPart = ["gateway", "aggregate", "projection", "control"].includes(node.kind);
  return (
    <Dialog.Root open={open} onOpenChange={setOpen}>
      <Button ref={opener} refusal={drain ? "" : "control has not reported yet what that means"} onClick={() => setOpen(true)}>
        Drain…
      </Button>
      <Dialog.Portal>
        <Dialog.Overlay className="appear fixed inset-0 z-40 bg-black/50" />
        <Dialog.Content
          className="menu appear fixed top-1/2 left-1/2 flex max-h-[90dvh] w-[min(44rem,92vw)] -translate-x-1/2 -translate-y-1/2 flex-col gap-3 overflow-auto p-5"
          aria-describedby={undefined}
          onCloseAutoFocus={(event) => {
            event.preventDefault();
            returnFocus(opener.current);
          }}
        >
          <Dialog.Title className="text-lg font-semibold">Drain {node.id}</Dialog.Title>
          <p className="text-muted">{drain?.refusal ? `${drain.refusal} ` : ""}It drains when its process is stopped, where it runs: the console does not stop processes.</p>
          {drain ? <OutOfService drain={drain} /> : null}
          {isPart ? (
            <table className="w-full text-left">
              <thead>
                <tr className="text-muted text-sm">
                  <th scope="col" className="py-1 pr-3 font-normal">
                    With
                  </th>
                  <th scope="col" className="py-1 pr-3 font-normal">
                    Drain
                  </th>
                  <th scope="col" className="py-1 font-normal">
                    Bring back
                  </th>
                </tr>
              </thead>
              <tbody>
                {commands(node).map(([where, stop, start]) => (
                  <tr key={where} className="border-border border-t align-top">
                    <th scope="row" className="py-1.5 pr-3 font-normal">
                      {where}
                    </th>
                    <td className="py-1.5 pr-3">
                      <Command text={stop} />
                    </td>
                    <td className="py-1.5">{start.includes("headgate@") ? <Command text={start} /> : start}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          ) : null}
          <div className="mt-2 flex flex-wrap justify-end gap-2">
            {drain && drain.placedTenantCount > 0 ? (
              <Link to="/moves" search={{ kind: node.kind }} className="button no-underline">
                Move its tenants…
              </Link>
            ) : null}
            <Dialog.Close className="button">Close</Dialog.Close>
          </div>
        </Dialog.Content>
      </Dialog.Portal>
    </Dialog.Root>
  );
}

import { useMutation } from "@connectrpc/connect-query";
import { Plus } from "lucide-react";
import { Dialog } from "radix-ui";
import { useRef, useState } from "react";
import { ApiKeyService, type ApiKey } from "../gen/control/v1/api_key_pb";
import { useRefusal, useWhoAmI } from "../app/session";
import { Button, returnFocus } from "../parts/action";
import { Copy } from "../parts/copy";
import { Choice, Text } from "../parts/field";
import { Code, Facts } from "../parts/page";
import { Notice, Problem } from "../parts/state";
import { useTenant } from "../parts/tenant";
import { Time } from "../parts/time";
import { tenantNames } from "./tenant-names";

const lifetimes: [value: string, label: string][] = [
  ["3600", "1 hour"],
  ["86400", "24 hours"],
  ["604800", "7 days"],
  ["2592000", "30 days"],
];

/** A right that no key can have. */
const withheld = "key.admin";

interface Issued {
  key: ApiKey | undefined;
  secret: string;
}

/** Issues an API key with rights that the principal has. The secret is shown once, and is nowhere else. */
export function Issue({ scope, onIssued }: { scope: string; onIssued: () => void }) {
  const [open, setOpen] = useState(false);
  const [issued, setIssued] = useState<Issued>();
  const opener = useRef<HTMLButtonElement>(null);
  const refusal = useRefusal(withheld, scope === "" ? "platform" : "tenant");
  return (
    <Dialog.Root
      open={open}
      onOpenChange={(next) => {
        setOpen(next);
        setIssued(undefined);
      }}
    >
      <div>
        <Button ref={opener} strong refusal={refusal} onClick={() => setOpen(true)}>
          <Plus className="size-4" aria-hidden /> Issue a key…
        </Button>
      </div>
      <Dialog.Portal>
        <Dialog.Overlay className="appear fixed inset-0 z-40 bg-black/50" />
        <Dialog.Content
          className="menu appear fixed top-1/2 left-1/2 max-h-[92dvh] w-[min(36rem,94vw)] -translate-x-1/2 -translate-y-1/2 overflow-auto p-5"
          aria-describedby={undefined}
          // The secret would be lost with a click beside it, or with Escape.
          onInteractOutside={(event) => event.preventDefault()}
          onEscapeKeyDown={(event) => {
            if (issued) event.preventDefault();
          }}
          onCloseAutoFocus={(event) => {
            event.preventDefault();
            returnFocus(opener.current);
          }}
        >
          <Dialog.Title className="text-lg font-semibold">{issued ? "The key is issued" : "Issue an API key"}</Dialog.Title>
          {issued ? (
            <div className="mt-3 flex flex-col gap-3">
              <Notice tone="warn">Copy the secret now: it is not stored, and cannot be shown again.</Notice>
              <Code label="Secret">{issued.secret}</Code>
              <p className="text-muted">
                Programs send it with each call: <code>authorization: Bearer</code> and the secret.
              </p>
              {issued.key ? (
                <Facts
                  of={[
                    ["Name", issued.key.displayName],
                    ["Tenants", tenantNames(issued.key.tenants)],
                    ["Rights", <code key="r" className="break-words">{issued.key.rights.join(", ")}</code>],
                    ["Expires", <Time key="e" of={issued.key.expireTime} />],
                  ]}
                />
              ) : null}
              <div className="flex justify-end gap-2">
                <Dialog.Close className="button">Done</Dialog.Close>
                <Copy strong text={issued.secret}>
                  Copy the secret
                </Copy>
              </div>
            </div>
          ) : (
            <Form
              scope={scope}
              onIssued={(answer) => {
                setIssued(answer);
                onIssued();
              }}
            />
          )}
        </Dialog.Content>
      </Dialog.Portal>
    </Dialog.Root>
  );
}

const words = (text: string) => text.split(/[\s,]+/).filter((one) => one !== "");

function Form({ scope, onIssued }: { scope: string; onIssued: (issued: Issued) => void }) {
  const who = useWhoAmI().data;
  const tenant = useTenant();
  const [name, setName] = useState("");
  const [tenants, setTenants] = useState(tenant);
  const [rights, setRights] = useState<ReadonlySet<string>>(new Set());
  const [lifetime, setLifetime] = useState("86400");
  const [narrowed, setNarrowed] = useState("");
  const [reason, setReason] = useState("");
  // The response has the secret: it is not retained.
  const all = useMutation(ApiKeyService.method.createApiKey, { gcTime: 0 });
  const own = useMutation(ApiKeyService.method.createTenantApiKey, { gcTime: 0 });
  const held = [...new Set(who?.rights ?? [])].filter((one) => one !== withheld).sort();
  const named = words(tenants);
  const granted = [...new Set([...rights, ...words(narrowed)])];
  const go = async () => {
    const common = { displayName: name.trim(), rights: granted, lifetime: { seconds: BigInt(lifetime) }, reason };
    try {
      const { apiKey, secret } = scope === "" ? await all.mutateAsync({ ...common, tenants: named }) : await own.mutateAsync({ ...common, tenantId: scope });
      all.reset();
      own.reset();
      onIssued({ key: apiKey, secret });
    } catch {
      // Shown below.
    }
  };
  const error = scope === "" ? all.error : own.error;
  return (
    <form
      className="mt-3 flex flex-col gap-3 [&_.field]:w-full"
      onSubmit={(event) => {
        event.preventDefault();
        void go();
      }}
    >
      <div className={`grid gap-3 ${scope === "" ? "sm:grid-cols-[1fr_1fr_7rem]" : "sm:grid-cols-[1fr_7rem]"}`}>
        <Text label="Name" value={name} onChange={setName} placeholder="reporting" />
        {scope === "" ? <Text label="Tenants" value={tenants} onChange={setTenants} placeholder="acme, globex or *" /> : null}
        <Choice label="Valid for" value={lifetime} options={lifetimes} onChange={setLifetime} />
      </div>
      <fieldset>
        <legend className="text-muted mb-1 text-sm">Rights: yours, except {withheld}</legend>
        <div className="border-border grid max-h-56 grid-cols-1 gap-x-4 overflow-auto rounded-md border px-3 py-1 sm:grid-cols-2" tabIndex={0} role="group" aria-label="Your rights">
          {held.map((right) => (
            <label key={right} className="flex h-7 cursor-pointer items-center gap-2">
              <input
                type="checkbox"
                className="accent-accent size-4 shrink-0"
                checked={rights.has(right)}
                onChange={({ target }) => {
                  const next = new Set(rights);
                  if (target.checked) next.add(right);
                  else next.delete(right);
                  setRights(next);
                }}
              />
              <code className="truncate" title={right}>
                {right}
              </code>
            </label>
          ))}
        </div>
      </fieldset>
      <Text label="Narrowed rights (optional)" value={narrowed} onChange={setNarrowed} placeholder="query.read:orders command.submit:transfer" />
      <Text label="Reason (optional), for the audit record" value={reason} onChange={setReason} />
      {error ? <Problem error={error} /> : null}
      <div className="flex justify-end gap-2">
        <Dialog.Close className="button">Cancel</Dialog.Close>
        <Button type="submit" strong disabled={name.trim() === "" || granted.length === 0 || (scope === "" && named.length === 0) || all.isPending || own.isPending}>
          Issue
        </Button>
      </div>
    </form>
  );
}

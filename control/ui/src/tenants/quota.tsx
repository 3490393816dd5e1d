import { Code, ConnectError } from "@connectrpc/connect";
import { useMutation } from "@connectrpc/connect-query";
import { useState } from "react";
import { TenantService, type Tenant } from "../gen/control/v1/tenant_pb";
import { useRefusal } from "../app/session";
import { Button } from "../parts/action";
import { Text } from "../parts/field";
import { Notice, Problem } from "../parts/state";
import { toast } from "../parts/toast";

interface Limit<K extends string> {
  key: K;
  label: string;
  /** What the number counts, in a sentence. */
  unit: string;
  fraction?: boolean;
}

const calls: Limit<"rate" | "burst" | "concurrent" | "streams">[] = [
  { key: "rate", label: "Calls per second", unit: "calls per second", fraction: true },
  { key: "burst", label: "Burst above the rate", unit: "burst" },
  { key: "concurrent", label: "Calls in flight", unit: "in flight" },
  { key: "streams", label: "Streams", unit: "streams" },
];

const stored: Limit<"events" | "bytes" | "aggregates" | "keys">[] = [
  { key: "events", label: "Events", unit: "events" },
  { key: "bytes", label: "Bytes", unit: "bytes" },
  { key: "aggregates", label: "Aggregates", unit: "aggregates" },
  { key: "keys", label: "Idempotency keys of 7 days", unit: "idempotency keys" },
];

interface Set {
  tenant: Tenant;
  reload: () => Promise<unknown>;
}

/** A tenant's limits at each gateway. */
export function CallLimits({ tenant, reload }: Set) {
  const save = useMutation(TenantService.method.setQuota);
  const { tenantId } = tenant;
  return (
    <Form
      title="Limits at each gateway"
      what="limits"
      limits={calls}
      tenant={tenant}
      of={(one) => ({ rate: one.quota?.rate ?? 0, burst: one.quota?.burst ?? 0, concurrent: one.quota?.concurrent ?? 0, streams: one.quota?.streams ?? 0 })}
      save={async ({ rate, burst, concurrent, streams }, expectedRevision) => (await save.mutateAsync({ tenantId, quota: { rate, burst, concurrent, streams }, expectedRevision })).tenant}
      reload={reload}
    />
  );
}

/** A tenant's limits of what it stores. */
export function StorageLimits({ tenant, reload }: Set) {
  const save = useMutation(TenantService.method.setStorageQuota);
  const { tenantId } = tenant;
  return (
    <Form
      title="Limits of what is stored"
      what="storage limits"
      limits={stored}
      tenant={tenant}
      of={(one) => ({ events: Number(one.storageQuota?.events ?? 0n), bytes: Number(one.storageQuota?.bytes ?? 0n), aggregates: Number(one.storageQuota?.aggregates ?? 0n), keys: Number(one.storageQuota?.keys ?? 0n) })}
      save={async (set, expectedRevision) => (await save.mutateAsync({ tenantId, quota: { events: BigInt(set.events), bytes: BigInt(set.bytes), aggregates: BigInt(set.aggregates), keys: BigInt(set.keys) }, expectedRevision })).tenant}
      reload={reload}
    />
  );
}

interface FormProps<K extends string> extends Set {
  title: string;
  /** What is saved, in a sentence. */
  what: string;
  limits: Limit<K>[];
  of: (tenant: Tenant) => Record<K, number>;
  save: (limits: Record<K, number>, revision: bigint) => Promise<Tenant | undefined>;
}

/**
 * Limits are set against the revision that the form was filled from: what another operator has set
 * since is shown instead of overwritten.
 */
function Form<K extends string>({ title, what, limits, tenant, of, save, reload }: FormProps<K>) {
  const texts = (one: Tenant) => Object.fromEntries(limits.map(({ key }) => [key, String(of(one)[key])])) as Record<K, string>;
  const same = (a: Record<K, string>, b: Record<K, string>) => limits.every(({ key }) => a[key] === b[key]);
  const refusal = useRefusal("fleet.admin");
  const [read, setRead] = useState(tenant);
  const [typed, setTyped] = useState(() => texts(tenant));
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  const current = texts(tenant);
  const touched = !same(typed, texts(read));
  // An untouched form follows what is stored; what it has just saved is newer than what was listed before.
  if (!touched && tenant.revision > read.revision) {
    setRead(tenant);
    setTyped(current);
  }
  const changed = touched && !same(current, texts(read));
  const wrong = limits.find(({ key, fraction }) => !(fraction ? /^\d+(\.\d+)?$/ : /^\d+$/).test(typed[key]));
  const go = async () => {
    setBusy(true);
    setError(undefined);
    try {
      const numbers = Object.fromEntries(limits.map(({ key }) => [key, Number(typed[key])])) as Record<K, number>;
      const saved = await save(numbers, tenant.revision);
      if (saved) {
        setRead(saved);
        setTyped(texts(saved));
      }
      toast(`The ${what} of ${tenant.tenantId} are saved.`);
      void reload();
    } catch (err) {
      setError(err);
      if (ConnectError.from(err).code === Code.Aborted) void reload();
    } finally {
      setBusy(false);
    }
  };
  return (
    <form
      className="flex flex-col gap-2"
      aria-label={title}
      onSubmit={(event) => {
        event.preventDefault();
        void go();
      }}
    >
      <h3>{title}</h3>
      <p className="text-muted text-sm">0 is the default of all tenants.</p>
      <div className="grid grid-cols-2 gap-2">
        {limits.map(({ key, label }) => (
          <Text key={key} number label={label} value={typed[key]} onChange={(next) => setTyped({ ...typed, [key]: next })} />
        ))}
      </div>
      {changed ? (
        <Notice tone="warn">
          Another operator has set these limits in the meantime: {limits.map(({ key, unit }) => (unit === "burst" ? `burst ${current[key]}` : `${current[key]} ${unit}`)).join(", ")}.
          <button
            type="button"
            className="button ml-2"
            onClick={() => {
              setRead(tenant);
              setTyped(current);
              setError(undefined);
            }}
          >
            Use theirs
          </button>
        </Notice>
      ) : null}
      <div className="flex items-center gap-2">
        <Button type="submit" refusal={refusal} disabled={wrong !== undefined || !touched || changed || busy}>
          Save {what}
        </Button>
        {wrong ? <span className="text-bad">{wrong.label}: this is no {wrong.fraction ? "" : "whole "}number.</span> : null}
      </div>
      {error ? <Problem error={error} /> : null}
    </form>
  );
}

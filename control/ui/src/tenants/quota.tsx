import { Code, ConnectError } from "@connectrpc/connect";
import { useMutation } from "@connectrpc/connect-query";
import { useState } from "react";
import { TenantService, type Tenant } from "../gen/control/v1/tenant_pb";
import { useRefusal } from "../app/session";
import { Button } from "../parts/action";
import { Text } from "../parts/field";
import { Notice, Problem } from "../parts/state";
import { toast } from "../parts/toast";

type Bounds = Record<"rate" | "burst" | "concurrent" | "streams", string>;

function boundsOf(tenant: Tenant): Bounds {
  const quota = tenant.quota;
  return { rate: String(quota?.rate ?? 0), burst: String(quota?.burst ?? 0), concurrent: String(quota?.concurrent ?? 0), streams: String(quota?.streams ?? 0) };
}

/**
 * A tenant's limits. They are set against the revision that the form was filled from: what another
 * operator has set since is shown instead of overwritten.
 */
export function Quota({ tenant, reload }: { tenant: Tenant; reload: () => Promise<unknown> }) {
  const refusal = useRefusal("fleet.admin");
  const [read, setRead] = useState(tenant);
  const [bounds, setBounds] = useState(() => boundsOf(tenant));
  const current = boundsOf(tenant);
  const touched = JSON.stringify(bounds) !== JSON.stringify(boundsOf(read));
  // An untouched form follows what is stored.
  if (!touched && tenant.revision !== read.revision) {
    setRead(tenant);
    setBounds(current);
  }
  const changed = touched && JSON.stringify(current) !== JSON.stringify(boundsOf(read));
  const save = useMutation(TenantService.method.setQuota, {
    onSuccess: ({ tenant: saved }) => {
      if (saved) {
        setRead(saved);
        setBounds(boundsOf(saved));
      }
      toast(`The limits of ${tenant.tenantId} are saved.`);
      void reload();
    },
    onError: (err) => {
      if (ConnectError.from(err).code === Code.Aborted) void reload();
    },
  });
  const field = (name: keyof Bounds, label: string) => <Text number label={label} value={bounds[name]} onChange={(next) => setBounds({ ...bounds, [name]: next })} />;
  const wrong = Object.values(bounds).some((text) => !/^\d+(\.\d+)?$/.test(text));
  const whole = (text: string) => Math.round(Number(text));
  return (
    <form
      className="flex flex-col gap-2"
      onSubmit={(event) => {
        event.preventDefault();
        // Of what is stored now, if the limits are the ones in the form.
        const revision = changed ? read.revision : tenant.revision;
        save.mutate({
          tenantId: tenant.tenantId,
          quota: { rate: Number(bounds.rate), burst: whole(bounds.burst), concurrent: whole(bounds.concurrent), streams: whole(bounds.streams) },
          expectedRevision: revision,
        });
      }}
    >
      <h3>Limits at each gateway</h3>
      <p className="text-muted text-sm">0 is the default of all tenants.</p>
      <div className="grid grid-cols-2 gap-2">
        {field("rate", "Calls per second")}
        {field("burst", "Burst above the rate")}
        {field("concurrent", "Calls in flight")}
        {field("streams", "Streams")}
      </div>
      {changed ? (
        <Notice tone="warn">
          Another operator has set these limits in the meantime: {current.rate} calls per second, burst {current.burst}, {current.concurrent} in flight, {current.streams} streams.
          <button
            type="button"
            className="button ml-2"
            onClick={() => {
              setRead(tenant);
              setBounds(current);
              save.reset();
            }}
          >
            Use theirs
          </button>
        </Notice>
      ) : null}
      <div className="flex items-center gap-2">
        <Button type="submit" refusal={refusal} disabled={wrong || !touched || changed || save.isPending}>
          Save limits
        </Button>
        {wrong ? <span className="text-bad">Each limit is a number.</span> : null}
      </div>
      {save.error ? <Problem error={save.error} /> : null}
    </form>
  );
}

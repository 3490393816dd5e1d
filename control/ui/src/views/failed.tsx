import { useMutation, useQuery } from "@connectrpc/connect-query";
import { useState } from "react";
import { ViewService } from "../gen/control/v1/view_pb";
import type { ViewFailure } from "../gen/projection/gateway/v1/query_pb";
import { time } from "../app/format";
import { useRefusal } from "../app/session";
import { Dangerous } from "../parts/action";
import { Text } from "../parts/field";
import { Badge } from "../parts/state";
import { Table } from "../parts/table";

/** The event that a view cannot apply, and the way to skip it. */
export function Failed({ tenant, view, failure, again }: { tenant: string; view: string; failure: ViewFailure; again: () => void }) {
  const refusal = useRefusal("fleet.admin");
  const skip = useMutation(ViewService.method.skipEvent);
  const [reason, setReason] = useState("");
  return (
    <section className="panel flex flex-col gap-2" aria-label="The view has failed">
      <p>
        <Badge tone="bad">failed</Badge> The view cannot apply the event <code>{failure.eventType}</code> of <code>{failure.aggregate}</code> (version {String(failure.version)}, id <code>{failure.eventId}</code>).
      </p>
      {failure.expression ? (
        <p>
          Expression: <code>{failure.expression}</code>
        </p>
      ) : null}
      {failure.rule ? <p className="text-muted">{failure.rule}</p> : null}
      <p>{failure.reason}</p>
      <p className="text-muted">Correct the view in the model, or skip the event: the view is then incomplete.</p>
      <div className="flex flex-wrap items-end gap-2">
        <Text wide label="Reason for skipping the event" value={reason} onChange={setReason} />
        <Dangerous
          title="Skip event"
          name={view}
          refusal={refusal}
          disabled={reason === ""}
          what="The view is built without this event on every node. The decision is audited and can be revoked."
          run={async () => {
            await skip.mutateAsync({ tenantId: tenant, view, eventId: failure.eventId, reason });
            again();
          }}
        >
          Skip event
        </Dangerous>
      </div>
    </section>
  );
}

/** The events of a view that operators have skipped. */
export function Skips({ tenant, view }: { tenant: string; view: string }) {
  const refusal = useRefusal("fleet.admin");
  const listed = useQuery(ViewService.method.listSkips, { tenantId: tenant }, { enabled: refusal === "", refetchInterval: 10_000 });
  const revoke = useMutation(ViewService.method.revokeSkip);
  const skips = listed.data?.skips.filter((skip) => skip.view === view && skip.current) ?? [];
  if (skips.length === 0) return null;
  return (
    <Table
      label="Skipped events"
      rows={skips}
      id={(skip) => skip.eventId}
      empty="No event is skipped."
      columns={[
        { name: "Event", cell: (skip) => <span title={skip.eventId}>{skip.eventType}</span> },
        { name: "Aggregate", cell: (skip) => skip.aggregate },
        { name: "State", cell: (skip) => (skip.revoked ? <Badge tone="ok">revoked</Badge> : <Badge tone="warn">skipped</Badge>) },
        { name: "By", cell: (skip) => skip.by },
        { name: "Reason", cell: (skip) => skip.reason },
        { name: "Time", cell: (skip) => time(skip.time) },
        {
          name: "",
          cell: (skip) =>
            skip.revoked ? null : (
              <Dangerous
                title="Revoke"
                name={view}
                refusal={refusal}
                what="The view is built again with the event, and fails again unless the reason is gone."
                run={async () => {
                  await revoke.mutateAsync({ tenantId: tenant, view, eventId: skip.eventId, reason: "revoked in the Control UI" });
                  await listed.refetch();
                }}
              >
                Revoke
              </Dangerous>
            ),
        },
      ]}
    />
  );
}

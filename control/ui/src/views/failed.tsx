import { useMutation, useQuery } from "@connectrpc/connect-query";
import { Link } from "@tanstack/react-router";
import { ViewService } from "../gen/control/v1/view_pb";
import type { ViewFailure } from "../gen/projection/gateway/v1/query_pb";
import { instant } from "../app/format";
import { useRefusal } from "../app/session";
import { Confirm } from "../parts/action";
import { Badge } from "../parts/state";
import { Table } from "../parts/table";
import { Time } from "../parts/time";
import { timeWidth } from "../parts/time-width";
import { toast } from "../parts/toast";

/** The event that a view cannot apply, and the way to skip it. */
export function Failed({ tenant, view, failure, again }: { tenant: string; view: string; failure: ViewFailure; again: () => void }) {
  const refusal = useRefusal("fleet.admin");
  const skip = useMutation(ViewService.method.skipEvent);
  return (
    <section className="panel flex flex-col gap-2" aria-label="The view has failed">
      <p>
        <Badge tone="bad">failed</Badge> The view cannot apply the event <code>{failure.eventType}</code> of <code>{failure.aggregate}</code> (version {String(failure.version)} of the aggregate, event id <code>{failure.eventId}</code>).
      </p>
      {failure.expression ? (
        <p>
          Expression: <code>{failure.expression}</code>
        </p>
      ) : null}
      {failure.rule ? <p className="text-muted">{failure.rule}</p> : null}
      <p>{failure.reason}</p>
      <p className="text-muted"><Link to="/models">Correct the view in the model</Link>, or skip the event: the view is then incomplete.</p>
      <div>
        <Confirm
          title="Skip event"
          refusal={refusal}
          reason
          danger
          what={`The view ${view} of ${tenant} is rebuilt without this event on every node. The decision is audited and can be revoked.`}
          run={async (reason) => {
            await skip.mutateAsync({ tenantId: tenant, view, eventId: failure.eventId, reason });
            toast(`The event is skipped: ${view} is being rebuilt.`);
            again();
          }}
        >
          Skip event…
        </Confirm>
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
        { name: "Event", value: (skip) => skip.eventType },
        { name: "Event id", hidden: true, value: (skip) => skip.eventId },
        { name: "Aggregate", value: (skip) => skip.aggregate },
        { name: "State", width: 110, value: (skip) => (skip.revoked ? "revoked" : "skipped"), cell: (skip) => (skip.revoked ? <Badge tone="ok">revoked</Badge> : <Badge tone="warn">skipped</Badge>) },
        { name: "By", value: (skip) => skip.by },
        { name: "Reason", width: 200, value: (skip) => skip.reason },
        { name: "Time", width: timeWidth, value: (skip) => instant(skip.time), cell: (skip) => <Time of={skip.time} /> },
        {
          name: "Action",
          width: 110,
          value: () => "",
          cell: (skip) =>
            skip.revoked ? null : (
              <Confirm
                title="Revoke"
                refusal={refusal}
                danger
                reason
                what={`The view ${view} of ${tenant} is rebuilt with the event, and fails again unless the cause is corrected.`}
                run={async (reason) => {
                  await revoke.mutateAsync({ tenantId: tenant, view, eventId: skip.eventId, reason });
                  await listed.refetch();
                }}
              >
                Revoke…
              </Confirm>
            ),
        },
      ]}
    />
  );
}

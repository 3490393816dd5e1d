import { Link } from "@tanstack/react-router";
import type { JournalEvent } from "../gen/aggregate/gateway/v1/event_pb";
import { number } from "../app/format";
import { Id } from "../parts/copy";
import { Code, Facts } from "../parts/page";
import { Badge } from "../parts/state";
import { Time } from "../parts/time";

/** An event's data as text: JSON, or the stored bytes where JSON cannot represent them. */
export function dataText(event: JournalEvent): string {
  if (event.rawData.length > 0) return new TextDecoder().decode(event.rawData);
  return JSON.stringify(event.data ?? {}, null, 2);
}

/** An event in the address: its version at an aggregate, its position in the journal. */
export function typeName(event: JournalEvent): string {
  return `${event.aggregateType}.${event.type}`;
}

/** Everything that is stored of an event: who and what caused it, its data and its headers. */
export function EventDetail({ tenant, event }: { tenant: string; event: JournalEvent }) {
  if (event.unreadable)
    return (
      <>
        <p className="flex items-center gap-2">
          <Badge tone="bad">no event</Badge> <span>Its {event.unreadable.fault} cannot be read; {number(event.unreadable.bytes)} bytes.</span>
        </p>
        <Facts of={[["Stored", <Time key="t" of={event.time} />], ["Reference", <Id key="p" text={event.position} label="reference" />]]} />
      </>
    );
  const headers = Object.entries(event.headers).sort(([a], [b]) => a.localeCompare(b));
  return (
    <>
      <Code label="Data of the event">{dataText(event)}</Code>
      {event.rawData.length > 0 ? <p className="text-muted text-sm">These are the stored bytes: JSON numbers or texts of a browser would change them.</p> : null}
      <Facts
        of={[
          ["Type", typeName(event)],
          ["Version", String(event.version)],
          ["Time", <Time key="t" of={event.time} />],
          ["By", event.principal || <span key="b" className="text-muted">not known</span>],
          ["Event id", <Id key="e" text={event.id} label="event id" />],
          ["Caused by", event.causationId && <Id key="c" text={event.causationId} label="causation id" />],
          ["Correlation id", event.correlationId && <Id key="o" text={event.correlationId} label="correlation id" />],
          ["Request id", event.requestId && <Id key="r" text={event.requestId} label="request id" />],
          ["Trace id", event.traceId && <Id key="x" text={event.traceId} label="trace id" />],
          ["Idempotency key", event.idempotencyKey && <Id key="k" text={event.idempotencyKey} label="idempotency key" />],
          ["Model", event.modelRevision && <code key="m">{event.modelRevision}</code>],
          ["Form of the data", event.dataVersion > 1 ? String(event.dataVersion) : ""],
          ["Position", <Id key="p" text={event.position} label="position" />],
        ]}
      />
      <p className="flex flex-wrap gap-x-4">
        {event.correlationId === "" ? null : (
          <Link to="/timeline" search={{ tenant, id: event.correlationId }}>
            Timeline
          </Link>
        )}
        {event.requestId === "" ? null : (
          <Link to="/audit" search={{ tenant, id: event.requestId }}>
            Audit records of the request
          </Link>
        )}
        <Link to="/workflows" search={{ tenant, q: event.id }}>
          Workflow instances of the event
        </Link>
      </p>
      {headers.length > 0 ? (
        <details>
          <summary className="cursor-pointer">Headers ({headers.length})</summary>
          <div className="mt-2">
            <Facts of={headers.map(([name, value]) => [name, <code key={name} className="break-all">{value}</code>])} />
          </div>
        </details>
      ) : null}
    </>
  );
}

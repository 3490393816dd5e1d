import { useQuery } from "@connectrpc/connect-query";
import { useState } from "react";
import { TimelineService, type GetTimelineResponse, type Span } from "../gen/control/v1/timeline_pb";
import { ms, number } from "../app/format";
import { useUrl } from "../app/url";
import { Button } from "../parts/action";
import { Text } from "../parts/field";
import { Answered, Badge, Empty } from "../parts/state";
import { TenantPicker, useTenant } from "../parts/tenant";
import { bars } from "./gantt";

export function Timeline() {
  const tenant = useTenant();
  const [get, set] = useUrl();
  const [typed, setTyped] = useState(get("id"));
  const id = get("id");
  const timeline = useQuery(TimelineService.method.getTimeline, { tenantId: tenant, id }, { enabled: tenant !== "" && id !== "" });
  return (
    <div className="flex flex-col gap-4">
      <h1>Timeline</h1>
      <form
        className="flex flex-wrap items-end gap-4"
        onSubmit={(event) => {
          event.preventDefault();
          set({ id: typed.trim() });
          if (typed.trim() === id) void timeline.refetch();
        }}
      >
        <TenantPicker />
        <Text wide label="Correlation, trace or request id" value={typed} onChange={setTyped} />
        <Button type="submit" strong>
          Show
        </Button>
      </form>
      {id === "" ? <Empty>Every answer bears x-correlation-id, trace-id and x-request-id: paste any of them.</Empty> : <Answered of={timeline}>{(data) => <Gantt timeline={data} />}</Answered>}
    </div>
  );
}

const colors: Record<string, string> = { call: "bg-accent", command: "bg-ok", event: "bg-text", projection: "bg-warn", step: "bg-bad" };

function Gantt({ timeline }: { timeline: GetTimelineResponse }) {
  const [chosen, setChosen] = useState<Span>();
  const laid = bars(timeline.spans);
  return (
    <>
      <p>
        {timeline.spans.length} spans in {ms(laid.total)} under <code>{timeline.correlationId}</code> {timeline.complete ? null : <Badge tone="warn">there are more</Badge>}
      </p>
      <p className="flex gap-3" aria-hidden="true">
        {Object.entries(colors).map(([kind, color]) => (
          <span key={kind} className="flex items-center gap-1">
            <span className={`inline-block size-3 rounded-sm ${color}`} /> {kind}
          </span>
        ))}
      </p>
      <ol aria-label="Spans" className="flex flex-col gap-1">
        {laid.bars.map(({ span, left, width, after }, n) => (
          <li key={n} className="grid grid-cols-[minmax(9rem,20rem)_1fr] items-center gap-2">
            <button type="button" className="truncate text-left hover:underline" onClick={() => setChosen(span)}>
              <span className="text-muted">{span.kind}</span> {span.name.split("/").at(-1)} <span className="text-muted">{span.node}</span>
            </button>
            <div className="bg-panel relative h-5 rounded" title={`${span.name}: +${number(after, 2)} ms, ${ms(span.ms)}`}>
              <div className={`absolute top-1 bottom-1 rounded-sm ${colors[span.kind] ?? "bg-muted"} ${span.code === "ok" || span.code === "done" ? "" : "outline-bad outline-2"}`} style={{ left: `${left}%`, width: `${Math.min(width, 100 - left)}%` }} />
              <span className="sr-only">
                {number(after, 2)} ms after the first, {span.code}
              </span>
            </div>
          </li>
        ))}
      </ol>
      {chosen ? <Detail span={chosen} /> : <p className="text-muted">Choose a span to see all of it.</p>}
    </>
  );
}

function Detail({ span }: { span: Span }) {
  const rows: [string, string][] = [
    ["Kind", span.kind],
    ["Name", span.name],
    ["Node", span.node],
    ["Ended as", span.code],
    ["Took", ms(span.ms)],
    ["Subject", span.subject],
    ["Event", span.eventId],
    ["Request", span.requestId],
    ["Caused by", span.causationId],
    ["More", span.detail],
  ];
  return (
    <section className="panel" aria-label="Span">
      <dl className="grid grid-cols-[8rem_1fr] gap-1">
        {rows
          .filter(([, value]) => value !== "")
          .map(([name, value]) => (
            <div key={name} className="contents">
              <dt className="text-muted">{name}</dt>
              <dd className="break-all">{value}</dd>
            </div>
          ))}
      </dl>
    </section>
  );
}

import { useQuery } from "@connectrpc/connect-query";
import { Link } from "@tanstack/react-router";
import { CircleX } from "lucide-react";
import { useState } from "react";
import { TimelineService, type GetTimelineResponse, type Span } from "../gen/control/v1/timeline_pb";
import { ms, number } from "../app/format";
import { useUrl } from "../app/url";
import { Button } from "../parts/action";
import { Copy } from "../parts/copy";
import { Text } from "../parts/field";
import { Drawer, Facts, Page } from "../parts/page";
import { Answered, Badge, Empty, Notice } from "../parts/state";
import { useTenant } from "../parts/tenant";
import { Time } from "../parts/time";
import { bars, failed } from "./gantt";

export function Timeline() {
  const tenant = useTenant();
  const [get, set] = useUrl();
  const id = get("id");
  const [typed, setTyped] = useState(id);
  const [asked, setAsked] = useState(id);
  // The address can change by Back or the palette, too.
  if (asked !== id) {
    setAsked(id);
    setTyped(id);
  }
  const timeline = useQuery(TimelineService.method.getTimeline, { tenantId: tenant, id }, { enabled: tenant !== "" && id !== "" });
  const open = get("span") === "" ? undefined : timeline.data?.spans[Number(get("span"))];
  return (
    <Page title="Timeline" tenant summary="What a call has caused, from the gateway to the last workflow step." detail={open ? <Detail tenant={tenant} span={open} onClose={() => set({ span: "" })} /> : null}>
      <form
        className="flex flex-wrap items-end gap-2"
        onSubmit={(event) => {
          event.preventDefault();
          set({ id: typed.trim(), span: "" });
          if (typed.trim() === id) void timeline.refetch();
        }}
      >
        <Text wide label="Correlation, trace or request id" value={typed} onChange={setTyped} />
        <Button type="submit" strong>
          Show
        </Button>
      </form>
      {id === "" ? (
        <Empty title="No call is chosen.">
          Every answer of the gateway has the headers <code>x-correlation-id</code>, <code>trace-id</code> and <code>x-request-id</code>: enter one of them. Audit records, dead letters and workflow instances link to their timelines.
        </Empty>
      ) : (
        <Answered of={timeline}>{(data) => <Spans timeline={data} />}</Answered>
      )}
    </Page>
  );
}

/** The colours of kinds. None of them is the colour of a failure. */
const colors: Record<string, string> = { call: "var(--series-2)", command: "var(--series-3)", event: "var(--series-6)", projection: "var(--series-5)", step: "var(--series-1)" };

function Spans({ timeline }: { timeline: GetTimelineResponse }) {
  const [get, set] = useUrl();
  const laid = bars(timeline.spans);
  const failures = timeline.spans.filter(failed);
  return (
    <>
      {failures.length > 0 ? (
        <Notice tone="bad">
          {failures.length} of {timeline.spans.length} spans failed. The first: <strong>{failures[0]?.name.split("/").at(-1)}</strong> ended as {failures[0]?.code}
          {failures[0]?.detail ? `: ${failures[0].detail}` : ""}
        </Notice>
      ) : null}
      <div className="flex flex-wrap items-center gap-x-4 gap-y-1">
        <p>
          {timeline.spans.length} spans in {ms(laid.total)}, correlation id <code>{timeline.correlationId}</code> <Copy text={timeline.correlationId} label="Copy the correlation id" />
        </p>
        {timeline.complete ? null : <Badge tone="warn">more spans exist than are shown</Badge>}
        <p className="flex flex-wrap gap-3" aria-hidden="true">
          {Object.entries(colors).map(([kind, color]) => (
            <span key={kind} className="text-muted flex items-center gap-1 text-sm">
              <span className="inline-block size-2.5 rounded-sm" style={{ background: color }} /> {kind}
            </span>
          ))}
          <span className="text-muted flex items-center gap-1 text-sm">
            <CircleX className="text-bad size-3" /> failed
          </span>
        </p>
      </div>
      <ol aria-label="Spans" className="panel flex flex-col gap-0.5 p-2">
        {laid.bars.map(({ span, left, width, after }, n) => {
          const bad = failed(span);
          return (
            <li key={n} className={`grid items-center gap-x-3 rounded px-2 py-0.5 md:grid-cols-[minmax(12rem,22rem)_1fr] ${get("span") === String(n) ? "bg-accent-soft" : "hover:bg-raised"}`} data-failed={bad}>
              <button type="button" className="flex min-w-0 cursor-pointer items-center gap-2 text-left hover:underline" aria-pressed={get("span") === String(n)} onClick={() => set({ span: String(n) })}>
                {bad ? <CircleX className="text-bad size-3.5 shrink-0" aria-hidden /> : <span className="size-2.5 shrink-0 rounded-sm" style={{ background: colors[span.kind] ?? "var(--muted)" }} aria-hidden />}
                <span className="truncate">
                  <span className="text-muted">{span.kind}</span> {span.name.split("/").at(-1)}
                </span>
                <span className="text-muted ml-auto text-sm whitespace-nowrap">{span.node}</span>
              </button>
              <div className="relative h-5" title={`${span.name}: +${number(after, 2)} ms, ${ms(span.ms)}, ${span.code}`}>
                <div className="border-border absolute inset-x-0 top-1/2 border-t" aria-hidden />
                <div className="absolute top-1 bottom-1 rounded-sm" style={{ left: `${Math.min(left, 99.4)}%`, width: `${Math.min(width, 100 - Math.min(left, 99.4))}%`, background: bad ? "var(--bad)" : (colors[span.kind] ?? "var(--muted)") }} />
                {bad ? (
                  <span className="bg-bad-soft text-bad absolute top-0 truncate rounded px-1 text-xs leading-5" style={left < 50 ? { left: `calc(${left + width}% + 4px)`, maxWidth: `calc(${Math.max(0, 100 - left - width)}% - 4px)` } : { right: `calc(${100 - left}% + 4px)`, maxWidth: `calc(${left}% - 4px)` }}>
                    {span.code}
                    {span.detail ? `: ${span.detail}` : ""}
                  </span>
                ) : null}
                <span className="sr-only">
                  {number(after, 2)} ms after the first, {span.code}
                </span>
              </div>
            </li>
          );
        })}
      </ol>
    </>
  );
}

function Detail({ tenant, span, onClose }: { tenant: string; span: Span; onClose: () => void }) {
  const [workflow = "", instance = ""] = span.subject.split("/", 2);
  return (
    <Drawer title={span.name.split("/").at(-1) || span.name} label="Span" badge={<Badge tone={failed(span) ? "bad" : "ok"}>{span.code || "ended"}</Badge>} onClose={onClose}>
      <Facts
        of={[
          ["Kind", span.kind],
          ["Name", <code key="n" className="break-all">{span.name}</code>],
          ["Node", span.node],
          ["Started", <Time key="t" of={span.started} />],
          ["Took", ms(span.ms)],
          ["Detail", span.detail],
          ["Subject", span.subject && <code key="s" className="break-all">{span.subject}</code>],
          ["Event id", span.eventId && <code key="e" className="break-all">{span.eventId}</code>],
          ["Request id", span.requestId && <code key="r" className="break-all">{span.requestId}</code>],
          ["Caused by", span.causationId && <code key="c" className="break-all">{span.causationId}</code>],
          ["Client", span.client],
        ]}
      />
      {span.kind === "step" && instance !== "" ? (
        <Link to="/workflows" search={{ tenant, instance: `${workflow}/${instance}` }}>
          The workflow instance
        </Link>
      ) : null}
      {span.requestId === "" ? null : (
        <Link to="/audit" search={{ tenant, id: span.requestId }}>
          Audit records of the request
        </Link>
      )}
    </Drawer>
  );
}

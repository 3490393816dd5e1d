import { useQuery } from "@connectrpc/connect-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { TimelineService, type GetTimelineResponse } from "../gen/control/v1/timeline_pb";
import { ms } from "../app/format";
import { useUrl } from "../app/url";
import { Button } from "../parts/action";
import { Copy } from "../parts/copy";
import { Text } from "../parts/field";
import { Page } from "../parts/page";
import { Answered, Badge, Empty } from "../parts/state";
import { useTenant } from "../parts/tenant";
import { axis } from "./axis";
import { Failures } from "./failures";
import { Flame, Legend } from "./flame";
import { Recent } from "./recent";
import { Detail } from "./span";
import { nest } from "./tree";

/** Everything that shares a correlation id: nested by what caused what, on one axis of time. */
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
  const nodes = nest(timeline.data?.spans ?? []);
  const open = get("span") === "" ? undefined : nodes.find((node) => String(node.index) === get("span"));
  return (
    <Page
      title="Timeline"
      tenant
      summary="What a call has caused, from the gateway to the last workflow step."
      detail={open && timeline.data ? <Detail tenant={tenant} node={open} onClose={() => set({ span: "" })} /> : null}
    >
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
        {id === "" ? null : (
          <Link to="/timeline" search={{ tenant }} className="button no-underline">
            Recent timelines
          </Link>
        )}
      </form>
      {id === "" ? (
        <>
          <p className="text-muted max-w-prose">
            Every answer of the gateway has the headers <code>x-correlation-id</code>, <code>trace-id</code> and <code>x-request-id</code>: enter one of them, or choose what {tenant} did lately. Audit records, dead letters and events link to their timelines.
          </p>
          {tenant === "" ? <Empty title="There is no tenant.">Create one on the screen Tenants.</Empty> : <Recent key={tenant} tenant={tenant} />}
        </>
      ) : (
        <Answered of={timeline}>{(data) => <Spans tenant={tenant} timeline={data} />}</Answered>
      )}
    </Page>
  );
}

function Spans({ tenant, timeline }: { tenant: string; timeline: GetTimelineResponse }) {
  const nodes = nest(timeline.spans);
  if (nodes.length === 0) return <Empty title="No span is stored.">Spans are stored for a day; reads that succeed are not recorded.</Empty>;
  const laid = axis(nodes);
  return (
    <>
      <Failures tenant={tenant} nodes={nodes} />
      <div className="flex flex-wrap items-center gap-x-4 gap-y-1">
        <p className="break-words">
          {nodes.length} {nodes.length === 1 ? "span" : "spans"} in {ms(laid.to - laid.from)}, correlation id <code className="break-all">{timeline.correlationId}</code> <Copy text={timeline.correlationId} label="Copy the correlation id" />
        </p>
        {timeline.complete ? null : <Badge tone="warn">more spans exist than are shown</Badge>}
        <Legend />
      </div>
      <Flame nodes={nodes} axis={laid} />
    </>
  );
}

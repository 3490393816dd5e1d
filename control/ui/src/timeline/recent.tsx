import { Code, ConnectError } from "@connectrpc/connect";
import { useQuery } from "@connectrpc/connect-query";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { Link } from "@tanstack/react-router";
import { TimelineService, type ListTimelinesResponse, type TimelineSummary } from "../gen/control/v1/timeline_pb";
import { instant, ms, number } from "../app/format";
import { useRefusal } from "../app/session";
import { useUrl } from "../app/url";
import { Button } from "../parts/action";
import { Card } from "../parts/card";
import { Check } from "../parts/field";
import { Answered, Badge, Empty } from "../parts/state";
import { Table } from "../parts/table";
import { Time } from "../parts/time";
import { timeWidth } from "../parts/time-width";

/** The timelines of a list, and the most that the platform lists. */
const few = 20;
const most = 100;

function useRecent(tenant: string, failedOnly: boolean, limit: number) {
  return useQuery(TimelineService.method.listTimelines, { tenantId: tenant, failedOnly, limit }, { enabled: tenant !== "", refetchInterval: 10_000, retry: false });
}

/** What a timeline is of: the command and its aggregate, or the kind and the name of its first span, of a procedure the last part. */
export function nameOf({ kind, name, subject }: Pick<TimelineSummary, "kind" | "name" | "subject">): string {
  const short = name.split("/").at(-1) ?? "";
  const on = subject === "" ? "" : ` on ${subject}`;
  return kind === "command" ? short + on : `${kind} ${short}${on}`;
}

/** How long a timeline took, in milliseconds; undefined: not known. */
function tookOf(one: TimelineSummary): number | undefined {
  return one.started && one.ended ? timestampMs(one.ended) - timestampMs(one.started) : undefined;
}

function Outcome({ of }: { of: TimelineSummary }) {
  return of.code === "ok" ? <Badge tone="ok">ok</Badge> : <Badge tone="bad">{of.code}</Badge>;
}

/** Whether there are more timelines than are listed, in words. */
export function extent({ timelines, complete }: ListTimelinesResponse, failedOnly: boolean): string {
  const count = `${number(timelines.length)} ${failedOnly ? "failed " : ""}${timelines.length === 1 ? "timeline" : "timelines"}`;
  if (complete) return `${count}: these are all${failedOnly ? " that failed" : ""}. Spans are stored for a day.`;
  return timelines.length === 0 ? "None of the newest 5,000 spans has failed; older ones were not read." : `The newest ${count}; there may be older ones.`;
}

/** The tenant's recent timelines, the one that changed last first; each leads to its spans. */
export function Recent({ tenant }: { tenant: string }) {
  const [get, set] = useUrl();
  const failedOnly = get("failed") === "yes";
  const limit = get("limit") === "all" ? most : few;
  const listed = useRecent(tenant, failedOnly, limit);
  if (ConnectError.from(listed.error).code === Code.NotFound) return <Empty title={`No node serves ${tenant}.`}>The timelines of a tenant are read once a node serves it.</Empty>;
  return (
    <Answered of={listed}>
      {(data) => (
        <>
          <Table
            label="Recent timelines"
            tools={<Check label="Failed only" checked={failedOnly} onChange={(on) => set({ failed: on ? "yes" : "" })} />}
            rows={data.timelines}
            id={(one) => one.correlationId}
            onSelect={(one) => set({ id: one.correlationId, span: "" })}
            empty={
              <Empty title={failedOnly ? `Nothing of ${tenant} has failed${data.complete ? "" : " among its newest spans"}.` : `${tenant} has no timelines.`}>Spans are stored for a day; reads that succeed are not recorded.</Empty>
            }
            columns={[
              { name: "What", width: 230, value: nameOf },
              { name: "Outcome", width: 164, value: (one) => one.code, cell: (one) => <Outcome of={one} /> },
              { name: "Failed at", width: 110, value: (one) => one.failedName, cell: (one) => one.failedName.split("/").at(-1) },
              { name: "Started", width: timeWidth, value: (one) => instant(one.started), cell: (one) => <Time of={one.started} /> },
              { name: "Took", width: 86, number: true, value: tookOf, cell: (one) => ms(tookOf(one)) },
              { name: "Spans", width: 66, number: true, value: (one) => one.spans, cell: (one) => number(one.spans) },
              { name: "Correlation id", width: 150, value: (one) => one.correlationId, cell: (one) => <code>{one.correlationId}</code> },
            ]}
          />
          <div className="flex flex-wrap items-center gap-3">
            {!data.complete && limit < most ? <Button onClick={() => set({ limit: "all" }, { replace: true })}>List up to {most}</Button> : null}
            <p className="text-muted" role="status">
              {extent(data, failedOnly)}
            </p>
          </div>
        </>
      )}
    </Answered>
  );
}

/** The tenant's last timelines on its page. */
export function RecentCard({ tenant }: { tenant: string }) {
  const refusal = useRefusal("audit.read", "tenant");
  const [get, set] = useUrl();
  const failedOnly = get("failed") === "yes";
  const listed = useRecent(refusal === "" ? tenant : "", failedOnly, 8);
  return (
    <Card
      title="Recent timelines"
      wide
      more={
        <span className="flex items-center gap-4">
          <Check label="Failed only" checked={failedOnly} onChange={(on) => set({ failed: on ? "yes" : "" }, { replace: true })} />
          <Link to="/timeline" search={{ tenant, ...(failedOnly ? { failed: "yes" } : {}) }}>
            More
          </Link>
        </span>
      }
    >
      {refusal ? (
        <p className="text-muted">Not shown: {refusal}.</p>
      ) : ConnectError.from(listed.error).code === Code.NotFound ? (
        <p className="text-muted">No node serves the tenant.</p>
      ) : (
        <Answered of={listed}>
          {(data) => (
            <>
              {data.timelines.length === 0 ? null : (
                <ul className="divide-border divide-y">
                  {data.timelines.map((one) => (
                    <li key={one.correlationId} className="flex flex-wrap items-baseline gap-x-3 py-1">
                      <span className="text-muted text-sm whitespace-nowrap">
                        <Time of={one.started} />
                      </span>
                      <Link to="/timeline" search={{ tenant, id: one.correlationId }}>
                        {nameOf(one)}
                      </Link>
                      <Outcome of={one} />
                      {one.failedName === "" ? null : <span className="text-muted min-w-0 break-words">at {one.failedName.split("/").at(-1)}</span>}
                      <span className="text-muted ml-auto text-sm whitespace-nowrap">
                        {number(one.spans)} {one.spans === 1 ? "span" : "spans"}, {ms(tookOf(one))}
                      </span>
                    </li>
                  ))}
                </ul>
              )}
              <p className="text-muted text-sm">{extent(data, failedOnly)}</p>
            </>
          )}
        </Answered>
      )}
    </Card>
  );
}

import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { useInfiniteQuery } from "@connectrpc/connect-query";
import { keepPreviousData } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { ArrowRight, X } from "lucide-react";
import { useRef, useState } from "react";
import { AuditService, type AuditRecord } from "../gen/control/v1/audit_pb";
import { bytes, instant, ms, number } from "../app/format";
import { useUrl } from "../app/url";
import { useWatch } from "../app/watch";
import { MomentsChoice, words } from "../overview/range";
import { parseSpan } from "../overview/span";
import { Button } from "../parts/action";
import { Id } from "../parts/copy";
import { Check, Choice, FilterBox, matches, UrlText } from "../parts/field";
import { Drawer, Facts, Page } from "../parts/page";
import { useSearching } from "../parts/searching";
import { Answered, Badge, Empty, Problem } from "../parts/state";
import { Table } from "../parts/table";
import { useTenants } from "../parts/tenant";
import { Time } from "../parts/time";
import { timeWidth } from "../parts/time-width";
import { isRead } from "./reads";
import { SavedFilters } from "./saved";

const clears = ["open"] as const;

/** The parameters of the address that select records; follow is how they are shown. */
const filters = ["of", "decision", "principal", "procedure", "id", "range", "from", "to", "reads", "changes"] as const;

const hour = 3_600_000;
const ranges: Record<string, number> = { "1h": hour, "24h": 24 * hour, "7d": 7 * 24 * hour, "30d": 30 * 24 * hour };

export function Audit() {
  const [get, set] = useUrl();
  const tenants = useTenants();
  const following = get("follow") === "yes";
  const moments = useRef<HTMLButtonElement>(null);
  const span = parseSpan(get("from"), get("to"));
  return (
    <Page title="Audit" summary="Denied calls, calls that change something, and what operators have read of tenants.">
      <div className="flex flex-wrap items-end gap-3">
        <Choice label="Records of" value={get("of")} options={[["", "all tenants"], ["_platform", "the platform"], ["_unauthenticated", "unauthenticated"], ...tenants.map((name): [string, string] => [name, name])]} onChange={(of) => set({ of, open: "" })} />
        <Choice label="Decision" value={get("decision")} options={[["", "both"], "denied", "allowed"]} onChange={(decision) => set({ decision, open: "" })} />
        {following ? null : span ? (
          <button type="button" className="button border-accent bg-accent-soft" title="Do not filter by this time" onClick={() => set({ from: "", to: "", open: "" })}>
            <span className="sr-only">Do not filter by the time </span>
            {words(span)}
            <X className="size-4" aria-hidden />
          </button>
        ) : <Choice label="Time" value={get("range")} options={[["", "all that is stored"], ["1h", "last hour"], ["24h", "last 24 hours"], ["7d", "last 7 days"], ["30d", "last 30 days"]]} onChange={(range) => set({ range, open: "" })} />}
        {following ? null : <MomentsChoice opener={moments} />}
        <UrlText label="Principal" name="principal" clears={clears} />
        <UrlText label="Correlation, trace or request id" name="id" clears={clears} />
        <Check label="Changes only" checked={get("changes") === "yes"} onChange={(on) => set({ changes: on ? "yes" : "", reads: "", open: "" })} />
        <Check label="Show reads" checked={get("reads") === "yes"} onChange={(on) => set({ reads: on ? "yes" : "", changes: "", open: "" })} />
        <Check label="Follow" checked={following} onChange={(on) => set({ follow: on ? "yes" : "", open: "" })} />
      </div>
      <SavedFilters names={filters} />
      {following ? <Followed key={`${get("of")} ${get("decision")} ${get("changes")}`} /> : <Stored key={`${get("range")} ${get("from")} ${get("to")}`} />}
    </Page>
  );
}

/** Allowed calls that only read, such as the console's own, are hidden until they are asked for. */
function useShown(): (record: AuditRecord) => boolean {
  const [get] = useUrl();
  const reads = get("reads") === "yes";
  return (record) => reads || record.decision === "denied" || !isRead(record.procedure);
}

/** Records of a page, and how far a search goes back by itself. */
const pageSize = 200;
const searchedPages = 10;
const enough = 50;

function Stored() {
  const [get] = useUrl();
  const isShown = useShown();
  const [now] = useState(() => Date.now());
  const range = ranges[get("range")];
  const span = parseSpan(get("from"), get("to"));
  const time = span ? { since: timestampFromMs(span.from * 1000), until: timestampFromMs(span.to * 1000) } : range ? { since: timestampFromMs(now - range) } : {};
  const listed = useInfiniteQuery(
    AuditService.method.queryAudit,
    { tenantId: get("of"), decision: get("decision"), principal: get("principal"), procedure: get("procedure"), id: get("id"), changesOnly: get("changes") === "yes", pageSize, pageToken: "", ...time },
    { pageParamKey: "pageToken", getNextPageParam: (last) => last.nextPageToken || undefined, placeholderData: keepPreviousData },
  );
  const { data, hasNextPage, isFetching, fetchNextPage } = listed;
  const loaded = data?.pages.flatMap((page) => page.records) ?? [];
  const shown = loaded.filter(isShown);
  const searches = useSearching(listed, { tooFew: shown.length < enough, pages: searchedPages });
  const hidden = loaded.length - shown.length;
  return (
    <Answered of={listed}>
      {() => (
        <>
          <Records records={shown} searching={searches} />
          <div className="flex flex-wrap items-center gap-3">
            <Button disabled={isFetching} onClick={() => void listed.refetch()}>
              Refresh
            </Button>
            <Button disabled={!hasNextPage || isFetching} onClick={() => void fetchNextPage()}>
              Load older
            </Button>
            <p className="text-muted" role="status">
              {number(loaded.length)} records are loaded{hasNextPage ? "; there are older ones" : ": these are all"}
              {hidden > 0 ? `. ${number(hidden)} of them are not shown: allowed calls that only read` : ""}.
            </p>
          </div>
        </>
      )}
    </Answered>
  );
}

const most = 500;

/** The records as they are made. The server narrows them by account and decision; the other filters are applied here. */
function Followed() {
  const [get] = useUrl();
  const isShown = useShown();
  const [records, setRecords] = useState<AuditRecord[]>([]);
  const watched = useWatch(AuditService.method.followAudit, { tenantId: get("of"), decision: get("decision"), changesOnly: get("changes") === "yes" }, {
    take: (messages) => {
      const made = messages.flatMap(({ record }) => record ?? []);
      if (made.length > 0) setRecords((before) => [...made.toReversed(), ...before].slice(0, most));
    },
  });
  const [principal, procedure, id] = [get("principal"), get("procedure"), get("id")];
  const shown = records.filter(
    (record) =>
      isShown(record) &&
      (principal === "" || record.principal === principal) &&
      (procedure === "" || matches(procedure, record.procedure)) &&
      (id === "" || [record.correlationId, record.traceId, record.requestId].includes(id)),
  );
  return (
    <>
      {watched.error ? <Problem error={watched.error} /> : <p role="status">{watched.last ? <Badge tone="ok">following</Badge> : "Connecting…"} <span className="text-muted">New records appear on top, at most the last {most}.</span></p>}
      <Records records={shown} />
    </>
  );
}

/** A record in the address. Calls of one request have their procedures as well. */
function identify(record: AuditRecord): string {
  return `${record.requestId} ${record.procedure} ${instant(record.time)}`;
}

function Records({ records, searching = false }: { records: AuditRecord[]; searching?: boolean }) {
  const [get, set] = useUrl();
  const open = records.find((record) => identify(record) === get("open"));
  return (
    <>
      <Table
        label="Audit records"
        tools={<FilterBox name="procedure" label="Procedure contains" clears={clears} />}
        rows={records}
        id={identify}
        selected={get("open")}
        onSelect={(record) => set({ open: identify(record) })}
        empty={searching ? <Empty title="Searching older records…" /> : <Empty title="No record matches.">Remove a filter to see more.</Empty>}
        columns={[
          { name: "Time", width: timeWidth, value: (record) => instant(record.time), cell: (record) => <Time of={record.time} /> },
          { name: "Decision", width: 108, value: (record) => record.decision, cell: (record) => <Badge tone={record.decision === "denied" ? "bad" : "ok"}>{record.decision}</Badge> },
          { name: "Principal", width: 98, value: (record) => record.principal || "unauthenticated" },
          { name: "Procedure", width: 136, value: (record) => record.procedure, cell: (record) => record.procedure.split("/").at(-1) },
          { name: "Tenant", width: 80, value: (record) => record.tenantId || "platform" },
          { name: "Resource", width: 88, value: (record) => record.resource },
          { name: "Reason", width: 100, value: (record) => record.reason + (record.suppressed > 0n ? ` (and ${record.suppressed} more that came too fast to be stored)` : "") },
          { name: "Client", width: 96, value: (record) => record.client },
          { name: "Code", hidden: true, value: (record) => record.code },
          { name: "Node", width: 104, value: (record) => record.node },
          { name: "Took", width: 80, number: true, hidden: true, value: (record) => record.ms, cell: (record) => ms(record.ms) },
          { name: "Right", hidden: true, value: (record) => record.right },
          { name: "Correlation id", hidden: true, value: (record) => record.correlationId },
          { name: "Trace id", hidden: true, value: (record) => record.traceId },
          { name: "Request id", hidden: true, value: (record) => record.requestId },
        ]}
      />
      {open ? <Detail record={open} onClose={() => set({ open: "" })} /> : null}
    </>
  );
}

/** What a call changed, and the fields of its request. Texts such as payloads have their size alone. */
function Changes({ record }: { record: AuditRecord }) {
  return (
    <>
      {record.changes.length === 0 ? null : (
        <section aria-label="Changes">
          <h3 className="mb-1">Changes</h3>
          <Facts
            of={record.changes.map((one) => [
              one.name,
              <span key={one.name} className="flex flex-wrap items-center gap-1.5">
                {one.before === "" ? <span className="text-muted">none</span> : <del className="text-muted break-all">{one.before}</del>} <ArrowRight className="text-muted size-3" aria-hidden /> {one.after === "" ? <span className="text-muted">none</span> : <ins className="break-all no-underline">{one.after}</ins>}
              </span>,
            ])}
          />
        </section>
      )}
      {record.request.length === 0 ? null : (
        <section aria-label="Request">
          <h3 className="mb-1">Request</h3>
          <Facts of={record.request.map((one) => [one.name, one.value === undefined ? <span key={one.name} className="text-muted">{bytes(one.bytes)}, not recorded</span> : <code key={one.name} className="break-all">{one.value}</code>])} />
        </section>
      )}
      {record.truncated ? <p className="text-muted text-sm">The request or the changes have more than a record holds.</p> : null}
    </>
  );
}

function Detail({ record, onClose }: { record: AuditRecord; onClose: () => void }) {
  return (
    <Drawer title={record.procedure.split("/").at(-1) ?? ""} label="Audit record" badge={<Badge tone={record.decision === "denied" ? "bad" : "ok"}>{record.decision}</Badge>} onClose={onClose}>
      <Facts
        of={[
          ["Time", <Time key="t" of={record.time} />],
          ["Principal", record.principal || "unauthenticated"],
          ["Client", record.client],
          ["Tenant", record.tenantId || "platform"],
          ["Procedure", <code key="p" className="break-all">{record.procedure}</code>],
          ["Resource", record.resource],
          ["Right", record.right],
          ["Reason", record.reason],
          ["Code", record.code],
          ["Node", record.node],
          ["Took", ms(record.ms)],
          ["Not stored before it", record.suppressed > 0n ? `${record.suppressed} records of the same caller` : ""],
          ["Correlation id", record.correlationId && <Id key="c" text={record.correlationId} />],
          ["Trace id", record.traceId && <Id key="tr" text={record.traceId} />],
          ["Request id", record.requestId && <Id key="r" text={record.requestId} />],
        ]}
      />
      <Changes record={record} />
      {record.tenantId ? (
        <Link to="/timeline" search={{ tenant: record.tenantId, id: record.correlationId }}>
          Timeline of the call
        </Link>
      ) : null}
    </Drawer>
  );
}

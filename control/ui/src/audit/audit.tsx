import { useQuery } from "@connectrpc/connect-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { AuditService, type AuditRecord } from "../gen/control/v1/audit_pb";
import { instant, ms } from "../app/format";
import { useUrl } from "../app/url";
import { useWatch } from "../app/watch";
import { Button } from "../parts/action";
import { Copy } from "../parts/copy";
import { Check, Choice, matches, UrlText } from "../parts/field";
import { Drawer, Facts, Page } from "../parts/page";
import { Answered, Badge, Empty, Problem } from "../parts/state";
import { Table } from "../parts/table";
import { useTenants } from "../parts/tenant";
import { Time } from "../parts/time";
import { timeWidth } from "../parts/time-width";

const clears = ["page", "open"] as const;

export function Audit() {
  const [get, set] = useUrl();
  const tenants = useTenants();
  const following = get("follow") === "yes";
  return (
    <Page title="Audit" summary="Denied calls, calls that change something, and what operators have read of tenants.">
      <div className="flex flex-wrap items-end gap-3">
        <Choice label="Records of" value={get("of")} options={[["", "all tenants"], ["_platform", "the platform"], ["_unauthenticated", "unauthenticated"], ...tenants.map((name): [string, string] => [name, name])]} onChange={(of) => set({ of, page: "" })} />
        <Choice label="Decision" value={get("decision")} options={[["", "both"], "denied", "allowed"]} onChange={(decision) => set({ decision, page: "" })} />
        <UrlText label="Principal" name="principal" clears={clears} />
        <UrlText label="Procedure contains" name="procedure" clears={clears} />
        <UrlText label="Correlation, trace or request id" name="id" clears={clears} />
        <Check label="Follow" checked={following} onChange={(on) => set({ follow: on ? "yes" : "", page: "" })} />
      </div>
      {following ? <Followed key={`${get("of")} ${get("decision")}`} /> : <Stored />}
    </Page>
  );
}

function Stored() {
  const [get, set] = useUrl();
  const records = useQuery(AuditService.method.queryAudit, { tenantId: get("of"), decision: get("decision"), principal: get("principal"), procedure: get("procedure"), id: get("id"), pageToken: get("page"), pageSize: 100 });
  return (
    <Answered of={records}>
      {(data) => (
        <>
          <Records records={data.records} />
          <div className="flex gap-2">
            <Button disabled={get("page") === ""} onClick={() => set({ page: "", open: "" })}>
              Newest
            </Button>
            <Button disabled={data.nextPageToken === ""} onClick={() => set({ page: data.nextPageToken, open: "" })}>
              Older
            </Button>
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
  const [records, setRecords] = useState<AuditRecord[]>([]);
  const watched = useWatch(AuditService.method.followAudit, { tenantId: get("of"), decision: get("decision") }, {
    take: ({ record }) => {
      if (record) setRecords((before) => [record, ...before].slice(0, most));
    },
  });
  const [principal, procedure, id] = [get("principal"), get("procedure"), get("id")];
  const shown = records.filter(
    (record) =>
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

function Records({ records }: { records: AuditRecord[] }) {
  const [get, set] = useUrl();
  const open = records.find((record) => identify(record) === get("open"));
  return (
    <>
      <Table
        label="Audit records"
        rows={records}
        id={identify}
        selected={get("open")}
        onSelect={(record) => set({ open: identify(record) })}
        empty={<Empty title="No record matches.">Remove a filter to see more.</Empty>}
        columns={[
          { name: "Time", width: timeWidth, value: (record) => instant(record.time), cell: (record) => <Time of={record.time} /> },
          { name: "Decision", width: 98, value: (record) => record.decision, cell: (record) => <Badge tone={record.decision === "denied" ? "bad" : "ok"}>{record.decision}</Badge> },
          { name: "Principal", width: 98, value: (record) => record.principal || "unauthenticated" },
          { name: "Procedure", width: 136, value: (record) => record.procedure, cell: (record) => record.procedure.split("/").at(-1) },
          { name: "Tenant", width: 80, value: (record) => record.tenantId || "platform" },
          { name: "Resource", width: 88, value: (record) => record.resource },
          { name: "Reason", width: 108, value: (record) => record.reason + (record.suppressed > 0n ? ` (and ${record.suppressed} more that came too fast to be stored)` : "") },
          { name: "Code", width: 92, value: (record) => record.code },
          { name: "Node", width: 104, value: (record) => record.node },
          { name: "Took", width: 80, number: true, hidden: true, value: (record) => record.ms, cell: (record) => ms(record.ms) },
          { name: "Client", hidden: true, value: (record) => record.client },
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

function Id({ text }: { text: string }) {
  if (text === "") return null;
  return (
    <span className="flex items-start gap-1">
      <code className="break-all">{text}</code> <Copy text={text} label="Copy the id" />
    </span>
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
      {record.tenantId ? (
        <Link to="/timeline" search={{ tenant: record.tenantId, id: record.correlationId }}>
          Timeline of the call
        </Link>
      ) : null}
    </Drawer>
  );
}

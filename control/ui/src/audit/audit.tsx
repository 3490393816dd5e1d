import { useQuery } from "@connectrpc/connect-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { AuditService, type AuditRecord } from "../gen/control/v1/audit_pb";
import { ms, time } from "../app/format";
import { useUrl } from "../app/url";
import { useWatch } from "../app/watch";
import { Button } from "../parts/action";
import { Choice, Text } from "../parts/field";
import { Answered, Badge, Problem } from "../parts/state";
import { Table } from "../parts/table";
import { useTenants } from "../parts/tenant";

export function Audit() {
  const [get, set] = useUrl();
  const tenants = useTenants();
  const following = get("follow") === "yes";
  return (
    <div className="flex flex-col gap-4">
      <h1>Audit</h1>
      <div className="flex flex-wrap items-end gap-4">
        <Choice label="Tenant" value={get("of")} options={[["", "all"], ["_platform", "the platform"], ...tenants.map((name): [string, string] => [name, name])]} onChange={(of) => set({ of, page: "" })} />
        <Choice label="Decision" value={get("decision")} options={[["", "both"], "denied", "allowed"]} onChange={(decision) => set({ decision, page: "" })} />
        <label className="flex items-center gap-1 py-1">
          <input type="checkbox" checked={following} onChange={(event) => set({ follow: event.target.checked ? "yes" : "" })} /> Follow
        </label>
        {following ? null : (
          <>
            <Text label="Principal" value={get("principal")} onChange={(principal) => set({ principal, page: "" })} />
            <Text label="Procedure holds" value={get("procedure")} onChange={(procedure) => set({ procedure, page: "" })} />
            <Text label="Correlation, trace or request id" value={get("id")} onChange={(id) => set({ id, page: "" })} />
          </>
        )}
      </div>
      {following ? <Followed /> : <Page />}
    </div>
  );
}

function Page() {
  const [get, set] = useUrl();
  const records = useQuery(AuditService.method.queryAudit, { tenantId: get("of"), decision: get("decision"), principal: get("principal"), procedure: get("procedure"), id: get("id"), pageToken: get("page") });
  return (
    <Answered of={records}>
      {(data) => (
        <>
          <Records records={data.records} />
          <div className="flex gap-2">
            <Button disabled={get("page") === ""} onClick={() => set({ page: "" })}>
              Newest
            </Button>
            <Button disabled={data.nextPageToken === ""} onClick={() => set({ page: data.nextPageToken })}>
              Older
            </Button>
          </div>
        </>
      )}
    </Answered>
  );
}

function Followed() {
  const [get] = useUrl();
  const [records, setRecords] = useState<AuditRecord[]>([]);
  const watched = useWatch(AuditService.method.followAudit, { tenantId: get("of"), decision: get("decision") }, {
    take: ({ record }) => {
      if (record) setRecords((before) => [record, ...before].slice(0, 200));
    },
  });
  return (
    <>
      {watched.error ? <Problem error={watched.error} /> : <p role="status">{watched.last ? <Badge tone="ok">following</Badge> : "Connecting…"}</p>}
      <Records records={records} />
    </>
  );
}

function Records({ records }: { records: AuditRecord[] }) {
  return (
    <Table
      label="Audit records"
      rows={records.map((record, n): [number, AuditRecord] => [n, record])}
      id={([n, record]) => `${n} ${record.requestId}`}
      empty="No record fits."
      columns={[
        { name: "Time", cell: ([, record]) => time(record.time) },
        { name: "Decision", cell: ([, record]) => <Badge tone={record.decision === "denied" ? "bad" : "ok"}>{record.decision}</Badge> },
        { name: "Who", cell: ([, record]) => record.principal || "nobody" },
        { name: "What", cell: ([, record]) => record.procedure.split("/").at(-1) },
        { name: "Tenant", cell: ([, record]) => record.tenantId || "platform" },
        { name: "Resource", cell: ([, record]) => record.resource },
        { name: "Why", cell: ([, record]) => record.reason + (record.suppressed > 0n ? ` (and ${record.suppressed} more, too fast to be kept)` : "") },
        { name: "Code", cell: ([, record]) => record.code },
        { name: "Took", number: true, cell: ([, record]) => ms(record.ms) },
        {
          name: "Timeline",
          cell: ([, record]) =>
            record.tenantId ? (
              <Link to="/timeline" search={{ tenant: record.tenantId, id: record.correlationId }}>
                show
              </Link>
            ) : (
              ""
            ),
        },
      ]}
    />
  );
}

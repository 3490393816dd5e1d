import { timestampDate } from "@bufbuild/protobuf/wkt";
import { useQuery } from "@connectrpc/connect-query";
import { Link } from "@tanstack/react-router";
import { useDeferredValue } from "react";
import type { AuditRecord } from "../gen/control/v1/audit_pb";
import { FleetService } from "../gen/control/v1/fleet_pb";
import { MetricsService } from "../gen/control/v1/metrics_pb";
import { silence, useSecondsSince } from "../app/pulse";
import { useRefusal } from "../app/session";
import { Page } from "../parts/page";
import { Answered, Badge, Problem, Skeleton } from "../parts/state";
import { useTenant } from "../parts/tenant";
import { Time } from "../parts/time";
import { inWords, most, useChanges } from "./changes";
import { CallTiles, Charts, LagTile, PlatformTiles, Tiles, type Series } from "./load";
import { problems } from "./problems";
import { often, RangeChoice, useRange, useSpan } from "./range";
import { windowName } from "./series";
import { writeMoment } from "./span";
import { TopTenants } from "./top";

/** Whether something is wrong, since when and where: of the platform, or of the tenant for a principal of one. */
export function Overview() {
  const refusal = useRefusal("fleet.read");
  const tenant = useTenant();
  return refusal === "" ? <Platform /> : <OwnTenant key={tenant} tenant={tenant} />;
}

function Platform() {
  const { range, words } = useRange();
  const series = useQuery(MetricsService.method.querySeries, { range }, often);
  // The numbers are shown first; what explains them is asked for, and drawn, after them.
  const shown = useDeferredValue(!series.isPending, false);
  const changed = useChanges(shown);
  const marks = changed.changes.map((record) => ({ at: record.time ? timestampDate(record.time).getTime() / 1000 : 0, text: inWords(record) }));
  return (
    <Page title="Overview" summary={<Summary series={series.data} />} actions={<RangeChoice />}>
      <Answered of={series} skeleton={<Skeleton lines={8} />}>
        {(data) => (
          <>
            <Tiles label="Numbers of the platform">
              <CallTiles series={data} range={words} />
              <PlatformTiles series={data} />
            </Tiles>
            {shown ? (
              <>
                <TopTenants />
                <Charts series={data} marks={marks} />
              </>
            ) : null}
          </>
        )}
      </Answered>
      <Changes changed={changed} />
    </Page>
  );
}

/** The worst of what is wrong, with links; without anything, that all is well, as of when. */
function Summary({ series }: { series: Series | undefined }) {
  const { data, dataUpdatedAt, error } = useQuery(FleetService.method.getFleet, {}, { refetchInterval: 2_000 });
  const fleet = data?.fleet;
  const old = useSecondsSince(dataUpdatedAt - Number(fleet?.ageMs ?? 0n)) * 1000 > silence;
  if (!fleet) return error ? <Problem error={error} /> : null;
  const found = problems(fleet, series?.points ?? []);
  if (old) return <Badge tone="muted">not known: the platform has not answered</Badge>;
  if (found.length === 0)
    return (
      <span className="flex flex-wrap items-center gap-2">
        <Badge tone="ok">all systems normal</Badge>
        <span>
          {fleet.nodes.length} of {fleet.nodes.length} nodes are ready, no view has failed
        </span>
      </span>
    );
  return (
    <ul aria-label="What is wrong" className="flex flex-col items-start gap-1">
      {found.map((problem) => (
        <li key={problem.text} className="flex flex-wrap items-center gap-2">
          <Badge tone={problem.tone}>{problem.tone === "bad" ? "failing" : "attention"}</Badge>
          <Link to={problem.to} search={problem.search ?? {}}>
            {problem.text}
          </Link>
          {problem.since ? (
            <span>
              since <Time of={problem.since} />
            </span>
          ) : null}
        </li>
      ))}
    </ul>
  );
}

function Changes({ changed: { changes: all, refusal, loaded, error } }: { changed: ReturnType<typeof useChanges> }) {
  const { span } = useSpan();
  const seconds = (record: AuditRecord) => (record.time ? timestampDate(record.time).getTime() / 1000 : 0);
  const changes = span ? all.filter((record) => seconds(record) >= span.from && seconds(record) <= span.to) : all;
  return (
    <section aria-label="What changed lately" className="panel flex min-w-0 flex-col gap-2">
      <div className="flex items-baseline gap-3">
        <h2 className="flex-1">
          What changed lately <span className="text-muted text-sm font-normal">{span ? "in the chosen time" : "last 24 hours"}; dashed lines in the charts</span>
        </h2>
        <Link to="/audit" search={span ? { from: writeMoment(span.from), to: writeMoment(span.to) } : { range: "24h", decision: "allowed" }}>
          {span ? "Audit records of this time" : "Audit"}
        </Link>
      </div>
      {refusal !== "" ? <p className="text-muted">Not shown: {refusal}.</p> : error ? <Problem error={error} /> : null}
      {refusal === "" && !loaded && !error ? <Skeleton lines={3} /> : null}
      {loaded && changes.length === 0 ? <p className="text-muted">{span && all.length === most ? `Of the last ${most} changes, none is of this time: the audit log has older ones.` : "No operator drained a node, moved or suspended a tenant, set limits or applied a model."}</p> : null}
      {changes.length === 0 ? null : (
        <ul className="divide-border divide-y">
          {changes.map((record) => (
            <li key={record.requestId + record.procedure} className="flex flex-wrap items-baseline gap-x-4 py-1.5">
              <span className="text-muted text-sm whitespace-nowrap">
                <Time of={record.time} />
              </span>
              <span className="min-w-0 flex-1 break-words">{inWords(record)}</span>
              <Link to="/audit" search={{ id: record.requestId, range: "24h" }} aria-label={`Audit record: ${inWords(record)}`}>
                Record
              </Link>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

/** What a principal of a tenant can see: the calls of the tenant. */
function OwnTenant({ tenant }: { tenant: string }) {
  const { range, words } = useRange();
  const series = useQuery(MetricsService.method.queryTenantSeries, { tenantId: tenant, range }, { ...often, enabled: tenant !== "" });
  return (
    <Page title="Overview" tenant summary={`The calls of ${tenant}, as its gateways count them${series.data ? ` every ${windowName(series.data.seconds)}` : ""}.`} actions={<RangeChoice />}>
      <Answered of={series} skeleton={<Skeleton lines={8} />}>
        {(data) => (
          <>
            <Tiles label={`Numbers of ${tenant}`} six>
              <CallTiles series={data} range={words} />
              <LagTile series={data} />
            </Tiles>
            <Charts series={data} />
          </>
        )}
      </Answered>
    </Page>
  );
}

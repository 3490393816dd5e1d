import { createConnectQueryKey, useMutation, useQuery } from "@connectrpc/connect-query";
import { useNavigate } from "@tanstack/react-router";
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { FleetService, type Node } from "../gen/control/v1/fleet_pb";
import { MetricsService } from "../gen/control/v1/metrics_pb";
import { TenantService, type Tenant } from "../gen/control/v1/tenant_pb";
import { bytes, number } from "../app/format";
import { useRefusal } from "../app/session";
import { useUrl } from "../app/url";
import { values } from "../overview/series";
import { Button } from "../parts/action";
import { FilterBox, matches, Text } from "../parts/field";
import { Page } from "../parts/page";
import { Spark } from "../parts/spark";
import { Answered, Badge, Empty, Problem, type Tone } from "../parts/state";
import { Table } from "../parts/table";
import { toast } from "../parts/toast";

/** Every tenant, with what it stores and whether something of it needs an operator. */
export function Tenants() {
  const [get] = useUrl();
  const navigate = useNavigate();
  const tenants = useQuery(TenantService.method.listTenants, {}, { refetchInterval: 5_000 });
  const fleet = useQuery(FleetService.method.getFleet, {}, { refetchInterval: 5_000 });
  const top = useQuery(MetricsService.method.listTopTenants, { minutes: 60, limit: 100 }, { refetchInterval: 15_000 });
  const loads = new Map(top.data?.tenants.map((load, place) => [load.tenantId, { load, place }]));
  const nodes = fleet.data?.fleet?.nodes ?? [];
  const all = tenants.data?.tenants ?? [];
  const suspended = all.filter((tenant) => tenant.suspended).length;
  const failing = all.filter((tenant) => failedViews(nodes, tenant.tenantId).length > 0).length;
  return (
    <Page
      title="Tenants"
      summary={tenants.data ? [`${number(all.length)} ${all.length === 1 ? "tenant" : "tenants"}`, ...(suspended > 0 ? [`${number(suspended)} suspended`] : []), failing > 0 ? `${number(failing)} with failed views` : "no view has failed"].join(", ") : null}
      actions={<Create />}
    >
      <Answered of={tenants}>
        {(data) => (
          <Table
            label="Tenants"
            tools={<FilterBox />}
            rows={data.tenants.filter((tenant) => matches(get("q"), tenant.tenantId, ...tenant.nodes))}
            id={(tenant) => tenant.tenantId}
            onSelect={(tenant) => void navigate({ to: "/tenants/detail", search: { tenant: tenant.tenantId } })}
            empty={data.tenants.length === 0 ? <Empty title="There is no tenant yet.">Create one above: every node without placements serves it.</Empty> : <Empty title="No tenant matches the filter." />}
            columns={[
              { name: "Tenant", width: 140, value: (tenant) => tenant.tenantId },
              { name: "State", width: 120, value: (tenant) => stateOf(tenant)[1], cell: (tenant) => <Badge tone={stateOf(tenant)[0]}>{stateOf(tenant)[1]}</Badge> },
              {
                name: "Calls, last hour",
                width: 170,
                number: true,
                value: (tenant) => loads.get(tenant.tenantId)?.load.calls,
                cell: (tenant) => <Calls tenant={tenant.tenantId} calls={loads.get(tenant.tenantId)?.load.calls} drawn={(loads.get(tenant.tenantId)?.place ?? drawn) < drawn} />,
              },
              {
                name: "429s, last hour",
                width: 110,
                number: true,
                value: (tenant) => loads.get(tenant.tenantId)?.load.limited,
                cell: (tenant) => {
                  const limited = loads.get(tenant.tenantId)?.load.limited;
                  return <span className={limited ? "text-warn" : "text-muted"}>{number(limited)}</span>;
                },
              },
              {
                name: "Failed views",
                width: 110,
                number: true,
                value: (tenant) => failedViews(nodes, tenant.tenantId).length,
                cell: (tenant) => {
                  const failed = failedViews(nodes, tenant.tenantId).length;
                  return <span className={failed > 0 ? "text-bad" : "text-muted"}>{failed}</span>;
                },
              },
              { name: "Events", width: 100, number: true, value: (tenant) => tenant.storageUse?.events, cell: (tenant) => number(tenant.storageUse?.events) },
              { name: "Stored", width: 100, number: true, value: (tenant) => tenant.storageUse?.bytes, cell: (tenant) => bytes(tenant.storageUse?.bytes) },
              { name: "Aggregates", width: 110, number: true, hidden: true, value: (tenant) => tenant.storageUse?.aggregates, cell: (tenant) => number(tenant.storageUse?.aggregates) },
              { name: "Storage limit used", width: 140, number: true, value: (tenant) => storageUsed(tenant), cell: (tenant) => <Used part={storageUsed(tenant)} /> },
              { name: "Rate limit", width: 100, number: true, hidden: true, value: (tenant) => tenant.quota?.rate, cell: (tenant) => (tenant.quota?.rate ? `${number(tenant.quota.rate)}/s` : <span className="text-muted">default</span>) },
              { name: "Nodes", width: 70, number: true, value: (tenant) => tenant.nodes.length, cell: (tenant) => <span title={tenant.nodes.join(", ")}>{tenant.nodes.length}</span> },
            ]}
          />
        )}
      </Answered>
    </Page>
  );
}

/** The tenants with the most calls have a line: each costs a call. */
const drawn = 20;

/** A tenant's calls of the last hour, and their course. */
function Calls({ tenant, calls, drawn: isDrawn }: { tenant: string; calls: bigint | undefined; drawn: boolean }) {
  const series = useQuery(MetricsService.method.querySeries, { tenantId: tenant }, { enabled: isDrawn, staleTime: 15_000, refetchInterval: 30_000 });
  return (
    <span className="flex items-center justify-end gap-2">
      {series.data ? <Spark values={series.data.points.map(values.calls)} label={`Calls of ${tenant} in the last hour`} width={72} /> : null}
      {number(calls)}
    </span>
  );
}

/** The views of a tenant that cannot apply an event, at any node. */
export function failedViews(nodes: readonly Node[], tenant: string): string[] {
  return [...new Set(nodes.flatMap((node) => node.failingViews.filter((view) => view.tenantId === tenant).map((view) => view.view)))];
}

/** The largest used part of a tenant's own storage limits; undefined without one. */
export function storageUsed({ storageUse: use, storageQuota: quota }: Tenant): number | undefined {
  if (!use || !quota) return undefined;
  const parts = (["events", "bytes", "aggregates", "keys"] as const).filter((key) => quota[key] > 0n).map((key) => Number(use[key]) / Number(quota[key]));
  return parts.length > 0 ? Math.max(...parts) : undefined;
}

function Used({ part }: { part: number | undefined }) {
  if (part === undefined) return <span className="text-muted">default</span>;
  return <span className={part >= 1 ? "text-bad" : part >= 0.8 ? "text-warn" : ""}>{Math.floor(part * 100)} %</span>;
}

export function stateOf(tenant: Tenant): [Tone, string] {
  if (tenant.suspended) return ["bad", "suspended"];
  return tenant.nodes.length > 0 ? ["ok", "served"] : ["warn", "no node yet"];
}

/** Loads the lists of tenants again. */
export function useReload() {
  const queries = useQueryClient();
  return () => queries.invalidateQueries({ queryKey: createConnectQueryKey({ schema: TenantService.method.listTenants, cardinality: "finite" }) });
}

function Create() {
  const [name, setName] = useState("");
  const refusal = useRefusal("fleet.admin");
  const reload = useReload();
  const create = useMutation(TenantService.method.createTenant, { onSuccess: () => void reload() });
  return (
    <div className="flex flex-col gap-2">
      <form
        className="flex items-end gap-2"
        onSubmit={(event) => {
          event.preventDefault();
          create.mutate(
            { tenantId: name },
            {
              onSuccess: () => {
                toast(`Tenant ${name} is created.`);
                setName("");
              },
            },
          );
        }}
      >
        <Text label="New tenant" value={name} onChange={setName} placeholder="lower-case-name" />
        <Button type="submit" refusal={refusal} disabled={name === "" || create.isPending}>
          Create
        </Button>
      </form>
      {create.error ? <Problem error={create.error} /> : null}
    </div>
  );
}

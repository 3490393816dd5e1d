import { createConnectQueryKey, useMutation, useQuery } from "@connectrpc/connect-query";
import { useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { AuditService } from "../gen/control/v1/audit_pb";
import { FleetService } from "../gen/control/v1/fleet_pb";
import { PlacementService } from "../gen/control/v1/placement_pb";
import { TenantService, type Tenant } from "../gen/control/v1/tenant_pb";
import { RunnerAdmin } from "../gen/runner/admin/v1/admin_pb";
import { number, time, unknown } from "../app/format";
import { useRefusal } from "../app/session";
import { useUrl } from "../app/url";
import { Button, Dangerous } from "../parts/action";
import { Text } from "../parts/field";
import { Answered, Badge, Empty, Problem } from "../parts/state";
import { FilterBox, matches, Table } from "../parts/table";

export function Tenants() {
  const [get, set] = useUrl();
  const tenants = useQuery(TenantService.method.listTenants, {}, { refetchInterval: 5_000 });
  const filter = get("q");
  return (
    <div className="flex flex-col gap-4">
      <h1>Tenants</h1>
      <div className="flex flex-wrap items-end gap-4">
        <FilterBox value={filter} onChange={(q) => set({ q })} />
        <Create />
      </div>
      <Answered of={tenants}>
        {(data) => {
          const selected = data.tenants.find((tenant) => tenant.tenantId === get("tenant"));
          return (
            <>
              <Table
                label="Tenants"
                rows={data.tenants.filter((tenant) => matches(filter, tenant.tenantId, ...tenant.nodes))}
                id={(tenant) => tenant.tenantId}
                selected={get("tenant")}
                onSelect={(tenant) => set({ tenant: tenant.tenantId })}
                empty={data.tenants.length === 0 ? "There is no tenant yet." : "No tenant fits the filter."}
                columns={[
                  { name: "Tenant", cell: (tenant) => tenant.tenantId },
                  { name: "State", cell: (tenant) => (tenant.suspended ? <Badge tone="bad">suspended</Badge> : tenant.nodes.length > 0 ? <Badge tone="ok">served</Badge> : <Badge tone="warn">no node yet</Badge>) },
                  { name: "Nodes", cell: (tenant) => tenant.nodes.join(", ") || unknown },
                  { name: "Rate limit", number: true, cell: (tenant) => (tenant.quota?.rate ? `${number(tenant.quota.rate)}/s` : "as all") },
                ]}
              />
              {selected ? <Detail key={selected.tenantId} tenant={selected} /> : <Empty>Choose a tenant to see where it is served and what it may do.</Empty>}
            </>
          );
        }}
      </Answered>
    </div>
  );
}

/** Has the lists of tenants asked for again. */
function useAgain() {
  const queries = useQueryClient();
  return () => queries.invalidateQueries({ queryKey: createConnectQueryKey({ schema: TenantService.method.listTenants, cardinality: "finite" }) });
}

function Create() {
  const [name, setName] = useState("");
  const refusal = useRefusal("fleet.admin");
  const again = useAgain();
  const create = useMutation(TenantService.method.createTenant, { onSuccess: () => void again() });
  return (
    <form
      className="flex items-end gap-2"
      onSubmit={(event) => {
        event.preventDefault();
        create.mutate({ tenantId: name }, { onSuccess: () => setName("") });
      }}
    >
      <Text label="New tenant" value={name} onChange={setName} placeholder="a-dns-label" />
      <Button type="submit" refusal={refusal} disabled={name === "" || create.isPending}>
        Create
      </Button>
      {create.error ? <Problem error={create.error} /> : null}
    </form>
  );
}

function Detail({ tenant }: { tenant: Tenant }) {
  const id = tenant.tenantId;
  const refusal = useRefusal("fleet.admin");
  const again = useAgain();
  const suspend = useMutation(TenantService.method.suspendTenant);
  const resume = useMutation(TenantService.method.resumeTenant, { onSuccess: () => void again() });
  const [reason, setReason] = useState("");
  return (
    <section className="grid gap-4 lg:grid-cols-2" aria-label={`Tenant ${id}`}>
      <div className="panel flex flex-col gap-2">
        <h2>{id}</h2>
        {tenant.suspended ? (
          <>
            <p>
              Its calls are refused and its work rests{tenant.reason ? `: ${tenant.reason}` : ""}.
            </p>
            <div>
              <Button refusal={refusal} strong onClick={() => resume.mutate({ tenantId: id })}>
                Resume
              </Button>
            </div>
          </>
        ) : (
          <div className="flex items-end gap-2">
            <Text label="Reason, which its callers are told" value={reason} onChange={setReason} />
            <Dangerous title="Suspend" name={id} refusal={refusal} what={`Every call of ${id} is refused and its workflows rest until it is resumed. Nothing is lost.`} run={async () => { await suspend.mutateAsync({ tenantId: id, reason }); await again(); }}>
              Suspend…
            </Dangerous>
          </div>
        )}
        {resume.error ? <Problem error={resume.error} /> : null}
        <Quota tenant={tenant} />
      </div>
      <Placements tenant={id} />
      <Work tenant={id} />
      <Denials tenant={id} />
    </section>
  );
}

function Quota({ tenant }: { tenant: Tenant }) {
  const refusal = useRefusal("fleet.admin");
  const again = useAgain();
  const save = useMutation(TenantService.method.setQuota, { onSuccess: () => void again() });
  const [bounds, setBounds] = useState({
    rate: String(tenant.quota?.rate ?? 0),
    burst: String(tenant.quota?.burst ?? 0),
    concurrent: String(tenant.quota?.concurrent ?? 0),
    streams: String(tenant.quota?.streams ?? 0),
  });
  const field = (name: keyof typeof bounds, label: string) => <Text label={label} value={bounds[name]} onChange={(next) => setBounds({ ...bounds, [name]: next })} />;
  const wrong = Object.values(bounds).some((text) => !/^\d+(\.\d+)?$/.test(text));
  return (
    <form
      className="flex flex-col gap-2"
      onSubmit={(event) => {
        event.preventDefault();
        save.mutate({ tenantId: tenant.tenantId, quota: { rate: Number(bounds.rate), burst: Math.round(Number(bounds.burst)), concurrent: Math.round(Number(bounds.concurrent)), streams: Math.round(Number(bounds.streams)) } });
      }}
    >
      <h2>Limits at each gateway (0: as all others)</h2>
      <div className="grid grid-cols-2 gap-2">
        {field("rate", "Calls a second")}
        {field("burst", "At once above it")}
        {field("concurrent", "In flight")}
        {field("streams", "Streams")}
      </div>
      <div>
        <Button type="submit" refusal={refusal} disabled={wrong || save.isPending}>
          Save limits
        </Button>
        {wrong ? <span className="text-bad ml-2">These are numbers.</span> : null}
        {save.isSuccess ? <span role="status" className="text-ok ml-2">Saved.</span> : null}
      </div>
      {save.error ? <Problem error={save.error} /> : null}
    </form>
  );
}

function Placements({ tenant }: { tenant: string }) {
  const placements = useQuery(PlacementService.method.listPlacements, {}, { refetchInterval: 5_000 });
  const fleet = useQuery(FleetService.method.getFleet, {}, { refetchInterval: 5_000 });
  return (
    <div className="panel">
      <h2>Where it is served</h2>
      <Answered of={placements}>
        {(data) => (
          <ul className="my-2 flex flex-col gap-1">
            {["aggregate", "projection", "runner"].map((kind) => {
              const placed = data.placements.find((placement) => placement.kind === kind && placement.tenantId === tenant && placement.node !== "");
              const nodes = (fleet.data?.fleet?.nodes ?? []).filter((node) => node.kind === kind && node.tenants.includes(tenant));
              const open = (fleet.data?.fleet?.nodes ?? []).flatMap((node) => node.openBreakers);
              return (
                <li key={kind}>
                  <strong>{kind}</strong>: {placed ? `placed on ${placed.node}` : "any node"}
                  {placed?.move ? " (moving)" : ""}
                  <ul className="text-muted ml-4">
                    {nodes.map((node) => (
                      <li key={node.id}>
                        {node.id}{node.lag === undefined ? "" : `, ${number(node.lag)} events wait on it`}{open.includes(node.endpoint) ? <> <Badge tone="bad">breaker open</Badge></> : null}
                      </li>
                    ))}
                  </ul>
                </li>
              );
            })}
          </ul>
        )}
      </Answered>
      <Link to="/rebalance" search={{ tenant }}>
        Move it…
      </Link>
    </div>
  );
}

function Work({ tenant }: { tenant: string }) {
  const refusal = useRefusal("runner.admin");
  const fleet = useQuery(FleetService.method.getFleet, {});
  const runner = fleet.data?.fleet?.nodes.find((node) => node.kind === "runner" && node.tenants.includes(tenant))?.id ?? "";
  const status = useQuery(RunnerAdmin.method.status, { node: runner }, { enabled: refusal === "" && runner !== "", refetchInterval: 3_000 });
  const pause = useMutation(RunnerAdmin.method.pauseTenant, { onSuccess: () => void status.refetch() });
  const resume = useMutation(RunnerAdmin.method.resumeTenant, { onSuccess: () => void status.refetch() });
  const now = status.data?.status?.tenants.find((one) => one.tenantId === tenant);
  return (
    <div className="panel flex flex-col gap-2">
      <h2>Workflows</h2>
      {refusal ? <p className="text-muted">Not shown: {refusal}.</p> : null}
      {refusal === "" && runner === "" ? <p className="text-muted">No runner serves the tenant.</p> : null}
      {now ? (
        <p>
          {now.paused ? <Badge tone="warn">paused</Badge> : <Badge tone="ok">running</Badge>} on {runner}: {number(now.inFlight)} in work, {number(now.pending)} waiting, {number(now.ackPending)} delivered
        </p>
      ) : null}
      <div className="flex gap-2">
        <Button refusal={refusal} disabled={!now || now.paused} onClick={() => pause.mutate({ tenantId: tenant, node: runner })}>
          Pause
        </Button>
        <Button refusal={refusal} disabled={!now?.paused} onClick={() => resume.mutate({ tenantId: tenant, node: runner })}>
          Resume
        </Button>
      </div>
      {pause.error ?? resume.error ?? status.error ? <Problem error={pause.error ?? resume.error ?? status.error} /> : null}
    </div>
  );
}

function Denials({ tenant }: { tenant: string }) {
  const refusal = useRefusal("audit.read");
  const denials = useQuery(AuditService.method.queryAudit, { tenantId: tenant, decision: "denied", pageSize: 5 }, { enabled: refusal === "", refetchInterval: 10_000 });
  return (
    <div className="panel">
      <h2>Denied lately</h2>
      {refusal ? (
        <p className="text-muted">Not shown: {refusal}.</p>
      ) : (
        <Answered of={denials}>
          {(data) =>
            data.records.length === 0 ? (
              <Empty>Nothing was denied.</Empty>
            ) : (
              <ul>
                {data.records.map((record) => (
                  <li key={record.requestId + record.procedure}>
                    <span className="text-muted">{time(record.time)}</span> {record.principal} {record.procedure}: {record.reason}
                  </li>
                ))}
              </ul>
            )
          }
        </Answered>
      )}
    </div>
  );
}

import { createConnectQueryKey, useMutation, useQuery } from "@connectrpc/connect-query";
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { TenantService, type Tenant } from "../gen/control/v1/tenant_pb";
import { bytes, number, unknown } from "../app/format";
import { useRefusal } from "../app/session";
import { useUrl } from "../app/url";
import { Button, Confirm } from "../parts/action";
import { FilterBox, matches, Text } from "../parts/field";
import { Drawer, Facts, Page } from "../parts/page";
import { Answered, Badge, Empty, Problem } from "../parts/state";
import { Table } from "../parts/table";
import { toast } from "../parts/toast";
import { Denials, Placements, Work } from "./parts";
import { Quota } from "./quota";

export function Tenants() {
  const [get, set] = useUrl();
  const tenants = useQuery(TenantService.method.listTenants, {}, { refetchInterval: 5_000 });
  const all = tenants.data?.tenants ?? [];
  const selected = all.find((tenant) => tenant.tenantId === get("open"));
  const suspended = all.filter((tenant) => tenant.suspended).length;
  return (
    <Page
      title="Tenants"
      summary={tenants.data ? `${number(all.length)} tenants${suspended > 0 ? `, ${number(suspended)} of them suspended` : ""}` : null}
      actions={<FilterBox />}
      detail={selected ? <Detail key={selected.tenantId} tenant={selected} onClose={() => set({ open: "" })} /> : null}
    >
      <Create />
      <Answered of={tenants}>
        {(data) => (
          <Table
            label="Tenants"
            rows={data.tenants.filter((tenant) => matches(get("q"), tenant.tenantId, ...tenant.nodes))}
            id={(tenant) => tenant.tenantId}
            selected={get("open")}
            onSelect={(tenant) => set({ open: tenant.tenantId })}
            empty={data.tenants.length === 0 ? <Empty title="There is no tenant yet.">Create one above: every node without placements serves it.</Empty> : <Empty title="No tenant matches the filter." />}
            columns={[
              { name: "Tenant", value: (tenant) => tenant.tenantId },
              { name: "State", width: 120, value: (tenant) => stateOf(tenant)[1], cell: (tenant) => <Badge tone={stateOf(tenant)[0]}>{stateOf(tenant)[1]}</Badge> },
              { name: "Nodes", width: 240, value: (tenant) => tenant.nodes.join(", "), cell: (tenant) => tenant.nodes.join(", ") || unknown },
              { name: "Rate limit", width: 110, number: true, value: (tenant) => tenant.quota?.rate, cell: (tenant) => (tenant.quota?.rate ? `${number(tenant.quota.rate)}/s` : "default") },
              { name: "Events", width: 100, number: true, value: (tenant) => tenant.storageUse?.events, cell: (tenant) => number(tenant.storageUse?.events) },
              { name: "Stored", width: 100, number: true, value: (tenant) => tenant.storageUse?.bytes, cell: (tenant) => bytes(tenant.storageUse?.bytes) },
              { name: "Aggregates", width: 110, number: true, value: (tenant) => tenant.storageUse?.aggregates, cell: (tenant) => number(tenant.storageUse?.aggregates) },
            ]}
          />
        )}
      </Answered>
    </Page>
  );
}

function stateOf(tenant: Tenant): ["ok" | "warn" | "bad", string] {
  if (tenant.suspended) return ["bad", "suspended"];
  return tenant.nodes.length > 0 ? ["ok", "served"] : ["warn", "no node yet"];
}

/** Loads the lists of tenants again. */
function useReload() {
  const queries = useQueryClient();
  return () => queries.invalidateQueries({ queryKey: createConnectQueryKey({ schema: TenantService.method.listTenants, cardinality: "finite" }) });
}

function Create() {
  const [name, setName] = useState("");
  const refusal = useRefusal("fleet.admin");
  const reload = useReload();
  const create = useMutation(TenantService.method.createTenant, { onSuccess: () => void reload() });
  return (
    <>
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
    </>
  );
}

function Detail({ tenant, onClose }: { tenant: Tenant; onClose: () => void }) {
  const id = tenant.tenantId;
  const refusal = useRefusal("fleet.admin");
  const reload = useReload();
  const suspend = useMutation(TenantService.method.suspendTenant);
  const resume = useMutation(TenantService.method.resumeTenant, {
    onSuccess: () => {
      toast(`Tenant ${id} is resumed.`);
      void reload();
    },
  });
  const [tone, word] = stateOf(tenant);
  return (
    <Drawer
      title={id}
      label={`Tenant ${id}`}
      badge={<Badge tone={tone}>{word}</Badge>}
      onClose={onClose}
      actions={
        tenant.suspended ? (
          <Button refusal={refusal} strong disabled={resume.isPending} onClick={() => resume.mutate({ tenantId: id })}>
            Resume
          </Button>
        ) : (
          <Confirm
            title="Suspend"
            danger
            refusal={refusal}
            reason
            what={
              <>
                Every call of {id} is refused and its workflows stop until it is resumed. Nothing is lost. Its callers see the reason.
              </>
            }
            run={async (reason) => {
              await suspend.mutateAsync({ tenantId: id, reason });
              await reload();
              toast(`Tenant ${id} is suspended.`);
            }}
          >
            Suspend…
          </Confirm>
        )
      }
    >
      {tenant.suspended ? <p>Its calls are refused{tenant.reason ? `: ${tenant.reason}` : ""}.</p> : null}
      {resume.error ? <Problem error={resume.error} /> : null}
      <section className="flex flex-col gap-1">
        <h3>Stored</h3>
        {tenant.storageUse ? (
          <Facts
            of={[
              ["Events", used(tenant.storageUse.events, tenant.storageQuota?.events)],
              ["Size", tenant.storageQuota?.bytes ? `${bytes(tenant.storageUse.bytes)} of ${bytes(tenant.storageQuota.bytes)}` : bytes(tenant.storageUse.bytes)],
              ["Aggregates", used(tenant.storageUse.aggregates, tenant.storageQuota?.aggregates)],
              ["Idempotency keys of 7 days", used(tenant.storageUse.keys, tenant.storageQuota?.keys)],
            ]}
          />
        ) : (
          <p className="text-muted">Not counted yet: the tenant has stored nothing.</p>
        )}
      </section>
      <Quota tenant={tenant} reload={reload} />
      <Placements tenant={id} />
      <Work tenant={id} />
      <Denials tenant={id} />
    </Drawer>
  );
}

function used(use: bigint, quota: bigint | undefined): string {
  return quota ? `${number(use)} of ${number(quota)}` : number(use);
}

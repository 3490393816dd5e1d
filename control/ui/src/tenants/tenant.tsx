import { useMutation, useQuery } from "@connectrpc/connect-query";
import { Link } from "@tanstack/react-router";
import { TenantService, type Tenant as TenantMessage } from "../gen/control/v1/tenant_pb";
import { bytes, number } from "../app/format";
import { useRefusal } from "../app/session";
import { Button, Confirm } from "../parts/action";
import { Card, Cards, Meter } from "../parts/card";
import { Page } from "../parts/page";
import { Answered, Badge, Empty, Notice, Problem } from "../parts/state";
import { useTenant } from "../parts/tenant";
import { toast } from "../parts/toast";
import { RecentCard } from "../timeline/recent";
import { TenantLoad } from "./load";
import { Denials, Letters, Numbers, Placements, Views, Work } from "./parts";
import { CallLimits, StorageLimits } from "./quota";
import { stateOf, useReload } from "./tenants";

/** Everything about the console's tenant on one page. */
export function Tenant() {
  const id = useTenant();
  const tenants = useQuery(TenantService.method.listTenants, {}, { refetchInterval: 5_000 });
  const tenant = tenants.data?.tenants.find((one) => one.tenantId === id);
  return (
    <Page
      title={id === "" ? "Tenant" : id}
      tenant
      summary={
        <span className="flex flex-wrap items-center gap-2">
          <Link to="/tenants">Tenants</Link>
          {tenant ? <Badge tone={stateOf(tenant)[0]}>{stateOf(tenant)[1]}</Badge> : null}
        </span>
      }
      actions={tenant ? <Actions tenant={tenant} /> : null}
    >
      <Answered of={tenants}>
        {() => (tenant ? <Body key={id} tenant={tenant} /> : <Empty title={id === "" ? "There is no tenant." : `There is no tenant ${id}.`}>Choose one at the top, or create one on the screen Tenants.</Empty>)}
      </Answered>
    </Page>
  );
}

function Actions({ tenant }: { tenant: TenantMessage }) {
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
  return (
    <div className="flex flex-wrap items-center gap-2">
      <Link to="/moves" search={{ tenant: id }} className="button no-underline">
        Move…
      </Link>
      {tenant.suspended ? (
        <Button refusal={refusal} strong disabled={resume.isPending} onClick={() => resume.mutate({ tenantId: id })}>
          Resume
        </Button>
      ) : (
        <Confirm
          title="Suspend"
          danger
          refusal={refusal}
          reason
          what={`Every call of ${id} is refused and its workflows stop until it is resumed. Nothing is lost. Its callers see the reason.`}
          run={async (reason) => {
            await suspend.mutateAsync({ tenantId: id, reason });
            await reload();
            toast(`Tenant ${id} is suspended.`);
          }}
        >
          Suspend…
        </Confirm>
      )}
      {resume.error ? <Problem error={resume.error} /> : null}
    </div>
  );
}

function Body({ tenant }: { tenant: TenantMessage }) {
  const id = tenant.tenantId;
  const reload = useReload();
  const { storageUse: use, storageQuota: quota } = tenant;
  return (
    <>
      {tenant.suspended ? <Notice tone="bad">Its calls are refused{tenant.reason ? `: ${tenant.reason}` : ""}.</Notice> : null}
      <Numbers tenant={tenant} />
      <TenantLoad tenant={id} />
      <Cards>
        <Views tenant={id} />
        <Placements tenant={id} />
        <Work tenant={id} />
        <Letters tenant={id} />
        <Card title="Storage">
          {use ? (
            <>
              <Meter name="Events" used={Number(use.events)} limit={Number(quota?.events ?? 0n)} show={number} />
              <Meter name="Size" used={Number(use.bytes)} limit={Number(quota?.bytes ?? 0n)} show={(value) => bytes(BigInt(value))} />
              <Meter name="Aggregates" used={Number(use.aggregates)} limit={Number(quota?.aggregates ?? 0n)} show={number} />
              <Meter name="Idempotency keys of 7 days" used={Number(use.keys)} limit={Number(quota?.keys ?? 0n)} show={number} />
            </>
          ) : (
            <p className="text-muted">Not counted yet: the tenant has stored nothing.</p>
          )}
          <StorageLimits tenant={tenant} reload={reload} />
        </Card>
        <Card title="Calls">
          <CallLimits tenant={tenant} reload={reload} />
        </Card>
        <RecentCard tenant={id} />
        <Denials tenant={id} />
      </Cards>
    </>
  );
}

import { useQuery } from "@connectrpc/connect-query";
import { Link } from "@tanstack/react-router";
import { MetricsService, TenantOrder, type TenantLoad } from "../gen/control/v1/metrics_pb";
import { ms, number } from "../app/format";
import { Answered } from "../parts/state";

const minutes = 15;
const most = 5;

const lists = [
  { title: "Most calls", order: TenantOrder.CALLS, of: (load: TenantLoad) => load.calls, none: "No tenant has called.", bar: "bg-info" },
  { title: "Most rejected by limits (429)", order: TenantOrder.LIMITED, of: (load: TenantLoad) => load.limited, none: "No limit rejected a call.", bar: "bg-warn" },
  { title: "Most errors of the platform", order: TenantOrder.ERRORS, of: (load: TenantLoad) => load.errors, none: "No call failed by the platform's fault.", bar: "bg-bad" },
  { title: "Greatest lag now (events)", order: TenantOrder.LAG, of: (load: TenantLoad) => load.lag ?? 0n, none: "No tenant is behind.", bar: "bg-warn" },
] as const;

/** The tenants with the most calls, rejected calls and errors, and the greatest lag: the noisy one is the first. */
export function TopTenants() {
  return (
    <section aria-label="Top tenants" className="panel flex min-w-0 flex-col gap-3">
      <h2>
        Top tenants <span className="text-muted text-sm font-normal">last {minutes} min</span>
      </h2>
      <div className="grid gap-x-8 gap-y-5 sm:grid-cols-2 lg:grid-cols-4">
        {lists.map((list) => (
          <Top key={list.title} list={list} />
        ))}
      </div>
    </section>
  );
}

function Top({ list }: { list: (typeof lists)[number] }) {
  const top = useQuery(MetricsService.method.listTopTenants, { order: list.order, minutes, limit: most }, { refetchInterval: 5_000 });
  return (
    <div className="flex min-w-0 flex-col gap-2">
      <h3 className="text-muted text-sm font-normal">{list.title}</h3>
      <Answered of={top}>
        {(data) => {
          const tenants = data.tenants.filter((load) => list.of(load) > 0n);
          const first = Number(tenants[0] ? list.of(tenants[0]) : 0n);
          if (tenants.length === 0) return <p className="text-muted">{list.none}</p>;
          return (
            <ol aria-label={list.title} className="flex flex-col gap-2">
              {tenants.map((load) => (
                <li key={load.tenantId} title={described(load)}>
                  <div className="flex items-baseline gap-2">
                    <Link to="/tenants/detail" search={{ tenant: load.tenantId }} className="min-w-0 flex-1 truncate">
                      {load.tenantId}
                    </Link>
                    <span>{number(list.of(load))}</span>
                    {list.order === TenantOrder.CALLS || list.order === TenantOrder.LAG ? null : <span className="text-muted w-14 text-right text-sm">{share(list.of(load), load.calls)}</span>}
                  </div>
                  <div className="bg-raised mt-1 h-1 overflow-hidden rounded-full" aria-hidden="true">
                    <div className={`h-full rounded-full ${list.bar}`} style={{ width: `${(Number(list.of(load)) / first) * 100}%` }} />
                  </div>
                </li>
              ))}
            </ol>
          );
        }}
      </Answered>
    </div>
  );
}

/** The share of a tenant's calls that failed or were rejected. */
function share(count: bigint, calls: bigint): string {
  return calls === 0n ? "" : `${number((Number(count) / Number(calls)) * 100, 0)} %`;
}

function described(load: TenantLoad): string {
  return `${load.tenantId}: ${number(load.calls)} calls (${number(load.commands)} commands, ${number(load.queries)} queries), ${number(load.limited)} rejected by limits, ${number(load.errors)} failed, p99 ${ms(load.p99Ms)}${load.lag === undefined ? "" : `, ${number(load.lag)} events not yet processed`}`;
}

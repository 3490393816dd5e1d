import { useQuery } from "@connectrpc/connect-query";
import { MetricsService } from "../gen/control/v1/metrics_pb";
import { CallTiles, Charts, LagTile, Tiles } from "../overview/load";
import { often, RangeChoice, useRange } from "../overview/range";
import { Answered } from "../parts/state";

/** The calls of one tenant over time, on its page. */
export function TenantLoad({ tenant }: { tenant: string }) {
  const { range, words } = useRange();
  const series = useQuery(MetricsService.method.querySeries, { tenantId: tenant, range }, often);
  return (
    <section aria-label={`Load of ${tenant}`} className="flex min-w-0 flex-col gap-4">
      <div className="flex items-end gap-3">
        <h2 className="flex-1">Load</h2>
        <RangeChoice />
      </div>
      <Answered of={series}>
        {(data) => (
          <>
            <Tiles label={`Load of ${tenant} in numbers`} six>
              <CallTiles series={data} range={words} />
              <LagTile series={data} />
            </Tiles>
            <Charts series={data} />
          </>
        )}
      </Answered>
    </section>
  );
}

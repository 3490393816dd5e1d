import { useQuery } from "@connectrpc/connect-query";
import { MetricsService } from "../gen/control/v1/metrics_pb";
import type { Node } from "../gen/control/v1/fleet_pb";
import { bytes, ms, number } from "../app/format";
import { CallTiles, Charts, course, LagTile, Tile, Tiles, type Measured, type Series } from "../overview/load";
import { often, RangeChoice, useRange } from "../overview/range";
import { latest, values, windowName } from "../overview/series";
import { Answered, Skeleton } from "../parts/state";

/** What a node of a kind measures: gateways the calls of clients, the others what they answer; projection nodes and runners their lag. */
function measuredBy(kind: string): Measured {
  return { edge: kind === "gateway", lag: kind === "projection" || kind === "runner" };
}

/** The calls of a node over time: of a gateway the calls that clients make, of another node the calls that it answers. */
export function NodeLoad({ node }: { node: Node }) {
  const { range, words } = useRange();
  const series = useQuery(MetricsService.method.querySeries, { node: node.id, range }, often);
  const measured = measuredBy(node.kind);
  return (
    <section aria-label={`Load of ${node.id}`} className="flex min-w-0 flex-col gap-4">
      <div className="flex flex-wrap items-end gap-3">
        <h2 className="flex-1">Load</h2>
        <RangeChoice />
      </div>
      <Answered of={series} skeleton={<Skeleton lines={8} />}>
        {(data) => (
          <>
            <Tiles label={`Load of ${node.id} in numbers`} six={measured.edge || measured.lag}>
              {measured.edge ? <CallTiles series={data} range={words} /> : <NodeTiles series={data} node={node} lag={measured.lag} />}
              <ProcessTile node={node} />
            </Tiles>
            <Charts series={data} measured={measured} />
          </>
        )}
      </Answered>
    </section>
  );
}

/** The numbers of a node that clients do not call. */
function NodeTiles({ series, node, lag }: { series: Series; node: Node; lag: boolean }) {
  const { points, seconds } = series;
  const errors = latest(points, values.errors);
  const failed = latest(points, values.failed);
  return (
    <>
      <Tile name="Calls" value={`${number(latest(points, values.calls), 1)}/s`} note={`that it answers, ${number(node.load?.inFlight)} in flight`} spark={course(series, values.calls, "Calls")} />
      <Tile name="p99" value={ms(latest(points, values.p99))} note={`p50 ${ms(latest(points, values.p50))}, p95 ${ms(latest(points, values.p95))}`} spark={course(series, values.p99, "p99")} />
      <Tile name="Failed by the platform" value={`${number(errors, 2)}/s`} note={`per second, last ${windowName(seconds)}`} tone={errors ? "bad" : "plain"} spark={course(series, values.errors, "Failed calls")} />
      {lag ? <LagTile series={series} /> : null}
      {node.kind === "projection" ? <Tile name="Failed views" value={number(failed)} note="at this node" tone={failed ? "bad" : "plain"} spark={course(series, values.failed, "Failed views")} /> : null}
    </>
  );
}

function ProcessTile({ node }: { node: Node }) {
  return <Tile name="Memory" value={bytes(node.load?.memoryBytes)} note={`${number(node.load?.goroutines)} goroutines`} />;
}

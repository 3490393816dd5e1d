import { useQuery } from "@connectrpc/connect-query";
import { Link } from "@tanstack/react-router";
import { FleetService, type Fleet, type GetNodeResponse, type Node } from "../gen/control/v1/fleet_pb";
import { ms, number, since } from "../app/format";
import { useUrl } from "../app/url";
import { Card, Cards } from "../parts/card";
import { Page } from "../parts/page";
import { Answered, Empty, Notice, Skeleton } from "../parts/state";
import { Table } from "../parts/table";
import { NodeLoad } from "./node-load";
import { Actions } from "./actions";
import { Breakers, Certificate, FailingViews, Identity, LogsHint, NodeLinks, OutOfService, peers, Tenants, useNode } from "./node-parts";
import { expires } from "./expiry";
import { State } from "./state";

/** Everything that is known of the node that the address names, and what can be done with it. */
export function NodePage() {
  const [get] = useUrl();
  const id = get("node");
  const fleet = useQuery(FleetService.method.getFleet, {}, { refetchInterval: 2_000 });
  const details = useNode(id);
  const node = fleet.data?.fleet?.nodes.find((one) => one.id === id);
  return (
    <Page
      title={id === "" ? "Node" : id}
      summary={
        <span className="flex flex-wrap items-center gap-2">
          <Link to="/fleet">Fleet</Link>
          {node ? (
            <>
              <State node={node} />
              <span>
                {node.kind}, up for {since(node.started)}
              </span>
            </>
          ) : null}
        </span>
      }
      actions={node && fleet.data?.fleet ? <div className="flex flex-wrap items-center gap-2"><Actions node={node} drain={details.data?.drain} others={peers(node, fleet.data.fleet)} /></div> : null}
    >
      <Answered of={fleet}>
        {(data) =>
          node && data.fleet ? (
            <Body key={id} node={node} fleet={data.fleet} details={details} />
          ) : (
            <Empty title={id === "" ? "No node is chosen." : `No node has the name ${id} now.`}>
              A node that is stopped in order deregisters and leaves the list immediately. <Link to="/fleet">Choose one of the fleet</Link>, or see <Link to="/audit" search={{ procedure: "Drain" }}>who drained nodes</Link>.
            </Empty>
          )
        }
      </Answered>
    </Page>
  );
}

function Body({ node, fleet, details }: { node: Node; fleet: Fleet; details: ReturnType<typeof useNode> }) {
  const ends = details.data?.certificate?.notAfter;
  return (
    <>
      {node.modelProblem ? <Notice tone="bad">It does not use the applied model: {node.modelProblem}</Notice> : null}
      {ends && expires(ends) ? <Notice tone="warn">Its certificate {expires(ends)}: connections fail then. Renew its file; new connections take it within a second.</Notice> : null}
      <FailingViews node={node} />
      <NodeLoad node={node} />
      <Answered of={details} skeleton={<Skeleton lines={8} />}>
        {(data) => (
          <>
            <Procedures of={data} />
            <Cards>
              <Card title="Taking it out of service">
                {data.drain ? <OutOfService drain={data.drain} /> : <p className="text-muted">Control does not know what that means.</p>}
                <h3>Tenants that it serves ({number(node.tenants.length)})</h3>
                <Tenants node={node} />
                <NodeLinks node={node} />
              </Card>
              <Card title="Process">
                <Identity node={node} fleet={fleet} more={[["Answer took", ms(node.answerMs)]]} />
                <LogsHint node={node} />
              </Card>
              <Card title="Open breakers">
                <Breakers node={node} fleet={fleet} />
              </Card>
              <Card title="Certificate">
                <Certificate of={data} />
              </Card>
            </Cards>
            <Settings of={data} />
          </>
        )}
      </Answered>
    </>
  );
}

/** The procedures with the most calls of the last seconds. */
function Procedures({ of: { procedures, procedureSeconds } }: { of: GetNodeResponse }) {
  const rate = (count: bigint) => (procedureSeconds > 0 ? Number(count) / procedureSeconds : undefined);
  return (
    <section aria-label="Procedures" className="flex min-w-0 flex-col gap-2">
      <h2>
        Procedures <span className="text-muted text-sm font-normal">{procedureSeconds > 0 ? `calls of ${number(procedureSeconds)} s; the duration of a stream is how long it was open` : ""}</span>
      </h2>
      <Table
        label="Procedures with the most calls"
        rows={procedures}
        id={(one) => one.procedure}
        empty={<Empty title="It has answered no call in the last seconds.">The procedures of a node are measured every 15 seconds.</Empty>}
        columns={[
          { name: "Procedure", width: 420, value: (one) => one.procedure, cell: (one) => <code>{one.procedure}</code> },
          { name: "Calls", width: 80, number: true, value: (one) => one.calls, cell: (one) => number(one.calls) },
          { name: "Calls/s", width: 80, number: true, value: (one) => rate(one.calls), cell: (one) => number(rate(one.calls), 1) },
          { name: "Not ok", width: 80, number: true, value: (one) => one.errors, cell: (one) => <span className={one.errors > 0n ? "text-warn" : ""}>{number(one.errors)}</span> },
          { name: "p50", width: 80, number: true, value: (one) => one.p50Ms, cell: (one) => ms(one.p50Ms) },
          { name: "p95", width: 80, number: true, value: (one) => one.p95Ms, cell: (one) => ms(one.p95Ms) },
          { name: "p99", width: 80, number: true, value: (one) => one.p99Ms, cell: (one) => ms(one.p99Ms) },
        ]}
      />
    </section>
  );
}

/** The settings in use, as the node announces them. */
function Settings({ of: { settings } }: { of: GetNodeResponse }) {
  return (
    <Card title="Settings in use">
      {settings.length === 0 ? (
        <p className="text-muted">Its version does not announce them.</p>
      ) : (
        <dl className="grid gap-x-8 gap-y-1 sm:grid-cols-2 xl:grid-cols-3">
          {settings.map((one) => (
            <div key={one.name} className="border-border flex items-baseline gap-3 border-b py-1">
              <dt className="min-w-0 flex-1 break-all">
                <code>{one.name}</code>
              </dt>
              <dd className="break-all">{one.value}</dd>
            </div>
          ))}
        </dl>
      )}
    </Card>
  );
}

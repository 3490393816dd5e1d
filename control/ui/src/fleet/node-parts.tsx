import { timestampMs, type Timestamp } from "@bufbuild/protobuf/wkt";
import { useQuery } from "@connectrpc/connect-query";
import { Link } from "@tanstack/react-router";
import type { ReactNode } from "react";
import { FleetService, NodeState, type Fleet, type GetNodeResponse, type Node, type NodeDrain } from "../gen/control/v1/fleet_pb";
import { number, since, unknown } from "../app/format";
import { Copy } from "../parts/copy";
import { Facts } from "../parts/page";
import { Badge } from "../parts/state";
import { Time } from "../parts/time";
import { breakers } from "./breakers";
import { expiry } from "./expiry";

/** What a node announces of itself beyond its load: asked again every five seconds. */
export function useNode(id: string) {
  return useQuery(FleetService.method.getNode, { node: id }, { enabled: id !== "", refetchInterval: 5_000, retry: false });
}

export function Part({ title, children }: { title: string; children: ReactNode }) {
  return (
    <section aria-label={title} className="flex flex-col gap-1.5">
      <h3>{title}</h3>
      {children}
    </section>
  );
}

/** What identifies a node. */
export function Identity({ node, fleet, more = [] }: { node: Node; fleet: Fleet; more?: [name: string, value: ReactNode][] }) {
  return (
    <Facts
      of={[
        ["Kind", node.kind],
        ["Endpoint", <span key="e" className="flex items-start gap-1"><code className="break-all">{node.endpoint}</code> <Copy text={node.endpoint} label="Copy the endpoint" /></span>],
        ["Version", <Version key="v" node={node} fleet={fleet} />],
        ["Started", <span key="t"><Time of={node.started} /> <span className="text-muted">({since(node.started)} ago)</span></span>],
        ...more,
        ["Model", node.modelRevision && <code key="m" className="break-all">{node.modelRevision}</code>],
        ["Model to come", node.modelPending && <code key="p" className="break-all">{node.modelPending}</code>],
      ]}
    />
  );
}

/** When a certificate expires, as a warning where that is soon. */
export function Expiry({ of }: { of: Timestamp | undefined }) {
  if (!of) return unknown;
  const { tone, words } = expiry(timestampMs(of));
  return (
    <span className="flex flex-wrap items-center gap-2">
      <Time of={of} /> <Badge tone={tone}>{words}</Badge>
    </span>
  );
}

/** The tenants that a node serves. */
export function Tenants({ node }: { node: Node }) {
  if (node.tenants.length === 0) return <p className="text-muted">{node.kind === "gateway" || node.kind === "control" ? "Nodes of this kind serve all tenants alike." : "It serves none."}</p>;
  return <TenantLinks tenants={node.tenants} />;
}

export function TenantLinks({ tenants }: { tenants: readonly string[] }) {
  return (
    <ul className="flex flex-wrap gap-x-3 gap-y-1">
      {tenants.map((tenant) => (
        <li key={tenant}>
          <Link to="/tenants/detail" search={{ tenant }}>
            {tenant}
          </Link>
        </li>
      ))}
    </ul>
  );
}

/** How many other nodes of its kind take calls. */
export function peers(node: Node, fleet: Fleet): number {
  return fleet.nodes.filter((one) => one.kind === node.kind && one.id !== node.id && one.state === NodeState.READY).length;
}

/** What it means to take a node out of service, as control knows it. */
export function OutOfService({ drain }: { drain: NodeDrain }) {
  const more = drain.placedTenantCount - drain.placedTenants.length;
  return (
    <>
      <p>{drain.effect}</p>
      <Facts
        of={[
          drain.drained
            ? ["Drained", <span key="d"><Time of={drain.since} /> <span className="text-muted">{drain.by === "" ? "" : `by ${drain.by}`}{drain.reason === "" ? "" : `: ${drain.reason}`}</span></span>]
            : ["Drained from here", drain.supported && drain.refusal === "" ? "yes" : "no: stop the process"],
          ["Other ready nodes of its kind", drain.readyPeers === 0 ? <Badge key="none" tone="warn">none</Badge> : number(drain.readyPeers)],
          [
            "Tenants placed on it",
            drain.placedTenantCount === 0 ? (
              "none"
            ) : (
              <span key="p" className="flex flex-wrap gap-x-3">
                <TenantLinks tenants={drain.placedTenants} />
                {more > 0 ? <span className="text-muted">and {number(more)} more</span> : null}
              </span>
            ),
          ],
        ]}
      />
    </>
  );
}

/** Links from a node to where to continue. */
export function NodeLinks({ node }: { node: Node }) {
  return (
    <p className="flex flex-wrap gap-x-4">
      {["gateway", "aggregate", "projection", "runner", "control"].includes(node.kind) ? (
        <Link to="/audit" search={{ procedure: node.kind === "runner" ? "RunnerAdmin" : "DrainNode" }}>
          Who drained {node.kind === "runner" ? "runners" : "nodes"}
        </Link>
      ) : null}
      {["aggregate", "projection", "runner"].includes(node.kind) ? (
        <Link to="/moves" search={{ kind: node.kind, target: node.id }}>
          Move a tenant to it…
        </Link>
      ) : null}
    </p>
  );
}

/** Where the node's log is. */
export function LogsHint({ node }: { node: Node }) {
  return (
    <p className="text-muted text-sm">
      Its log is the standard error of its process: <code>journalctl -u headgate@{node.kind}</code> with systemd, <code>kubectl -n headgate logs -l app={node.kind}</code> with Kubernetes.
    </p>
  );
}

/** What a node announces of its certificate. */
export function Certificate({ of }: { of: GetNodeResponse }) {
  const { certificate } = of;
  if (!certificate) return <p className="text-muted">None: its server has no certificate, or its version does not announce it.</p>;
  return (
    <Facts
      of={[
        ["Subject", <code key="s" className="break-all">{certificate.subject}</code>],
        ["Issuer", <code key="i" className="break-all">{certificate.issuer}</code>],
        ["Expires", <Expiry key="e" of={certificate.notAfter} />],
      ]}
    />
  );
}

/** The breakers that a gateway has open, or that gateways have open for this node. */
export function Breakers({ node, fleet }: { node: Node; fleet: Fleet }) {
  const found = breakers(fleet.nodes).filter((one) => (node.kind === "gateway" ? one.gateway === node.id : one.endpoint === node.endpoint));
  if (found.length === 0) return <p className="text-muted">{node.kind === "gateway" ? "None: it diverts calls from no node." : "None: no gateway diverts calls from it."}</p>;
  return (
    <ul className="flex flex-col gap-1">
      {found.map((one) => (
        <li key={`${one.gateway} ${one.endpoint} ${one.method}`} className="flex flex-wrap items-center gap-2">
          <Badge tone="bad">open</Badge>
          <Link to="/fleet" search={{ open: node.kind === "gateway" ? one.node : one.gateway }}>
            {node.kind === "gateway" ? one.node : one.gateway}
          </Link>
          <span className="text-muted">{one.method === "" ? "all methods" : <code className="break-all">{one.method}</code>}</span>
        </li>
      ))}
    </ul>
  );
}

function Version({ node, fleet }: { node: Node; fleet: Fleet }) {
  const others = [...new Set(fleet.nodes.map((one) => one.version))].filter((version) => version !== "" && version !== node.version);
  return (
    <>
      {node.version || unknown} {others.length > 0 ? <span className="text-warn">(others: {others.join(", ")})</span> : null}
    </>
  );
}

export function FailingViews({ node }: { node: Node }) {
  if (node.failingViews.length === 0) return null;
  return (
    <Part title={`Failed views (${node.failingViewCount})`}>
      <ul className="flex flex-col gap-1">
        {node.failingViews.map((view) => (
          <li key={`${view.tenantId}/${view.view}`}>
            <Link to="/views" search={{ tenant: view.tenantId, view: view.view }}>
              {view.tenantId}/{view.view}
            </Link>
            : {view.eventType} of {view.aggregate}: {view.reason}
          </li>
        ))}
      </ul>
    </Part>
  );
}

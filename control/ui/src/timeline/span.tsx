import { Link } from "@tanstack/react-router";
import { ms } from "../app/format";
import { useUrl } from "../app/url";
import { Id } from "../parts/copy";
import { Drawer, Facts } from "../parts/page";
import { Badge } from "../parts/state";
import { Time } from "../parts/time";
import { failed, shortName, type Node } from "./tree";

/** Links from a span to where to continue. */
export function Links({ tenant, node }: { tenant: string; node: Node }) {
  const { span } = node;
  const [type = "", id = ""] = span.subject.split("/", 2);
  const step = [node, ...above(node)].find((one) => one.span.kind === "step");
  const instance = step?.span.subject ?? "";
  const isAggregate = id !== "" && ["command", "event", "projection"].includes(span.kind);
  return (
    <>
      {instance.includes("/") ? (
        <Link to="/workflows" search={{ tenant, instance }}>
          Workflow instance
        </Link>
      ) : null}
      {isAggregate ? (
        <Link to="/aggregates" search={{ tenant, type, id }}>
          History of {span.subject}
        </Link>
      ) : null}
      {span.kind === "command" && id !== "" ? (
        <Link to="/commands" search={{ tenant, type, command: span.name, id }}>
          Send the command again…
        </Link>
      ) : null}
      {span.requestId === "" ? null : (
        <Link to="/audit" search={{ tenant, id: span.requestId }}>
          Audit records
        </Link>
      )}
      {span.node === "" ? null : (
        <Link to="/fleet" search={{ tenant, open: span.node }}>
          Node {span.node}
        </Link>
      )}
    </>
  );
}

function above(node: Node): Node[] {
  return node.parent ? [node.parent, ...above(node.parent)] : [];
}

/** A chosen span: its facts, what caused it and what it has caused. */
export function Detail({ tenant, node, onClose }: { tenant: string; node: Node; onClose: () => void }) {
  const { span } = node;
  const [, set] = useUrl();
  const to = (one: Node) => (
    <button key={one.index} type="button" className="text-accent cursor-pointer text-left break-words hover:underline" onClick={() => set({ span: String(one.index) })}>
      {one.span.kind} {shortName(one.span)}
    </button>
  );
  return (
    <Drawer title={shortName(span)} label="Span" badge={<Badge tone={failed(span) ? "bad" : "ok"}>{span.code || "ended"}</Badge>} onClose={onClose}>
      {span.detail === "" ? null : <p className={`break-words ${failed(span) ? "text-bad" : ""}`}>{span.detail}</p>}
      <Facts
        of={[
          ["Kind", span.kind],
          ["Name", <code key="n" className="break-all">{span.name}</code>],
          ["Node", span.node],
          ["Started", <Time key="t" of={span.started} />],
          ["Took", ms(span.ms)],
          ["Subject", span.subject && <Id key="s" text={span.subject} />],
          ["Client", span.client],
          ["Event id", span.eventId && <Id key="e" text={span.eventId} />],
          ["Request id", span.requestId && <Id key="r" text={span.requestId} />],
          ["Causation id", span.causationId && <Id key="c" text={span.causationId} />],
          ["Caused by", node.parent ? to(node.parent) : ""],
          ["Has caused", node.children.length > 0 ? <span key="h" className="flex flex-col items-start">{node.children.map(to)}</span> : ""],
        ]}
      />
      <p className="flex flex-col items-start gap-1">
        <Links tenant={tenant} node={node} />
      </p>
    </Drawer>
  );
}

import { CircleX } from "lucide-react";
import { useUrl } from "../app/url";
import { Links } from "./span";
import { causes, failed, shortName, type Node } from "./tree";

const most = 5;

/** Why it failed: each failure that no other has caused, what it made fail, and links to where to continue. */
export function Failures({ tenant, nodes }: { tenant: string; nodes: Node[] }) {
  const [, set] = useUrl();
  const found = causes(nodes);
  if (found.length === 0) return null;
  const total = nodes.filter((node) => failed(node.span)).length;
  return (
    <section aria-label="Failures" className="border-bad bg-surface flex flex-col gap-3 rounded-lg border border-l-4 p-4">
      <h2 className="flex items-center gap-2">
        <CircleX className="text-bad size-4 shrink-0" aria-hidden />
        {found.length === 1 ? "Failed for one cause" : `Failed for ${found.length} causes`}
        <span className="text-muted text-sm font-normal">
          {total} of {nodes.length} spans failed
        </span>
      </h2>
      <ul className="flex flex-col gap-3">
        {found.slice(0, most).map((node) => (
          <li key={node.index} className="flex flex-col gap-1">
            <p className="break-words">
              <button type="button" className="text-accent cursor-pointer font-semibold underline underline-offset-2" onClick={() => set({ span: String(node.index) })}>
                {node.span.kind} {shortName(node.span)}
              </button>
              {node.span.subject === "" ? "" : ` on ${node.span.subject}`} ended as {node.span.code}
              {node.span.detail ? ": " : "."}
              <strong>{node.span.detail}</strong>
            </p>
            <Consequences node={node} />
            <p className="flex flex-wrap gap-x-4">
              <Links tenant={tenant} node={node} />
            </p>
          </li>
        ))}
      </ul>
      {found.length > most ? <p className="text-muted">And {found.length - most} more, red below.</p> : null}
    </section>
  );
}

/** What failed because of it: the failed spans above it, the nearest first. */
function Consequences({ node }: { node: Node }) {
  const above: Node[] = [];
  for (let one = node.parent; one; one = one.parent) if (failed(one.span)) above.push(one);
  if (above.length === 0) return null;
  return <p className="text-muted break-words">It made fail: {above.map((one) => `${one.span.kind} ${shortName(one.span)} at ${one.span.node}`).join(", ")}</p>;
}

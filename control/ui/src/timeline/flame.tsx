import { ChevronDown, ChevronRight, CircleX } from "lucide-react";
import { useState } from "react";
import { duration, ms, number } from "../app/format";
import { useUrl } from "../app/url";
import type { Axis, Piece } from "./axis";
import { failed, shortName, type Node } from "./tree";

/** The colours of kinds. None of them is the colour of a failure. */
const colors: Record<string, string> = { call: "var(--series-2)", command: "var(--series-3)", event: "var(--series-6)", projection: "var(--series-5)", step: "var(--series-1)" };
const colorOf = (node: Node) => (failed(node.span) ? "var(--bad)" : (colors[node.span.kind] ?? "var(--muted)"));

export function Legend() {
  return (
    <p className="flex flex-wrap gap-3" aria-hidden="true">
      {Object.entries(colors).map(([kind, color]) => (
        <span key={kind} className="text-muted flex items-center gap-1 text-sm">
          <span className="inline-block size-2.5 rounded-sm" style={{ background: color }} /> {kind}
        </span>
      ))}
      <span className="text-muted flex items-center gap-1 text-sm">
        <CircleX className="text-bad size-3" /> failed
      </span>
    </p>
  );
}

const mark = (after: number) => (after === 0 ? "0" : `+${after < 1 ? `${number(after, 2)} ms` : ms(after)}`);
const length = ({ from, to }: Piece) => (to - from < 1000 ? ms(to - from) : duration(to - from));

/** The names of spans, and the axis beside them; on a phone, each bar is under its name. */
const columns = "md:grid md:grid-cols-[minmax(14rem,24rem)_minmax(0,1fr)] md:gap-x-3";
/** Nesting is shown to this depth: below it, names would have no room. */
const deepest = 8;

/** Spans nested by causation on one axis, whose idle gaps are folded. */
export function Flame({ nodes, axis }: { nodes: Node[]; axis: Axis }) {
  const [closed, setClosed] = useState<ReadonlySet<number>>(new Set());
  const hidden = (node: Node): boolean => node.parent !== undefined && (closed.has(node.parent.index) || hidden(node.parent));
  const toggle = (index: number) => {
    const next = new Set(closed);
    if (!next.delete(index)) next.add(index);
    setClosed(next);
  };
  return (
    <div className="panel flex flex-col p-2">
      <div className={`${columns} hidden px-2`} aria-hidden>
        <span />
        <div>
          <Minimap nodes={nodes} axis={axis} />
          <div className="relative h-5">
            {axis.ticks.map((tick) => (
              <span key={tick.after} className="text-muted border-border absolute inset-y-0 border-l pl-1 text-xs whitespace-nowrap" style={{ left: `${tick.left}%` }}>
                {tick.sinceGap === undefined ? mark(tick.after) : `… ${mark(tick.sinceGap)}`}
              </span>
            ))}
            {axis.pieces.map((piece) =>
              piece.idle ? (
                <span key={piece.from} className="bg-raised text-muted absolute inset-y-0 truncate text-center text-xs leading-5" style={{ left: `${piece.left}%`, width: `${piece.width}%` }} title={`${length(piece)} in which nothing happened`}>
                  {length(piece)}
                </span>
              ) : null,
            )}
          </div>
        </div>
      </div>
      <ol aria-label="Spans" className="flex flex-col">
        {nodes
          .filter((node) => !hidden(node))
          .map((node) => (
            <Row key={node.index} node={node} axis={axis} closed={closed.has(node.index)} toggle={() => toggle(node.index)} />
          ))}
      </ol>
    </div>
  );
}

/** The whole time as it was, idle gaps included: where in it the spans and the failures are. */
function Minimap({ nodes, axis }: { nodes: Node[]; axis: Axis }) {
  const percent = (moment: number) => ((moment - axis.from) / (axis.to - axis.from)) * 100;
  return (
    <div className="bg-raised relative my-1 h-3 overflow-hidden rounded-sm" title="The whole time, without folds">
      {[...nodes]
        .sort((a, b) => Number(failed(a.span)) - Number(failed(b.span)))
        .map((node) => (
          <div key={node.index} className="absolute inset-y-0.5" style={{ left: `${Math.min(percent(node.from), 99.5)}%`, width: `${Math.max(percent(node.to) - percent(node.from), 0.4)}%`, background: colorOf(node) }} />
        ))}
    </div>
  );
}

function Row({ node, axis, closed, toggle }: { node: Node; axis: Axis; closed: boolean; toggle: () => void }) {
  const [get, set] = useUrl();
  const { span } = node;
  const bad = failed(span);
  const chosen = get("span") === String(node.index);
  const name = shortName(span);
  const left = Math.min(axis.at(node.from), 99.2);
  const width = Math.min(Math.max(axis.at(node.to) - left, 0.6), 100 - left);
  const after = node.from - axis.from;
  const Fold = closed ? ChevronRight : ChevronDown;
  return (
    <li className={`${columns} items-center rounded px-2 py-0.5 ${chosen ? "bg-accent-soft" : "hover:bg-raised"}`} data-failed={bad} data-depth={node.depth}>
      <div className="flex min-w-0 items-center" style={{ paddingLeft: `${Math.min(node.depth, deepest) * 12}px` }}>
        {node.children.length > 0 ? (
          <button type="button" className="text-muted hover:text-text size-6 shrink-0 cursor-pointer" aria-expanded={!closed} aria-label={`What ${span.kind} ${name} has caused`} onClick={toggle}>
            <Fold className="mx-auto size-3.5" aria-hidden />
          </button>
        ) : (
          <span className="size-6 shrink-0" />
        )}
        <button type="button" className="flex min-w-0 flex-1 cursor-pointer items-center gap-2 text-left hover:underline" aria-pressed={chosen} onClick={() => set({ span: String(node.index) })}>
          {bad ? <CircleX className="text-bad size-3.5 shrink-0" aria-hidden /> : <span className="size-2.5 shrink-0 rounded-sm" style={{ background: colorOf(node) }} aria-hidden />}
          <span className="truncate">
            <span className="text-muted">{span.kind}</span> {name}
          </span>
          <span className="text-muted ml-auto text-sm whitespace-nowrap">{span.node}</span>
        </button>
      </div>
      <div className="relative ml-6 h-5 md:ml-0" title={`${span.name}: +${number(after, 2)} ms, ${ms(span.ms)}, ${span.code}`}>
        <div className="border-border absolute inset-x-0 top-1/2 border-t" aria-hidden />
        {axis.pieces.map((piece) =>
          piece.idle ? (
            <div key={piece.from} className="bg-raised absolute -inset-y-0.5" style={{ left: `${piece.left}%`, width: `${piece.width}%` }} aria-hidden />
          ) : null,
        )}
        <div data-bar="" className="absolute top-1 bottom-1 rounded-sm" style={{ left: `${left}%`, width: `${width}%`, background: colorOf(node) }} />
        {bad ? (
          <span
            className="bg-bad-soft text-bad absolute top-0 truncate rounded px-1 text-xs leading-5"
            style={left < 50 ? { left: `calc(${left + width}% + 4px)`, maxWidth: `calc(${Math.max(0, 100 - left - width)}% - 4px)` } : { right: `calc(${100 - left}% + 4px)`, maxWidth: `calc(${left}% - 4px)` }}
          >
            {span.code}
            {span.detail ? `: ${span.detail}` : ""}
          </span>
        ) : null}
        <span className="sr-only">
          {number(after, 2)} ms after the first, took {ms(span.ms)}, {span.code}
        </span>
      </div>
    </li>
  );
}

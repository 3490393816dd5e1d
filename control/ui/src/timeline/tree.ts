import type { Span } from "../gen/control/v1/timeline_pb";

/** A span with what it has caused. */
export interface Node {
  span: Span;
  /** Its place in the answer: it names the span in the address. */
  index: number;
  /** Milliseconds of the epoch, with fractions. */
  from: number;
  to: number;
  parent: Node | undefined;
  children: Node[];
  depth: number;
}

/** Whether a span has failed: anything that did not end well, or by an operator's decision. */
export function failed(span: Span): boolean {
  return !["", "ok", "done", "skipped"].includes(span.code);
}

/** The last part of a procedure's name; other names as they are. */
export function shortName(span: Span): string {
  return span.name.split("/").at(-1) || span.name;
}

const started = (span: Span) => (span.started ? Number(span.started.seconds) * 1000 + span.started.nanos / 1e6 : 0);

/** How much of a span's time lies outside of another's, at both ends. */
function distance(parent: Node, child: Node): number {
  return Math.max(0, parent.from - child.from) + Math.max(0, child.to - parent.to);
}

/** Of several that may have caused a span, the one whose time covers its own; starts are rounded, and the clocks of nodes differ. */
function nearest(child: Node, candidates: Node[]): Node | undefined {
  let best: Node | undefined;
  for (const one of candidates) {
    if (one === child) continue;
    if (!best || distance(one, child) < distance(best, child) || (distance(one, child) === distance(best, child) && one.from > best.from)) best = one;
  }
  return best;
}

/** What has caused a span: a call comes of a step, a command of a call, an event of a command, and what follows of the event. */
function causeOf(node: Node, of: (kind: string, test: (span: Span) => boolean) => Node[]): Node | undefined {
  const { span } = node;
  const sameRequest = (other: Span) => span.requestId !== "" && other.requestId === span.requestId;
  const event = (id: string) => (id === "" ? undefined : of("event", (other) => other.eventId === id)[0]);
  switch (span.kind) {
    case "call":
      return nearest(node, of("step", sameRequest)) ?? event(span.causationId);
    case "command":
      return nearest(node, of("call", sameRequest)) ?? nearest(node, of("step", sameRequest)) ?? event(span.causationId);
    case "event":
      return nearest(node, of("command", (other) => sameRequest(other) && other.subject === span.subject)) ?? nearest(node, of("call", sameRequest)) ?? event(span.causationId);
    case "projection":
      return event(span.eventId);
    default:
      return event(span.causationId) ?? event(span.eventId);
  }
}

/** Nests spans by causation; those at one level are in the order of their start. Returned in the order of reading. */
export function nest(spans: readonly Span[]): Node[] {
  const nodes = spans.map((span, index): Node => ({ span, index, from: started(span), to: started(span) + span.ms, parent: undefined, children: [], depth: 0 }));
  const byKind = new Map<string, Node[]>();
  for (const node of nodes) byKind.set(node.span.kind, [...(byKind.get(node.span.kind) ?? []), node]);
  const of = (kind: string, test: (span: Span) => boolean) => (byKind.get(kind) ?? []).filter((node) => test(node.span));
  for (const node of nodes) {
    const cause = causeOf(node, of);
    // No span is its own cause, even if the records state it.
    for (let above = cause; ; above = above.parent) {
      if (above === node) break;
      if (above === undefined) {
        node.parent = cause;
        cause?.children.push(node);
        break;
      }
    }
  }
  const out: Node[] = [];
  const walk = (node: Node, depth: number) => {
    node.depth = depth;
    out.push(node);
    for (const child of node.children.sort((a, b) => a.from - b.from)) walk(child, depth + 1);
  };
  for (const node of nodes.filter((one) => !one.parent).sort((a, b) => a.from - b.from)) walk(node, 0);
  return out;
}

/** Failed spans that no failed span has caused: the causes of the other failures. */
export function causes(nodes: Node[]): Node[] {
  const fails = (node: Node): boolean => node.children.some((child) => failed(child.span) || fails(child));
  return nodes.filter((node) => failed(node.span) && !fails(node));
}

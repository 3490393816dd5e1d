import type { ReactNode } from "react";

/** A titled part of a page, and what leads on from it. */
export function Card({ title, more, children, wide = false }: { title: string; more?: ReactNode; children: ReactNode; wide?: boolean }) {
  return (
    <section aria-label={title} className={`panel flex min-w-0 flex-col gap-3 ${wide ? "lg:col-span-2" : ""}`}>
      <div className="flex items-baseline gap-3">
        <h2 className="flex-1">{title}</h2>
        {more}
      </div>
      {children}
    </section>
  );
}

/** Cards in two columns where there is room. */
export function Cards({ children }: { children: ReactNode }) {
  return <div className="grid gap-4 lg:grid-cols-2">{children}</div>;
}

export type StatTone = "plain" | "warn" | "bad";

/** A number with what it counts, and a link to what it counts. */
export function Stat({ name, value, note, tone = "plain" }: { name: string; value: ReactNode; note?: ReactNode; tone?: StatTone }) {
  const color = { plain: "", warn: "text-warn", bad: "text-bad" }[tone];
  return (
    <div className="border-border bg-surface flex min-w-0 flex-col rounded-lg border px-4 py-3">
      <dt className="text-muted truncate text-sm">{name}</dt>
      <dd className={`text-xl font-semibold ${color}`}>{value}</dd>
      {note === undefined ? null : <dd className="text-muted truncate text-sm">{note}</dd>}
    </div>
  );
}

/** Numbers in a row. */
export function Stats({ label, children }: { label: string; children: ReactNode }) {
  return (
    <dl aria-label={label} className="grid grid-cols-2 gap-3 sm:grid-cols-3 xl:grid-cols-6">
      {children}
    </dl>
  );
}

/** From this part of a limit on, its use is shown as a warning. */
const near = 0.8;

/** How much of a limit is used: a bar with its numbers in words. Without a limit there is no bar. */
export function Meter({ name, used, limit, show }: { name: string; used: number; limit: number; show: (value: number) => string }) {
  const part = limit > 0 ? used / limit : 0;
  const color = part >= 1 ? "bg-bad" : part >= near ? "bg-warn" : "bg-accent";
  return (
    <div className="flex flex-col gap-1">
      <div className="flex items-baseline gap-2">
        <span className="text-muted flex-1">{name}</span>
        <span>
          {show(used)} {limit > 0 ? <span className="text-muted">of {show(limit)}</span> : <span className="text-muted">default limit</span>}
        </span>
        {limit > 0 ? <span className={`w-12 text-right text-sm ${part >= 1 ? "text-bad" : part >= near ? "text-warn" : "text-muted"}`}>{Math.floor(part * 100)} %</span> : null}
      </div>
      {limit > 0 ? (
        <div className="bg-raised h-1.5 overflow-hidden rounded-full" role="meter" aria-label={name} aria-valuemin={0} aria-valuemax={limit} aria-valuenow={Math.min(used, limit)} aria-valuetext={`${show(used)} of ${show(limit)}`}>
          <div className={`h-full rounded-full ${color}`} style={{ width: `${Math.min(100, part * 100)}%` }} />
        </div>
      ) : null}
    </div>
  );
}

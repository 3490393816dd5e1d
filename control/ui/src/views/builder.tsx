import { Plus, X } from "lucide-react";
import { useState } from "react";
import { comparisons, isAlone, isComplete, parse, print, type Comparison, type Condition, type Field } from "./conditions";

/** Builds a filter from conditions on a view's columns. Any other filter is edited as text. */
export function Builder({ fields, filter, onChange }: { fields: readonly (Field & { indexed: boolean })[]; filter: string; onChange: (filter: string) => void }) {
  const [edited, setEdited] = useState<readonly Condition[]>([]);
  // What is edited here may not be complete yet; a filter that was typed replaces it.
  const conditions = print(edited, fields) === filter ? edited : parse(filter, fields);
  const first = fields.find((one) => one.indexed) ?? fields[0];
  if (!first) return null;
  if (conditions === undefined) return <p className="text-muted text-sm">The filter is more than conditions that are joined by AND: it is edited as text.</p>;
  const change = (next: readonly Condition[]) => {
    setEdited(next);
    onChange(print(next, fields));
  };
  const put = (n: number, patch: Partial<Condition>) => change(conditions.map((one, m) => (m === n ? { ...one, ...patch } : one)));
  return (
    <div className="flex flex-wrap items-center gap-2" role="group" aria-label="Conditions">
      {conditions.map((one, n) => (
        <Row key={n} n={n + 1} one={one} fields={fields} onChange={(patch) => put(n, patch)} onRemove={() => change(conditions.filter((_, m) => m !== n))} />
      ))}
      <button type="button" className="button button-quiet h-8 px-2" onClick={() => change([...conditions, { column: first.name, comparison: comparisons(first.type)[0]?.[0] ?? "=", value: "" }])}>
        <Plus className="size-4" aria-hidden /> Condition
      </button>
    </div>
  );
}

function Row({ n, one, fields, onChange, onRemove }: { n: number; one: Condition; fields: readonly (Field & { indexed: boolean })[]; onChange: (patch: Partial<Condition>) => void; onRemove: () => void }) {
  const type = fields.find((field) => field.name === one.column)?.type ?? "";
  const offered = comparisons(type);
  const inner = "h-full border-0 bg-transparent px-2 text-text focus-visible:outline-offset-[-2px]";
  return (
    <span className="border-control bg-surface inline-flex h-8 items-center overflow-hidden rounded-md border">
      <select
        className={`${inner} font-mono text-xs`}
        aria-label={`Column of condition ${n}`}
        value={one.column}
        onChange={({ target }) => {
          const next = comparisons(fields.find((field) => field.name === target.value)?.type ?? "");
          onChange({ column: target.value, value: "", comparison: next.some(([name]) => name === one.comparison) ? one.comparison : (next[0]?.[0] ?? "=") });
        }}
      >
        {fields.map((field) => (
          <option key={field.name} value={field.name}>
            {field.name}
            {field.indexed ? " (indexed)" : ""}
          </option>
        ))}
      </select>
      <select className={`${inner} border-border text-muted border-l`} aria-label={`Comparison of condition ${n}`} value={one.comparison} onChange={({ target }) => onChange({ comparison: target.value as Comparison })}>
        {offered.map(([name, words]) => (
          <option key={name} value={name}>
            {words}
          </option>
        ))}
      </select>
      {isAlone(one.comparison) ? null : type === "bool" ? (
        <select className={`${inner} border-border border-l`} aria-label={`Value of condition ${n}`} value={one.value} onChange={({ target }) => onChange({ value: target.value })}>
          <option value="">choose</option>
          <option>true</option>
          <option>false</option>
        </select>
      ) : (
        <input
          className={`${inner} border-border w-36 border-l`}
          aria-label={`Value of condition ${n}`}
          aria-invalid={!isComplete(one, type)}
          value={one.value}
          placeholder={type === "timestamp" ? "2026-01-31T12:00:00Z" : type === "string" || type === "json" ? "text" : "number"}
          {...(type === "int" || type === "double" ? { inputMode: "decimal" as const } : {})}
          onChange={({ target }) => onChange({ value: target.value })}
        />
      )}
      <button type="button" className="icon-button border-border h-full w-7 rounded-none border-l" aria-label={`Remove condition ${n}`} onClick={onRemove}>
        <X className="size-3" aria-hidden />
      </button>
    </span>
  );
}

import { useEffect, useRef, type ReactNode } from "react";
import { Empty } from "./state";

export interface Column<T> {
  name: string;
  /** Numbers stand to the right. */
  number?: boolean;
  cell: (row: T) => ReactNode;
}

/** Rows in a table that scrolls by itself on a narrow screen. */
export function Table<T>(props: { label: string; columns: Column<T>[]; rows: T[]; id: (row: T) => string; empty: ReactNode; selected?: string; onSelect?: (row: T) => void }) {
  const { columns, rows } = props;
  if (rows.length === 0) return <Empty>{props.empty}</Empty>;
  return (
    // A region that scrolls can be reached by the keyboard (WCAG 2.1.1).
    <div className="overflow-x-auto" tabIndex={0} role="region" aria-label={props.label}>
      <table>
        <thead>
          <tr>
            {columns.map((column) => (
              <th key={column.name} scope="col" className={column.number ? "text-right" : ""}>
                {column.name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => {
            const id = props.id(row);
            return (
              <tr key={id} className={props.selected === id ? "bg-panel" : ""}>
                {columns.map((column, n) => (
                  <td key={column.name} className={column.number ? "text-right" : ""}>
                    {n === 0 && props.onSelect ? (
                      <button type="button" className="text-accent cursor-pointer underline-offset-2 hover:underline" aria-pressed={props.selected === id} onClick={() => props.onSelect?.(row)}>
                        {column.cell(row)}
                      </button>
                    ) : (
                      column.cell(row)
                    )}
                  </td>
                ))}
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

/** A box to narrow a list with; "/" goes there. */
export function FilterBox({ value, onChange, label = "Filter" }: { value: string; onChange: (value: string) => void; label?: string }) {
  const box = useRef<HTMLInputElement>(null);
  useEffect(() => {
    const go = (event: KeyboardEvent) => {
      const at = event.target;
      if (event.key !== "/" || (at instanceof HTMLElement && /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName))) return;
      event.preventDefault();
      box.current?.focus();
    };
    document.addEventListener("keydown", go);
    return () => document.removeEventListener("keydown", go);
  }, []);
  return (
    <label className="flex items-center gap-2">
      <span className="text-muted">{label}</span>
      <input ref={box} type="search" className="field" value={value} placeholder="press /" onChange={(event) => onChange(event.target.value)} />
    </label>
  );
}

/** Whether any of the words holds the text. */
export function matches(text: string, ...words: (string | undefined)[]): boolean {
  const wanted = text.toLowerCase();
  return words.some((word) => word?.toLowerCase().includes(wanted));
}

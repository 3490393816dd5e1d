import { columnResizingFeature, columnSizingFeature, columnVisibilityFeature, createSortedRowModel, rowSortingFeature, tableFeatures, useTable, type ColumnDef, type RowData } from "@tanstack/react-table";
import { useVirtualizer } from "@tanstack/react-virtual";
import { ArrowDown, ArrowUp } from "lucide-react";
import { memo, Suspense, useEffect, useMemo, useRef, type KeyboardEvent, type ReactNode } from "react";
import { csv, download, json } from "./export";
import { later } from "./later";
import { Empty } from "./state";

const Menus = later(() => import("./table-menus"));

type Value = string | number | bigint | boolean | undefined;

export interface Column<T> {
  name: string;
  /** Sorts, is exported, and is the full text of a cell that is cut off. */
  value: (row: T) => Value;
  /** Shows the value; without it, the value is shown as text. */
  cell?: (row: T) => ReactNode;
  /** Pixels; the rest of the table's width is distributed in proportion. */
  width?: number;
  /** Numbers stand to the right. */
  number?: boolean;
  /** Not shown until the operator chooses it. */
  hidden?: boolean;
}

interface Props<T> {
  label: string;
  columns: Column<T>[];
  rows: T[];
  id: (row: T) => string;
  empty: ReactNode;
  /** The chosen row, whose detail is shown, and what chooses one. */
  selected?: string;
  onSelect?: (row: T) => void;
  /** The marked rows, for actions on several. */
  marked?: ReadonlySet<string>;
  onMark?: (marked: ReadonlySet<string>) => void;
  /** How often a cell has changed: one that changes is highlighted for a moment. */
  changes?: (row: T, column: string) => number;
  /** Stands left of the table's own menus. */
  tools?: ReactNode;
}

const features = tableFeatures({
  rowSortingFeature,
  sortedRowModel: createSortedRowModel(),
  columnVisibilityFeature,
  columnSizingFeature,
  columnResizingFeature,
});

/** Above this number only the rows in sight are in the document. */
const virtualFrom = 100;
const rowHeight = 36;

// Made once: a text's own comparison makes one each time.
const texts = new Intl.Collator("en", { numeric: true });

function compare(a: Value, b: Value): number {
  if (a === b) return 0;
  if (a === undefined || a === "") return 1;
  if (b === undefined || b === "") return -1;
  if (typeof a === "string" && typeof b === "string") return texts.compare(a, b);
  return a < b ? -1 : 1;
}

interface RowProps<T> {
  id: string;
  of: T;
  columns: Column<T>[];
  chosen: boolean;
  marked: Props<T>["marked"] | undefined;
  onMark: Props<T>["onMark"] | undefined;
  onSelect: Props<T>["onSelect"] | undefined;
  changes: Props<T>["changes"] | undefined;
}

function RowOf<T>({ id, of, columns, chosen, marked, onMark, onSelect, changes }: RowProps<T>) {
  return (
    <tr className={chosen ? "bg-accent-soft" : "hover:bg-raised"} style={{ height: rowHeight }} {...(chosen ? { "data-chosen": "" } : {})}>
      {onMark && marked ? (
        <td className="border-border border-b px-3">
          <input
            type="checkbox"
            className="accent-accent size-4 align-middle"
            aria-label={`Mark ${id}`}
            checked={marked.has(id)}
            onChange={(event) => {
              const next = new Set(marked);
              if (event.target.checked) next.add(id);
              else next.delete(id);
              onMark(next);
            }}
          />
        </td>
      ) : null}
      {columns.map((column, n) => {
        const value = column.value(of);
        const full = value === undefined ? "" : String(value);
        const content = column.cell ? column.cell(of) : full;
        const changed = changes?.(of, column.name) ?? 0;
        return (
          // Another key, so that the animation starts again.
          <td key={`${column.name} ${changed}`} className={`border-border truncate border-b px-3 ${column.number ? "text-right" : ""} ${changed > 0 ? "flash" : ""}`} title={full || undefined}>
            {n === 0 && onSelect ? (
              <button type="button" data-open="" className="text-accent max-w-full cursor-pointer truncate underline-offset-2 hover:underline" aria-pressed={chosen} onClick={() => onSelect(of)}>
                {content}
              </button>
            ) : (
              content
            )}
          </td>
        );
      })}
    </tr>
  );
}

/** A row, which is not rendered again while the list scrolls. */
const Row = memo(RowOf) as typeof RowOf;

/** Marks the frame of a scroller while columns are out of sight at its right, also as it scrolls and changes its size. */
function markEdge(scroller: HTMLDivElement | null): (() => void) | undefined {
  if (!scroller || typeof ResizeObserver === "undefined") return undefined;
  const mark = () => scroller.parentElement?.toggleAttribute("data-more", scroller.scrollLeft + scroller.clientWidth < scroller.scrollWidth - 1);
  const observer = new ResizeObserver(mark);
  observer.observe(scroller);
  for (const child of scroller.children) observer.observe(child);
  scroller.addEventListener("scroll", mark, { passive: true });
  mark();
  return () => {
    observer.disconnect();
    scroller.removeEventListener("scroll", mark);
  };
}

/**
 * Rows that can be sorted, resized, hidden by column, chosen, marked and exported. Long texts are cut
 * off, and shown whole in a tooltip and in the row's detail. It scrolls by itself, under its head.
 */
export function Table<T extends RowData>({ label, columns, rows, id, empty, selected, onSelect, marked, onMark, changes, tools }: Props<T>) {
  const scroller = useRef<HTMLDivElement>(null);
  const names = columns.map((column) => column.name).join("\n");
  const latest = useRef(columns);
  // The definitions change with the names alone: cells read the latest columns.
  const definitions = useMemo(
    () => {
      latest.current = columns;
      return columns.map(
        (column, n): ColumnDef<typeof features, T> => ({
          id: column.name,
          accessorFn: (row) => latest.current[n]?.value(row),
          sortFn: (a, b) => compare(latest.current[n]?.value(a.original), latest.current[n]?.value(b.original)),
          sortUndefined: "last",
          size: column.width ?? 140,
          minSize: 48,
        }),
      );
    },
    // eslint-disable-next-line react-hooks/exhaustive-deps
    [names],
  );
  const table = useTable({
    features,
    columns: definitions,
    data: rows,
    getRowId: id,
    columnResizeMode: "onChange",
    initialState: { columnVisibility: Object.fromEntries(columns.filter((column) => column.hidden).map((column) => [column.name, false])) },
  });
  useEffect(() => markEdge(scroller.current), [rows.length, names]);
  const sorted = table.getRowModel().rows;
  const shown = table.getVisibleLeafColumns();
  const byName = new Map(columns.map((column) => [column.name, column]));
  const isVirtual = sorted.length > virtualFrom;
  // No compiler memoizes this component, which is what the rule warns of.
  // eslint-disable-next-line react-hooks/incompatible-library
  const virtualizer = useVirtualizer({
    count: isVirtual ? sorted.length : 0,
    getScrollElement: () => scroller.current,
    estimateSize: () => rowHeight,
    getItemKey: (index) => sorted[index]?.id ?? index,
    overscan: 10,
  });
  const items = virtualizer.getVirtualItems();
  const inSight = isVirtual ? items.flatMap((item) => sorted[item.index] ?? []) : sorted;
  const before = isVirtual ? (items[0]?.start ?? 0) : 0;
  const after = isVirtual ? virtualizer.getTotalSize() - (items.at(-1)?.end ?? 0) : 0;
  const save = (kind: "csv" | "json") => {
    const all = sorted.map((row) => row.original);
    const file = `${label.toLowerCase().replaceAll(/\W+/g, "-")}.${kind}`;
    if (kind === "csv") download(file, "text/csv", csv(shown.flatMap((column) => byName.get(column.id) ?? []), all));
    else download(file, "application/json", json(columns, all));
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const at = event.target as HTMLElement;
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName)) return;
    if (event.key === "e") save("csv");
    if (event.key !== "j" && event.key !== "k") return;
    const buttons = [...(scroller.current?.querySelectorAll<HTMLElement>("[data-open]") ?? [])];
    const next = buttons[buttons.indexOf(at) + (event.key === "j" ? 1 : -1)];
    next?.focus();
    next?.scrollIntoView({ block: "nearest" });
  };
  const shownColumns = useMemo(() => shown.flatMap((one) => columns.find((column) => column.name === one.id) ?? []), [shown, columns]);
  const markAll = (on: boolean) => onMark?.(new Set(on ? sorted.map((row) => row.id) : []));
  const allMarked = marked !== undefined && sorted.length > 0 && sorted.every((row) => marked.has(row.id));
  const width = (onMark ? 36 : 0) + table.getTotalSize();
  return (
    <div className="wide border-border bg-surface relative flex min-w-0 flex-col rounded-lg border">
      {/* An empty table has nothing to choose columns of or to export. */}
      <div className={`border-border flex flex-wrap items-center gap-2 border-b px-3 py-1.5 ${rows.length === 0 && !tools ? "hidden" : ""}`}>
        {tools}
        <span className="text-muted ml-auto text-sm whitespace-nowrap">
          {sorted.length.toLocaleString("en")} {sorted.length === 1 ? "row" : "rows"}
        </span>
        <Suspense fallback={<span className="h-8 w-18" />}>
          <Menus
            label={label}
            rows={sorted.length}
            columns={table.getAllLeafColumns().map((column) => ({ name: column.id, shown: column.getIsVisible(), show: (on) => column.toggleVisibility(on) }))}
            save={save}
          />
        </Suspense>
      </div>
      {rows.length === 0 ? (
        typeof empty === "string" ? <Empty>{empty}</Empty> : empty
      ) : (
        // A region that scrolls can be reached by the keyboard (WCAG 2.1.1).
        <div ref={scroller} className="max-h-[calc(100dvh-13rem)] overflow-auto rounded-b-lg" tabIndex={0} role="region" aria-label={label} onKeyDown={onKeyDown}>
          <table className="w-full table-fixed border-separate border-spacing-0 text-left" style={{ minWidth: width }} aria-rowcount={isVirtual ? sorted.length + 1 : undefined}>
            <colgroup>
              {onMark ? <col style={{ width: 36 }} /> : null}
              {shown.map((column) => (
                <col key={column.id} style={{ width: column.getSize() }} />
              ))}
            </colgroup>
            <thead>
              <tr>
                {onMark ? (
                  <th scope="col" className="bg-surface border-border sticky top-0 z-10 border-b px-3">
                    <input type="checkbox" className="accent-accent size-4 align-middle" aria-label="Mark all rows" checked={allMarked} onChange={(event) => markAll(event.target.checked)} />
                  </th>
                ) : null}
                {table.getHeaderGroups().flatMap((group) =>
                  group.headers.map((header) => {
                    const column = byName.get(header.column.id);
                    const direction = header.column.getIsSorted();
                    return (
                      <th
                        key={header.id}
                        scope="col"
                        aria-sort={direction === "asc" ? "ascending" : direction === "desc" ? "descending" : "none"}
                        className="bg-surface border-border text-muted group sticky top-0 z-10 border-b font-normal"
                      >
                        <button type="button" className={`hover:text-text flex h-8 w-full cursor-pointer items-center gap-1 px-3 text-sm whitespace-nowrap ${column?.number ? "justify-end" : ""}`} onClick={header.column.getToggleSortingHandler()}>
                          <span className="truncate">{header.column.id}</span>
                          {direction === "asc" ? <ArrowUp className="size-3 shrink-0" aria-hidden /> : direction === "desc" ? <ArrowDown className="size-3 shrink-0" aria-hidden /> : null}
                        </button>
                        <span
                          aria-hidden="true"
                          className="hover:bg-accent bg-border absolute top-1.5 right-0 h-5 w-0.5 cursor-col-resize touch-none opacity-0 group-hover:opacity-100"
                          onMouseDown={header.getResizeHandler()}
                          onTouchStart={header.getResizeHandler()}
                          onDoubleClick={() => header.column.resetSize()}
                        />
                      </th>
                    );
                  }),
                )}
              </tr>
            </thead>
            <tbody className="[&>tr:last-child>td]:border-b-0">
              {before > 0 ? (
                <tr aria-hidden="true">
                  <td style={{ height: before }} />
                </tr>
              ) : null}
              {inSight.map((row) => (
                <Row key={row.id} id={row.id} of={row.original} columns={shownColumns} chosen={selected !== undefined && selected === row.id} marked={marked} onSelect={onSelect} onMark={onMark} changes={changes} />
              ))}
              {after > 0 ? (
                <tr aria-hidden="true">
                  <td style={{ height: after }} />
                </tr>
              ) : null}
            </tbody>
          </table>
        </div>
      )}
    </div>
  );
}

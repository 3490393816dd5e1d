import { Columns3, Download } from "lucide-react";
import { DropdownMenu } from "radix-ui";

interface Props {
  label: string;
  rows: number;
  columns: { name: string; shown: boolean; show: (on: boolean) => void }[];
  save: (kind: "csv" | "json") => void;
}

/** A table's menus: the columns to show, and the export: CSV of what is shown, JSON of all columns. */
export default function TableMenus({ label, rows, columns, save }: Props) {
  const shown = columns.filter((column) => column.shown).length;
  const count = `${rows.toLocaleString("en")} ${rows === 1 ? "row" : "rows"}`;
  return (
    <>
      <DropdownMenu.Root>
        <DropdownMenu.Trigger className="icon-button" aria-label={`Columns of ${label}`} title="Columns">
          <Columns3 className="size-4" aria-hidden />
        </DropdownMenu.Trigger>
        <DropdownMenu.Portal>
          <DropdownMenu.Content className="menu appear max-h-80 overflow-auto" align="end">
            {columns.map((column) => (
              <DropdownMenu.CheckboxItem key={column.name} className="menu-item" checked={column.shown} disabled={shown === 1 && column.shown} onSelect={(event) => event.preventDefault()} onCheckedChange={column.show}>
                <span className="inline-block w-4" aria-hidden>
                  {column.shown ? "✓" : ""}
                </span>
                {column.name}
              </DropdownMenu.CheckboxItem>
            ))}
          </DropdownMenu.Content>
        </DropdownMenu.Portal>
      </DropdownMenu.Root>
      <DropdownMenu.Root>
        <DropdownMenu.Trigger className="icon-button" aria-label={`Export ${label}`} title="Export">
          <Download className="size-4" aria-hidden />
        </DropdownMenu.Trigger>
        <DropdownMenu.Portal>
          <DropdownMenu.Content className="menu appear" align="end">
            <DropdownMenu.Item className="menu-item" onSelect={() => save("csv")}>
              {count} as CSV
            </DropdownMenu.Item>
            <DropdownMenu.Item className="menu-item" onSelect={() => save("json")}>
              {count} as JSON, with all columns
            </DropdownMenu.Item>
          </DropdownMenu.Content>
        </DropdownMenu.Portal>
      </DropdownMenu.Root>
    </>
  );
}

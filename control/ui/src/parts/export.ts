/** A column of an exported table: its name and each row's value. */
export interface Exported<T> {
  name: string;
  value: (row: T) => unknown;
}

/** RFC 4180, with a leading apostrophe where a spreadsheet would run the text as a formula. */
export function csv<T>(columns: Exported<T>[], rows: T[]): string {
  const field = (value: unknown) => {
    let text = value === undefined || value === null ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [columns.map((column) => field(column.name)), ...rows.map((row) => columns.map((column) => field(column.value(row))))].map((line) => line.join(",")).join("\r\n") + "\r\n";
}

export function json<T>(columns: Exported<T>[], rows: T[]): string {
  return JSON.stringify(
    rows.map((row) => Object.fromEntries(columns.map((column) => [column.name, column.value(row)]))),
    (_, value: unknown) => (typeof value === "bigint" ? String(value) : value),
    2,
  );
}

/** Has the browser save a text as a file. */
export function download(name: string, type: string, text: string): void {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  URL.revokeObjectURL(url);
}

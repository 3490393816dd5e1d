/**
 * The column of a view that names an aggregate, and the aggregate's type: TYPE_id of a type of the model, else
 * the first text, whose type is searched ("").
 */
export function aggregateColumn(columns: readonly { name: string; type: string }[], types: readonly string[]): { column: string; type: string } | undefined {
  for (const { name } of columns) {
    const type = types.find((one) => name === `${one}_id`);
    if (type !== undefined) return { column: name, type };
  }
  const first = columns.find((column) => column.type === "string");
  return first && types.length > 0 ? { column: first.name, type: "" } : undefined;
}

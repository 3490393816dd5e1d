/** Values over time as a small line; a missing one is a gap. Its last value stands beside it in words. */
export function Spark({ values, label, color = "var(--series-2)", width = 96 }: { values: readonly (number | undefined)[]; label: string; color?: string; width?: number }) {
  const height = 24;
  const top = Math.max(...values.map((value) => value ?? 0), 1e-9);
  const x = (n: number) => (values.length > 1 ? (n / (values.length - 1)) * (width - 2) + 1 : width / 2);
  const lines: string[][] = [[]];
  values.forEach((value, n) => {
    if (value === undefined) lines.push([]);
    else lines.at(-1)?.push(`${x(n).toFixed(1)},${(height - 2 - (value / top) * (height - 4)).toFixed(1)}`);
  });
  return (
    <svg viewBox={`0 0 ${width} ${height}`} width={width} height={height} className="shrink-0" role="img" aria-label={label}>
      {lines
        .filter((line) => line.length > 0)
        .map((line) =>
          line.length === 1 ? (
            <circle key={line[0]} cx={line[0]?.split(",")[0]} cy={line[0]?.split(",")[1]} r="1.2" fill={color} />
          ) : (
            <polyline key={line[0]} points={line.join(" ")} fill="none" stroke={color} strokeWidth="1.5" strokeLinejoin="round" />
          ),
        )}
    </svg>
  );
}

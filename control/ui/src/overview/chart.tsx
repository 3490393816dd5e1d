import { Suspense } from "react";
import { number, unknown } from "../app/format";
import { later } from "../parts/later";

/** A line of a chart; null is a gap. */
export interface Line {
  name: string;
  /** A token of the theme, such as --series-1. */
  color: string;
  values: readonly (number | null)[];
}

/** A change at a moment, in seconds. */
export interface Mark {
  at: number;
  text: string;
}

const Plot = later(() => import("./plot"));

/** A chart with its unit and the last measured values in words; the plot is loaded once the page is there. Charts in a row have their plots at one height, whether or not the values beside a title wrap. */
export function Chart({ title, unit, at, lines, marks = [], partial = [], window, empty = "Nothing was measured yet: nodes announce their counts every 15 seconds." }: { title: string; unit: string; at: readonly number[]; lines: readonly Line[]; marks?: readonly Mark[]; partial?: readonly boolean[]; window: number; empty?: string }) {
  const measured = lines.some((line) => line.values.some((value) => value !== null));
  return (
    <section aria-label={title} className="panel row-span-2 grid min-w-0 grid-cols-[minmax(0,1fr)] grid-rows-subgrid gap-y-2 pb-2">
      <div className="flex flex-wrap items-baseline content-start gap-x-4 gap-y-1">
        <h2>
          {title} <span className="text-muted text-sm font-normal">{unit}</span>
        </h2>
        <ul className="ml-auto flex flex-wrap gap-x-3 text-sm" aria-label={`Last values of ${title}`}>
          {lines.map((line) => (
            <li key={line.name} className="flex items-center gap-1.5">
              <span className="h-0.5 w-3 rounded" style={{ background: `var(${line.color})` }} aria-hidden />
              <span className="text-muted">{line.name}</span> {last(line.values)}
            </li>
          ))}
        </ul>
      </div>
      {measured ? (
        <Suspense fallback={<div className="h-33" />}>
          <Plot title={title} at={at} lines={lines} marks={marks} partial={partial} window={window} unit={unit} />
        </Suspense>
      ) : (
        <p className="text-muted grid h-33 place-items-center text-center">{empty}</p>
      )}
    </section>
  );
}

function last(values: readonly (number | null)[]): string {
  const value = values.findLast((one) => one !== null);
  return value === undefined || value === null ? unknown : number(value, value < 10 ? 2 : 0);
}

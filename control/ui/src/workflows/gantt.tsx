import type { GetWorkflowResponse } from "../gen/runner/admin/v1/admin_pb";
import { duration, ms } from "../app/format";
import { useSecondsSince } from "../app/pulse";
import { layOut, type Bar } from "./steps";

const looks: Record<Bar["kind"], { style: string; word: string }> = {
  done: { style: "bg-ok", word: "done" },
  refused: { style: "bg-bad", word: "refused" },
  skipped: { style: "bg-muted", word: "skipped" },
  failing: { style: "bg-bad", word: "failing" },
  waiting: { style: "hatched border border-warn", word: "waiting" },
  next: { style: "border border-dashed border-accent", word: "next attempt" },
};

/** The steps of an instance on one axis of time, one line each. */
export function Gantt({ instance }: { instance: GetWorkflowResponse }) {
  const now = useSecondsSince(0) * 1000; // the present, which moves
  const { bars, from, to } = layOut(instance, now);
  if (bars.length === 0) return <p className="text-muted">No step has ended yet.</p>;
  const percent = (at: number) => ((at - from) / (to - from)) * 100;
  return (
    <ol aria-label="Steps of the instance" className="flex flex-col gap-1.5">
      {bars.map((bar, n) => {
        const look = looks[bar.kind];
        const left = Math.min(percent(bar.from), 98.5);
        return (
          <li key={n} data-kind={bar.kind}>
            <div className="flex items-baseline gap-2">
              <span className="truncate">{bar.step}</span>
              <span className={`text-sm whitespace-nowrap ${bar.kind === "refused" || bar.kind === "failing" ? "text-bad" : "text-muted"}`}>{look.word}</span>
              <span className="text-muted ml-auto text-sm whitespace-nowrap">
                {bar.kind === "next" ? `in ${duration(bar.from - now)}` : bar.to - bar.from < 60_000 ? ms(bar.to - bar.from) : duration(bar.to - bar.from)}
              </span>
            </div>
            <div className="bg-raised relative h-2 rounded-full" aria-hidden>
              <div className={`absolute inset-y-0 rounded-full ${look.style}`} style={{ left: `${left}%`, width: `${Math.max(percent(bar.to) - left, 1.5)}%` }} />
            </div>
            {bar.text !== "" && bar.kind !== "next" && bar.kind !== "waiting" ? <p className="text-muted text-sm break-words">{bar.text}</p> : null}
          </li>
        );
      })}
    </ol>
  );
}

import { keepPreviousData } from "@tanstack/react-query";
import { X } from "lucide-react";
import { useEffect, useMemo, useRef, useState, type RefObject } from "react";
import { duration, moment } from "../app/format";
import { SeriesRange } from "../gen/control/v1/metrics_pb";
import { useUrl } from "../app/url";
import { useZone } from "../app/zone";
import { Choice } from "../parts/field";
import { parseSpan, writeMoment, type Span } from "./span";

const hour = 3_600;

/** The part of the series that the address names, which all charts of a page show. */
export function useSpan(): { span: Span | undefined; show: (span: Span) => void; reset: () => void } {
  const [get, set] = useUrl();
  const [from, to] = [get("from"), get("to")];
  return {
    span: useMemo(() => parseSpan(from, to), [from, to]),
    show: (next) => set({ from: writeMoment(next.from), to: writeMoment(next.to) }),
    reset: () => set({ from: "", to: "" }),
  };
}

/** The range of the series that the address names, and its words. A span that began more than an hour ago is of the last day. */
export function useRange(): { range: SeriesRange; words: string } {
  const [get] = useUrl();
  const [now] = useState(() => Date.now() / 1000);
  const { span } = useSpan();
  const isDay = get("range") === "day" || (span !== undefined && span.from < now - hour);
  return isDay ? { range: SeriesRange.DAY, words: "last 24 hours" } : { range: SeriesRange.HOUR, words: "last hour" };
}

/** The choice between the ranges that control has, and of a part of them. */
export function RangeChoice() {
  const [, set] = useUrl();
  const { range } = useRange();
  const { span, reset } = useSpan();
  const opener = useRef<HTMLButtonElement>(null);
  return (
    <div className="flex flex-wrap items-end gap-2">
      {span ? (
        <Chosen
          span={span}
          reset={() => {
            reset();
            opener.current?.focus({ preventScroll: true });
          }}
        />
      ) : null}
      <MomentsChoice opener={opener} />
      <Choice
        label="Time"
        value={range === SeriesRange.DAY ? "day" : ""}
        options={[
          ["", "last hour, by 15 s"],
          ["day", "last 24 hours, by 5 min"],
        ]}
        onChange={(next) => set({ range: next, from: "", to: "" })}
      />
    </div>
  );
}

/** A button that asks for two moments, which become a part of the address. */
export function MomentsChoice({ opener }: { opener: RefObject<HTMLButtonElement | null> }) {
  const [typing, setTyping] = useState(false);
  return (
    <>
      {typing ? (
        <Moments
          close={() => {
            setTyping(false);
            opener.current?.focus({ preventScroll: true });
          }}
        />
      ) : null}
      <button ref={opener} type="button" className="button" aria-expanded={typing} onClick={() => setTyping(!typing)}>
        From, to…
      </button>
    </>
  );
}

/** The chosen part, and the way back to the whole: the button, or Escape. */
function Chosen({ span, reset }: { span: Span; reset: () => void }) {
  useZone();
  useEffect(() => {
    const escape = (event: KeyboardEvent) => {
      const at = event.target;
      const isField = at instanceof HTMLElement && /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName);
      if (event.key === "Escape" && !event.defaultPrevented && !isField && !document.querySelector("[role='dialog'], [role='menu'], [role='alertdialog']")) reset();
    };
    document.addEventListener("keydown", escape);
    return () => document.removeEventListener("keydown", escape);
  });
  return (
    <button type="button" className="button border-accent bg-accent-soft" onClick={reset} title="Show the whole time again (Escape)">
      <span className="sr-only">Show the whole time again, not only </span>
      {words(span)}
      <X className="size-4" aria-hidden />
    </button>
  );
}

/** A span in words, with its dates where it is not of one day. */
export function words({ from, to }: Span): string {
  const [first, last] = [moment(new Date(from * 1000)).slice(0, 19), moment(new Date(to * 1000)).slice(0, 19)];
  const sameDay = first.slice(0, 10) === last.slice(0, 10);
  return `${sameDay ? first.slice(11) : first} – ${sameDay ? last.slice(11) : last}, ${duration((to - from) * 1000)}`;
}

/** Two moments to type, for what a pointer draws in a chart. */
function Moments({ close }: { close: () => void }) {
  const zone = useZone();
  const { span, show } = useSpan();
  const typed = (seconds: number) => moment(new Date(seconds * 1000)).slice(0, 19).replace(" ", "T");
  const [now] = useState(() => Math.floor(Date.now() / 1000));
  const [from, setFrom] = useState(() => typed(span?.from ?? now - hour / 4));
  const [to, setTo] = useState(() => typed(span?.to ?? now));
  const suffix = zone === "utc" ? "Z" : "";
  const chosen = parseSpan(from + suffix, to + suffix);
  const why = chosen ? "" : "enter a time that ends after it begins";
  return (
    <form
      aria-label="Part of the time"
      className="flex flex-wrap items-end gap-2"
      onSubmit={(event) => {
        event.preventDefault();
        if (!chosen) return;
        show(chosen);
        close();
      }}
    >
      <Moment label="From" value={from} onChange={setFrom} focus />
      <Moment label="To" value={to} onChange={setTo} />
      <button type="submit" className="button button-strong" disabled={!chosen} title={why || undefined} {...(why === "" ? {} : { "aria-description": why })}>
        Show
      </button>
    </form>
  );
}

function Moment({ label, value, onChange, focus = false }: { label: string; value: string; onChange: (value: string) => void; focus?: boolean }) {
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => {
    if (focus) input.current?.focus({ preventScroll: true });
  }, [focus]);
  return (
    <label className="flex flex-col gap-1">
      <span className="text-muted text-sm">{label}</span>
      <input ref={input} type="datetime-local" step={1} className="field" value={value} onChange={(event) => onChange(event.target.value)} />
    </label>
  );
}

/** How a series is loaded: again every five seconds, and the one before stays until the next is there. */
export const often = { refetchInterval: 5_000, placeholderData: keepPreviousData };

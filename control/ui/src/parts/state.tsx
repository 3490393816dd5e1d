import { Code, ConnectError } from "@connectrpc/connect";
import { CircleAlert, CircleCheck, CircleDashed, CircleX, Info, RotateCw, TriangleAlert } from "lucide-react";
import type { ReactNode } from "react";
import { duration } from "../app/format";
import { useSecondsSince } from "../app/pulse";
import { Copy } from "./copy";

const titles: Partial<Record<Code, string>> = {
  [Code.Aborted]: "Changed by another operator",
  [Code.AlreadyExists]: "It exists already",
  [Code.DeadlineExceeded]: "No answer in time",
  [Code.FailedPrecondition]: "Not possible now",
  [Code.InvalidArgument]: "The input is not valid",
  [Code.NotFound]: "Not found",
  [Code.PermissionDenied]: "Permission denied",
  [Code.ResourceExhausted]: "A limit is reached",
  [Code.Unauthenticated]: "Not signed in",
  [Code.Unavailable]: "Not available now",
};

/** What failed, in the server's words, with the request's id for a report, and a way to retry. */
export function Problem({ error, retry }: { error: unknown; retry?: (() => void) | undefined }) {
  const known = ConnectError.from(error);
  const request = known.metadata.get("x-request-id") ?? "";
  return (
    <div role="alert" className="border-bad bg-bad-soft flex items-start gap-3 rounded-lg border p-3">
      <CircleX className="text-bad mt-0.5 size-4 shrink-0" aria-hidden />
      <div className="min-w-0 flex-1">
        <p className="font-semibold">{titles[known.code] ?? Code[known.code]}</p>
        <p className="break-words whitespace-pre-wrap">{known.rawMessage}</p>
        {request === "" ? null : (
          <p className="mt-1 flex items-center gap-2">
            Request <code className="break-all">{request}</code> <Copy text={request} label="Copy the request id" />
          </p>
        )}
      </div>
      {retry && (
        <button type="button" className="button" onClick={retry}>
          <RotateCw className="size-4" aria-hidden /> Retry
        </button>
      )}
    </div>
  );
}

interface Answer<T> {
  data: T | undefined;
  error: unknown;
  dataUpdatedAt?: number;
  refetch?: () => unknown;
}

/** An answer that may be on its way, missing or old; children show it. Data under an error are greyed, with their age. */
export function Answered<T>({ of, children, skeleton }: { of: Answer<T>; children: (data: T) => ReactNode; skeleton?: ReactNode }) {
  const { refetch } = of;
  if (of.data !== undefined && of.error)
    return (
      <>
        <Problem error={of.error} retry={refetch && (() => void refetch())} />
        {of.dataUpdatedAt ? <LastUpdate at={of.dataUpdatedAt} /> : null}
        <div className="stale flex flex-col gap-4">{children(of.data)}</div>
      </>
    );
  if (of.data !== undefined) return children(of.data);
  if (of.error) return <Problem error={of.error} retry={refetch && (() => void refetch())} />;
  return skeleton ?? <Skeleton />;
}

/** How old the shown data are, by the browser's clock. */
export function LastUpdate({ at }: { at: number }) {
  const seconds = useSecondsSince(at);
  return (
    <p className="text-muted flex items-center gap-2">
      <CircleDashed className="size-4" aria-hidden /> Last update {duration(seconds * 1000)} ago
    </p>
  );
}

/** Lines in the place of what is being loaded. */
export function Skeleton({ lines = 5 }: { lines?: number }) {
  return (
    <div role="status" className="flex flex-col gap-3 py-2">
      <span className="sr-only">Loading</span>
      {Array.from({ length: lines }, (_, n) => (
        <div key={n} className="skeleton" style={{ width: `${92 - ((n * 17) % 40)}%` }} />
      ))}
    </div>
  );
}

/** What would appear here, why nothing does, and what to do about it. */
export function Empty({ title, children }: { title?: string; children?: ReactNode }) {
  return (
    <div className="text-muted flex flex-col items-center gap-1 px-4 py-8 text-center">
      {title ? <p className="text-text">{title}</p> : null}
      {children ? <div className="max-w-prose">{children}</div> : null}
    </div>
  );
}

export type Tone = "ok" | "warn" | "bad" | "info" | "muted";

const looks = {
  ok: ["text-ok bg-ok-soft", CircleCheck],
  warn: ["text-warn bg-warn-soft", TriangleAlert],
  bad: ["text-bad bg-bad-soft", CircleX],
  info: ["text-info bg-info-soft", Info],
  muted: ["text-muted bg-raised", CircleDashed],
} as const;

/** A state in a word, with an icon: colour is never the only sign. */
export function Badge({ tone, children }: { tone: Tone; children: ReactNode }) {
  const [look, Icon] = looks[tone];
  return (
    <span className={`${look} inline-flex items-center gap-1 rounded-full px-2 py-0.5 text-xs whitespace-nowrap`}>
      <Icon className="size-3 shrink-0" aria-hidden />
      <span>{children}</span>
    </span>
  );
}

/** A sentence that needs attention. */
export function Notice({ tone, children }: { tone: "warn" | "bad" | "info"; children: ReactNode }) {
  const look = { warn: "border-warn bg-warn-soft", bad: "border-bad bg-bad-soft", info: "border-info bg-info-soft" }[tone];
  const color = { warn: "text-warn", bad: "text-bad", info: "text-info" }[tone];
  return (
    <div role="status" className={`${look} flex items-start gap-2 rounded-lg border px-3 py-2`}>
      <CircleAlert className={`${color} mt-0.5 size-4 shrink-0`} aria-hidden />
      <div className="min-w-0 break-words">{children}</div>
    </div>
  );
}

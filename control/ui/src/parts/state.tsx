import { Code, ConnectError } from "@connectrpc/connect";
import type { ReactNode } from "react";

/** What went wrong, with what to do about it in the server's own words. */
export function Problem({ error, retry }: { error: unknown; retry?: (() => void) | undefined }) {
  const known = ConnectError.from(error);
  return (
    <div role="alert" className="panel border-bad">
      <p className="text-bad font-semibold">{Code[known.code]}</p>
      <p className="whitespace-pre-wrap">{known.rawMessage}</p>
      {retry && (
        <button type="button" className="button mt-2" onClick={retry}>
          Try again
        </button>
      )}
    </div>
  );
}

interface Answer<T> {
  data: T | undefined;
  error: unknown;
  refetch?: () => unknown;
}

/** An answer that may be on its way or missing; children show it once it is there. */
export function Answered<T>({ of, children }: { of: Answer<T>; children: (data: T) => ReactNode }) {
  const { refetch } = of;
  if (of.data !== undefined)
    return (
      <>
        {of.error ? <Problem error={of.error} retry={refetch && (() => void refetch())} /> : null}
        {children(of.data)}
      </>
    );
  if (of.error) return <Problem error={of.error} retry={refetch && (() => void refetch())} />;
  return (
    <p role="status" className="text-muted">
      Loading…
    </p>
  );
}

export function Empty({ children }: { children: ReactNode }) {
  return <p className="text-muted py-4 text-center">{children}</p>;
}

export function Badge({ tone, children }: { tone: "ok" | "warn" | "bad" | "muted"; children: ReactNode }) {
  const color = { ok: "text-ok", warn: "text-warn", bad: "text-bad", muted: "text-muted" }[tone];
  return <span className={`${color} rounded border border-current px-1.5 text-xs whitespace-nowrap`}>{children}</span>;
}

import { useEffect, useState } from "react";
import { Copy } from "../parts/copy";

const key = "headgate.reloaded";
const between = 60_000; // ms from one reload to the next

/**
 * Reloads the page if a part of it is missing: after an upgrade the new page names the new parts.
 * It reloads at most once per minute and tab; a part that is still missing after that is reported.
 */
export function Crashed({ error, missing = false, reset }: { error: unknown; missing?: boolean; reset?: () => void }) {
  const [reloads] = useState(() => missing && Date.now() - Number(sessionStorage.getItem(key)) > between);
  useEffect(() => {
    if (!reloads) return;
    sessionStorage.setItem(key, String(Date.now()));
    location.reload();
  }, [reloads]);
  if (reloads) return null;
  const text = error instanceof Error ? `${error.name}: ${error.message}\n${error.stack ?? ""}` : String(error);
  return (
    <main role="alert" className="m-6 flex max-w-prose flex-col gap-3">
      <h1>{missing ? "A part of the console could not be loaded" : "This page has crashed"}</h1>
      <p>{missing ? "The gateway may have been upgraded, or it is not reachable. Reload the page." : "Nothing on the platform is affected. Reload the page; if it crashes again, report the text below."}</p>
      <pre className="bg-raised max-h-60 overflow-auto rounded-md p-3 whitespace-pre-wrap">{text.split("\n").slice(0, 8).join("\n")}</pre>
      <div className="flex flex-wrap gap-2">
        <button type="button" className="button button-strong" onClick={() => location.reload()}>
          Reload
        </button>
        {reset ? (
          <button type="button" className="button" onClick={reset}>
            Try again
          </button>
        ) : null}
        <Copy text={`${location.href}\n${text}`}>Copy the report</Copy>
      </div>
    </main>
  );
}

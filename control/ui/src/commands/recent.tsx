import { Link } from "@tanstack/react-router";
import { BookmarkPlus, X } from "lucide-react";
import { useState } from "react";
import { Badge } from "../parts/state";
import { Time } from "../parts/time";
import { mostTemplates, parseStored, withEntry, type Entry, type Stored } from "./stored";

/** What a principal has stored in this browser, and how it changes. */
export function useStored(subject: string): { stored: Stored; add: (entry: Entry) => void; put: (stored: Stored) => void } {
  const key = `headgate.commands.${subject}`;
  const [stored, setStored] = useState(() => parseStored(localStorage.getItem(key)));
  const put = (next: Stored) => {
    setStored(next);
    localStorage.setItem(key, JSON.stringify(next));
  };
  // Another tab may have stored something since.
  return { stored, put, add: (entry) => put(withEntry(parseStored(localStorage.getItem(key)), entry)) };
}

/** Templates and the latest commands of a principal: each fills the form. */
export function Recent({ stored, put, onFill }: { stored: Stored; put: (stored: Stored) => void; onFill: (entry: Entry) => void }) {
  if (stored.history.length + stored.templates.length === 0) return null;
  return (
    <div className={`grid items-start gap-4 ${stored.history.length > 0 && stored.templates.length > 0 ? "xl:grid-cols-2" : ""}`}>
      {stored.templates.length === 0 ? null : (
        <section className="panel flex flex-col gap-1" aria-label="Templates">
          <h2>Templates</h2>
          <ul className="flex flex-col">
            {stored.templates.map((one) => (
              <Row key={one.name} one={one} onFill={onFill} onRemove={() => put({ ...stored, templates: stored.templates.filter((other) => other !== one) })} />
            ))}
          </ul>
        </section>
      )}
      {stored.history.length === 0 ? null : (
        <section className="panel flex flex-col gap-1" aria-label="History">
          <div className="flex items-center justify-between gap-2">
            <h2>History</h2>
            <button type="button" className="button button-quiet h-7 px-2" onClick={() => put({ ...stored, history: [] })}>
              Clear
            </button>
          </div>
          <ul className="flex max-h-72 flex-col overflow-auto" tabIndex={0} aria-label="Commands of the history">
            {stored.history.map((one) => (
              <Row key={one.at} one={one} onFill={onFill} />
            ))}
          </ul>
          <p className="text-muted text-sm">Stored in this browser, for you alone.</p>
        </section>
      )}
    </div>
  );
}

function Row({ one, onFill, onRemove }: { one: Entry; onFill: (entry: Entry) => void; onRemove?: () => void }) {
  const name = `${one.command} ${one.type}/${one.id}`;
  const texts = Object.entries(one.texts).map(([field, text]) => `${field} ${text}`).join(", ");
  return (
    <li className="border-border flex items-center gap-2 border-b py-1 last:border-b-0">
      <button type="button" className="hover:bg-raised min-w-0 flex-1 cursor-pointer truncate rounded px-1 py-0.5 text-left" title={`Fill the form: ${name}${texts === "" ? "" : `, ${texts}`}`} onClick={() => onFill(one)}>
        <span className="text-accent">{one.name === "" ? name : one.name}</span> <span className="text-muted text-sm">{one.name === "" ? texts : name}</span>
      </button>
      {one.name === "" ? (
        <>
          <Badge tone={one.outcome === "done" ? "ok" : "bad"}>{one.outcome}</Badge>
          <span className="text-muted text-sm whitespace-nowrap">
            <Time of={new Date(one.at)} />
          </span>
          {!one.correlation || !one.tenant ? null : (
            <Link to="/timeline" search={{ tenant: one.tenant, id: one.correlation }} aria-label={`Timeline of ${name}`}>
              Timeline
            </Link>
          )}
        </>
      ) : null}
      {onRemove ? (
        <button type="button" className="icon-button size-6" aria-label={`Remove the template ${one.name}`} onClick={onRemove}>
          <X className="size-3" aria-hidden />
        </button>
      ) : null}
    </li>
  );
}

/** Stores what the form has as a template. */
export function SaveTemplate({ templates, onSave }: { templates: number; onSave: (name: string) => void }) {
  const [typed, setTyped] = useState<string>();
  if (typed === undefined)
    return (
      <button type="button" className="button button-quiet ml-auto px-2" disabled={templates >= mostTemplates} title={templates >= mostTemplates ? `There are ${templates} templates: remove one first` : undefined} onClick={() => setTyped("")}>
        <BookmarkPlus className="size-4" aria-hidden /> Save as template
      </button>
    );
  const save = () => {
    if (typed.trim() === "") return;
    onSave(typed.trim());
    setTyped(undefined);
  };
  return (
    <span className="ml-auto flex items-center gap-2">
      <input
        ref={(input) => input?.focus()}
        className="field"
        aria-label="Name of the template"
        placeholder="Name of the template"
        maxLength={60}
        value={typed}
        onChange={(event) => setTyped(event.target.value)}
        onKeyDown={(event) => {
          // Enter would submit the command.
          if (event.key === "Enter") {
            event.preventDefault();
            save();
          }
          if (event.key === "Escape") setTyped(undefined);
        }}
      />
      <button type="button" className="button" disabled={typed.trim() === ""} onClick={save}>
        Save
      </button>
    </span>
  );
}

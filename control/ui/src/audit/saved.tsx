import { BookmarkPlus, X } from "lucide-react";
import { useState } from "react";
import { useWhoAmI } from "../app/session";
import { useUrl, type Search } from "../app/url";

interface Saved {
  name: string;
  search: Search;
}

const most = 20;

function load(key: string): Saved[] {
  try {
    const read: unknown = JSON.parse(localStorage.getItem(key) ?? "[]");
    return Array.isArray(read) ? read.filter((one): one is Saved => typeof (one as Saved | null)?.name === "string" && typeof (one as Saved).search === "object") : [];
  } catch {
    return [];
  }
}

/** Filters that this principal has stored in this browser: the named texts of the address. */
export function SavedFilters({ names }: { names: readonly string[] }) {
  const subject = useWhoAmI().data?.subject;
  return subject === undefined ? null : <Filters key={subject} storage={`headgate.audit.filters.${subject}`} names={names} />;
}

function Filters({ storage, names }: { storage: string; names: readonly string[] }) {
  const [get, set] = useUrl();
  const [saved, setSaved] = useState(() => load(storage));
  const [typed, setTyped] = useState<string>();
  const current: Search = Object.fromEntries(names.map((name) => [name, get(name)]));
  const isEmpty = names.every((name) => get(name) === "");
  const store = (next: Saved[]) => {
    setSaved(next);
    localStorage.setItem(storage, JSON.stringify(next));
  };
  const same = (one: Saved) => names.every((name) => (one.search[name] ?? "") === get(name));
  return (
    <div className="flex flex-wrap items-center gap-2" role="group" aria-label="Saved filters">
      {saved.map((one) => (
        <span key={one.name} className={`border-border inline-flex items-center rounded-full border pl-3 ${same(one) ? "border-accent bg-accent-soft" : ""}`}>
          <button type="button" className="max-w-60 cursor-pointer truncate py-0.5" aria-pressed={same(one)} onClick={() => set({ ...Object.fromEntries(names.map((name) => [name, ""])), ...one.search, open: "" })}>
            {one.name}
          </button>
          <button type="button" className="icon-button size-6" aria-label={`Remove the filter ${one.name}`} onClick={() => store(saved.filter((other) => other !== one))}>
            <X className="size-3" aria-hidden />
          </button>
        </span>
      ))}
      {typed === undefined ? (
        <button type="button" className="button button-quiet h-7 px-2" disabled={isEmpty || saved.some(same) || saved.length >= most} onClick={() => setTyped("")}>
          <BookmarkPlus className="size-4" aria-hidden /> Save these filters
        </button>
      ) : (
        <form
          className="flex items-center gap-2"
          onSubmit={(event) => {
            event.preventDefault();
            const name = typed.trim();
            store([...saved.filter((one) => one.name !== name), { name, search: current }]);
            setTyped(undefined);
          }}
        >
          <label className="sr-only" htmlFor="saved-filter">
            Name of the filter
          </label>
          {/* It appears because its button was pressed. */}
          <input id="saved-filter" ref={(input) => input?.focus()} className="field h-7" placeholder="Name of the filter" maxLength={60} value={typed} onChange={(event) => setTyped(event.target.value)} />
          <button type="submit" className="button h-7" disabled={typed.trim() === ""}>
            Save
          </button>
          <button type="button" className="button button-quiet h-7" onClick={() => setTyped(undefined)}>
            Cancel
          </button>
        </form>
      )}
    </div>
  );
}

import { Search } from "lucide-react";
import { useEffect, useRef, type ReactNode } from "react";
import { useTyped } from "../app/url";

export function Text(props: { label: string; value: string; onChange: (value: string) => void; onCommit?: () => void; placeholder?: string; list?: string[]; wide?: boolean; number?: boolean }) {
  const id = `list-${props.label.replaceAll(/\W/g, "-")}`;
  return (
    <label className="flex flex-col gap-1">
      <span className="text-muted text-sm">{props.label}</span>
      <input
        className={`field ${props.wide ? "w-[min(32rem,86vw)]" : ""}`}
        value={props.value}
        placeholder={props.placeholder}
        onChange={(event) => props.onChange(event.target.value)}
        onBlur={props.onCommit}
        onKeyDown={(event) => {
          if (event.key === "Enter") props.onCommit?.();
        }}
        {...(props.number ? { inputMode: "decimal" as const } : {})}
        {...(props.list ? { list: id } : {})}
      />
      {props.list && (
        <datalist id={id}>
          {props.list.map((item) => (
            <option key={item} value={item} />
          ))}
        </datalist>
      )}
    </label>
  );
}

/** A text of the address: the server is asked when the typing pauses, on Enter, or when the field is left. */
export function UrlText({ name, clears, ...props }: { name: string; clears?: readonly string[]; label: string; placeholder?: string; wide?: boolean }) {
  const { text, type, commit } = useTyped(name, clears);
  return <Text {...props} value={text} onChange={type} onCommit={commit} />;
}

export function Choice(props: { label: string; value: string; onChange: (value: string) => void; options: (string | [value: string, label: string])[]; children?: ReactNode }) {
  return (
    <label className="flex flex-col gap-1">
      <span className="text-muted text-sm">{props.label}</span>
      <select className="field" value={props.value} onChange={(event) => props.onChange(event.target.value)}>
        {props.options.map((option) => {
          const [value, label] = typeof option === "string" ? [option, option] : option;
          return (
            <option key={value} value={value}>
              {label}
            </option>
          );
        })}
      </select>
    </label>
  );
}

export function Check(props: { label: string; checked: boolean; onChange: (checked: boolean) => void }) {
  return (
    <label className="flex h-8 cursor-pointer items-center gap-2">
      <input type="checkbox" className="accent-accent size-4" checked={props.checked} onChange={(event) => props.onChange(event.target.checked)} /> {props.label}
    </label>
  );
}

/** Filters a list by a text of the address; "/" focuses it. */
export function FilterBox({ name = "q", label = "Filter", clears }: { name?: string; label?: string; clears?: readonly string[] }) {
  const box = useRef<HTMLInputElement>(null);
  const { text, type, commit } = useTyped(name, clears);
  useEffect(() => {
    const go = (event: KeyboardEvent) => {
      const at = event.target;
      if (event.key !== "/" || (at instanceof HTMLElement && /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName))) return;
      event.preventDefault();
      box.current?.focus();
    };
    document.addEventListener("keydown", go);
    return () => document.removeEventListener("keydown", go);
  }, []);
  return (
    <label className="relative">
      <span className="sr-only">{label}</span>
      <Search className="text-muted pointer-events-none absolute top-2 left-2 size-4" aria-hidden />
      <input
        ref={box}
        type="search"
        className="field w-40 pl-8 sm:w-56"
        value={text}
        placeholder={`${label}  /`}
        onChange={(event) => type(event.target.value)}
        onBlur={commit}
        onKeyDown={(event) => {
          if (event.key === "Enter") commit();
        }}
      />
    </label>
  );
}

/** Whether any of the words contains the text. */
export function matches(text: string, ...words: (string | undefined)[]): boolean {
  const wanted = text.toLowerCase();
  return words.some((word) => word?.toLowerCase().includes(wanted));
}

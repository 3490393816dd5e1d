import type { ReactNode } from "react";

export function Text(props: { label: string; value: string; onChange: (value: string) => void; placeholder?: string; list?: string[]; wide?: boolean }) {
  const id = `list-${props.label.replaceAll(/\W/g, "-")}`;
  return (
    <label className="flex flex-col gap-1">
      <span className="text-muted">{props.label}</span>
      <input
        className={`field ${props.wide ? "w-[min(32rem,88vw)]" : ""}`}
        value={props.value}
        placeholder={props.placeholder}
        onChange={(event) => props.onChange(event.target.value)}
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

export function Choice(props: { label: string; value: string; onChange: (value: string) => void; options: (string | [value: string, label: string])[]; children?: ReactNode }) {
  return (
    <label className="flex flex-col gap-1">
      <span className="text-muted">{props.label}</span>
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

import { X } from "lucide-react";
import { useEffect, useRef, type ReactNode } from "react";
import { useTenant } from "./tenant";

/** The layout of every screen: title, a summary in words, actions, the content, and the detail of what is chosen. */
export function Page({ title, summary, actions, children, detail, tenant: scoped = false }: { title: string; summary?: ReactNode; actions?: ReactNode; children: ReactNode; detail?: ReactNode; tenant?: boolean }) {
  const tenant = useTenant();
  useEffect(() => {
    document.title = [title, ...(scoped && tenant ? [tenant] : []), "Headgate"].join(" · ");
  }, [title, scoped, tenant]);
  return (
    <div className="flex items-start">
      <div className="mx-auto flex min-w-0 max-w-[1440px] flex-1 flex-col gap-4 p-4 md:p-6">
        <header className="flex flex-wrap items-end gap-x-4 gap-y-2">
          <div className="min-w-[min(16rem,100%)] flex-1">
            <h1 tabIndex={-1}>{title}</h1>
            {summary ? <div className="text-muted mt-0.5">{summary}</div> : null}
          </div>
          {actions}
        </header>
        {children}
      </div>
      {detail}
    </div>
  );
}

/**
 * The detail of what is chosen, beside the list or over it on a narrow screen. Its parent shows it
 * while the address names something; Escape and the button close it, and the focus returns to the list.
 */
export function Drawer({ title, label, badge, onClose, children, actions }: { title: ReactNode; label: string; badge?: ReactNode; onClose: () => void; children: ReactNode; actions?: ReactNode }) {
  const heading = useRef<HTMLHeadingElement>(null);
  const opener = useRef<Element | null>(null);
  const close = useRef(onClose);
  useEffect(() => {
    close.current = onClose;
  });
  useEffect(() => {
    // A user who opens it by the keyboard or a click continues in it; a page that is loaded with it begins at its top.
    const focused = document.activeElement;
    if (!focused || focused === document.body || focused.closest("aside")) return;
    opener.current = focused;
    heading.current?.focus({ preventScroll: true });
  }, [label]);
  useEffect(() => {
    const escape = (event: KeyboardEvent) => {
      if (event.key === "Escape" && !event.defaultPrevented && !document.querySelector("[role='dialog'], [role='menu'], [role='alertdialog']")) close.current();
    };
    document.addEventListener("keydown", escape);
    return () => {
      document.removeEventListener("keydown", escape);
      const back = opener.current;
      if (back instanceof HTMLElement && back.isConnected) back.focus({ preventScroll: true });
      else document.querySelector<HTMLElement>("main h1")?.focus({ preventScroll: true });
    };
  }, []);
  return (
    <aside
      aria-label={label}
      className="appear border-border bg-surface fixed inset-y-0 right-0 z-30 md:top-12 flex w-[min(520px,100vw)] shrink-0 flex-col border-l shadow-2xl min-[1500px]:sticky min-[1500px]:top-12 min-[1500px]:h-[calc(100dvh-3rem)] min-[1500px]:shadow-none"
    >
      <header className="border-border flex items-start gap-2 border-b p-4">
        <div className="min-w-0 flex-1">
          <h2 ref={heading} tabIndex={-1} className="break-all outline-none">
            {title}
          </h2>
          {badge}
        </div>
        <button type="button" className="icon-button" aria-label="Close the detail" onClick={onClose}>
          <X className="size-4" aria-hidden />
        </button>
      </header>
      <div className="flex min-h-0 flex-1 flex-col gap-5 overflow-y-auto p-4" tabIndex={0} role="region" aria-label={`${label}, content`}>
        {children}
      </div>
      {actions ? <footer className="border-border flex flex-wrap gap-2 border-t p-4">{actions}</footer> : null}
    </aside>
  );
}

/** Facts in two columns; those without a value are left out. */
export function Facts({ of }: { of: [name: string, value: ReactNode][] }) {
  return (
    <dl className="grid grid-cols-[max-content_minmax(0,1fr)] gap-x-4 gap-y-1.5">
      {of
        .filter(([, value]) => value !== "" && value !== undefined && value !== null)
        .map(([name, value]) => (
          <div key={name} className="contents">
            <dt className="text-muted">{name}</dt>
            <dd className="min-w-0 break-words">{value}</dd>
          </div>
        ))}
    </dl>
  );
}

/** A block of JSON or text that scrolls by itself, also by the keyboard. */
export function Code({ label, children }: { label: string; children: string }) {
  return (
    <pre className="bg-raised max-h-80 overflow-auto rounded-md p-3 break-all whitespace-pre-wrap" tabIndex={0} role="region" aria-label={label}>
      {children}
    </pre>
  );
}

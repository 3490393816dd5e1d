import { Check, Copy as CopyIcon } from "lucide-react";
import { useEffect, useRef, useState, type ReactNode } from "react";
import { copy } from "../app/clipboard";
import { toast } from "./toast";

/** Copies a text, and shows whether it did: with children a button with these words, else an icon. */
export function Copy({ text, children, label = "Copy", strong = false }: { text: string; children?: ReactNode; label?: string; strong?: boolean }) {
  const [done, setDone] = useState(false);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => () => clearTimeout(timer.current), []);
  const run = async () => {
    try {
      await copy(text);
      setDone(true);
      clearTimeout(timer.current);
      timer.current = setTimeout(() => setDone(false), 1500);
    } catch {
      toast("The browser refused to copy: select the text and copy it by hand.", "bad");
    }
  };
  const icon = done ? <Check className={`size-4 ${strong ? "" : "text-ok"}`} aria-hidden /> : <CopyIcon className="size-4" aria-hidden />;
  if (children === undefined)
    return (
      <button type="button" className="icon-button size-6" aria-label={done ? "Copied" : label} title={label} onClick={() => void run()}>
        {icon}
      </button>
    );
  return (
    <button type="button" className={`button ${strong ? "button-strong" : ""}`} onClick={() => void run()}>
      {icon} {done ? "Copied" : children}
    </button>
  );
}

/** An id, and a button that copies it. */
export function Id({ text, label = "id" }: { text: string; label?: string }) {
  return (
    <span className="flex items-center gap-1">
      <code className="break-all">{text}</code> <Copy text={text} label={`Copy the ${label}`} />
    </span>
  );
}

import { CircleCheck, CircleX, X } from "lucide-react";
import { Toast } from "radix-ui";
import { dismiss, useNotices } from "./toast";

/** The notices, where they cover neither the actions of a detail nor those of a phone; what failed stays longer. */
export default function Toasts() {
  const shown = useNotices();
  return (
    <Toast.Provider swipeDirection="right" duration={6_000} label="Notice">
      {shown.map((notice) => (
        <Toast.Root key={notice.id} duration={notice.tone === "ok" ? 6_000 : 60_000} className="menu appear flex items-center gap-3 px-3 py-2" onOpenChange={(open) => open || dismiss(notice.id)}>
          {notice.tone === "ok" ? <CircleCheck className="text-ok size-4 shrink-0" aria-hidden /> : <CircleX className="text-bad size-4 shrink-0" aria-hidden />}
          <Toast.Description className="min-w-0 break-words">{notice.text}</Toast.Description>
          <Toast.Close className="icon-button ml-auto" aria-label="Dismiss">
            <X className="size-4" aria-hidden />
          </Toast.Close>
        </Toast.Root>
      ))}
      <Toast.Viewport className="fixed top-16 right-4 z-50 flex w-96 max-w-[92vw] flex-col gap-2 outline-none md:top-auto md:right-auto md:bottom-4 md:left-60" />
    </Toast.Provider>
  );
}

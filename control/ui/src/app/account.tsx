import { useNavigate } from "@tanstack/react-router";
import { CircleUser } from "lucide-react";
import { DropdownMenu } from "radix-ui";
import { leave } from "./arrival";
import { useWhoAmI } from "./session";

/** Who is signed in, with what rights, and the way out. */
export default function Account() {
  const who = useWhoAmI().data;
  const navigate = useNavigate();
  return (
    <DropdownMenu.Root>
      <DropdownMenu.Trigger className="button button-quiet max-w-44 px-2" aria-label={`Account of ${who?.subject ?? "unknown"}`}>
        <CircleUser className="size-4 shrink-0" aria-hidden /> <span className="hidden truncate md:inline">{who?.subject}</span>
      </DropdownMenu.Trigger>
      <DropdownMenu.Portal>
        <DropdownMenu.Content className="menu appear max-w-80" align="end">
          <div className="px-2 py-1.5">
            <p className="font-semibold break-all">{who?.subject}</p>
            <p className="text-muted break-words">Tenants: {who?.tenants.map((one) => (one === "*" ? "all" : one)).join(", ")}</p>
            <p className="text-muted break-words">Rights: {who?.rights.join(", ")}</p>
          </div>
          <DropdownMenu.Item
            className="menu-item"
            onSelect={() => {
              // The next identity begins at its own first screen, without this one's tenant.
              void navigate({ to: "/", search: { tenant: undefined } });
              void leave();
            }}
          >
            Sign out
          </DropdownMenu.Item>
        </DropdownMenu.Content>
      </DropdownMenu.Portal>
    </DropdownMenu.Root>
  );
}

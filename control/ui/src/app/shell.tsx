import { Link, Outlet } from "@tanstack/react-router";
import { useState } from "react";
import { Answered } from "../parts/state";
import { setToken, useToken, useWhoAmI } from "./session";
import { toggleTheme } from "./theme";

export const screens = [
  ["/fleet", "Fleet"],
  ["/tenants", "Tenants"],
  ["/views", "Views"],
  ["/commands", "Commands"],
  ["/workflows", "Workflows"],
  ["/rebalance", "Rebalance"],
  ["/models", "Models"],
  ["/timeline", "Timeline"],
  ["/audit", "Audit"],
  ["/policy", "Routing & policy"],
  ["/api", "API"],
] as const;

export function Shell() {
  const token = useToken();
  if (token === "") return <SignIn />;
  return <Signed />;
}

function Signed() {
  const who = useWhoAmI();
  return (
    <div className="flex min-h-screen flex-col md:flex-row">
      <a href="#main" className="bg-bg absolute -top-10 left-2 p-2 focus:top-2">
        Skip to the content
      </a>
      <nav aria-label="Screens" className="border-line bg-panel flex shrink-0 items-center gap-1 overflow-x-auto md:items-stretch border-b p-2 md:min-h-screen md:w-44 md:flex-col md:overflow-visible md:border-r md:border-b-0">
        <p className="hidden px-2 py-1 text-base font-semibold md:block">Headgate</p>
        {screens.map(([to, name]) => (
          <Link key={to} to={to} className="rounded px-2 py-1 whitespace-nowrap" activeProps={{ className: "bg-bg font-semibold", "aria-current": "page" }}>
            {name}
          </Link>
        ))}
        <div className="flex gap-1 md:mt-auto md:flex-col">
          <p className="text-muted px-2 py-1 whitespace-nowrap md:break-all md:whitespace-normal">{who.data?.subject ?? ""}</p>
          <button type="button" className="button whitespace-nowrap" onClick={toggleTheme}>
            Dark or light
          </button>
          <button type="button" className="button whitespace-nowrap" onClick={() => setToken("")}>
            Sign out
          </button>
        </div>
      </nav>
      <main id="main" className="min-w-0 flex-1 p-4">
        <Answered of={who}>{() => <Outlet />}</Answered>
      </main>
    </div>
  );
}

function SignIn() {
  const [typed, setTyped] = useState("");
  return (
    <main className="mx-auto mt-24 w-[min(30rem,92vw)]">
      <h1>Headgate</h1>
      <p className="text-muted my-2">
        Sign in with a token. <code>headgate dev</code> prints one as <code>OPERATOR</code>; <code>headgate token</code> makes others. It is kept until the tab is closed.
      </p>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          setToken(typed);
        }}
      >
        <label className="block">
          Token
          <textarea className="field mt-1 h-32 w-full font-mono text-xs" value={typed} autoComplete="off" spellCheck={false} onChange={(event) => setTyped(event.target.value)} />
        </label>
        <button type="submit" className="button button-strong mt-2" disabled={typed.trim() === ""}>
          Sign in
        </button>
      </form>
    </main>
  );
}

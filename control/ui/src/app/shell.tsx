import { useQueryClient } from "@tanstack/react-query";
import { Link, Outlet, useNavigate } from "@tanstack/react-router";
import { CircleHelp, Clock, Lock, Menu, Moon, Search, Sun } from "lucide-react";
import { Suspense, useEffect, useRef, useState } from "react";
import { Answered, Notice } from "../parts/state";
import { useTenant, useTenants } from "../parts/tenant";
import { later, onDemand, part, whenIdle } from "../parts/later";
import { useCounts, type Counts } from "./counts";
import { duration } from "./format";
import { Logo } from "./logo";
import { groups, landing, locked, screens, type Screen } from "./navigation";
import { useSecondsSinceAnswer, useSilent } from "./pulse";
import { identified, useHeartbeat, useSession, useWhoAmI } from "./session";
import { SignIn, SigningIn } from "./signin";
import { toggleTheme, useTheme } from "./theme";
import { useUrl } from "./url";
import { setZone, useZone, zoneName } from "./zone";

const Account = later(() => import("./account"));
const Toasts = later(() => import("../parts/toasts"));
const loadPalette = async () => ({ default: (await import("./palette")).Palette });
const Palette = onDemand(loadPalette);
const loadDialogs = () => import("./dialogs");
const Sheet = onDemand(async () => ({ default: (await loadDialogs()).Sheet }));
const Shortcuts = onDemand(async () => ({ default: (await loadDialogs()).Shortcuts }));
const SignInAgain = onDemand(async () => ({ default: (await loadDialogs()).SignInAgain }));

export function Shell() {
  const { status, epoch } = useSession();
  if (status === "looking") return <SigningIn />;
  if (status === "out") return <SignIn />;
  // Another identity gets another page: nothing that the one before has loaded or typed stays.
  return <Signed key={epoch} />;
}

/** Leads from "/" to the first screen for the principal's rights. */
export function Landing() {
  const who = useWhoAmI().data;
  const navigate = useNavigate();
  useEffect(() => {
    if (who) void navigate({ to: landing(who), replace: true });
  }, [who, navigate]);
  return null;
}

function Signed() {
  const who = useHeartbeat();
  const { status } = useSession();
  const queries = useQueryClient();
  const [palette, setPalette] = useState(false);
  const [help, setHelp] = useState(false);
  const zone = useZone();
  const silent = useSilent();
  const { data } = who;
  useEffect(() => {
    if (data) identified(data);
  }, [data]);
  const before = useRef(status);
  useEffect(() => {
    // What is asked for under the first token is on its way: only another one asks again.
    if (status === "in" && before.current !== "in") void queries.invalidateQueries();
    before.current = status;
  }, [status, queries]);
  useEffect(() => {
    // What is typed right after Ctrl K would get lost while it loads.
    void whenIdle().then(() => part(loadPalette)).catch(() => undefined); // shown when the palette opens
    // A session may end while the gateway does not answer.
    void whenIdle().then(() => part(loadDialogs)).catch(() => undefined);
  }, []);
  useEffect(() => {
    const go = (event: KeyboardEvent) => {
      if (event.key.toLowerCase() === "k" && (event.metaKey || event.ctrlKey)) {
        event.preventDefault();
        setPalette((open) => !open);
      }
      const at = event.target;
      if (event.key === "?" && !(at instanceof HTMLElement && /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName))) setHelp(true);
    };
    document.addEventListener("keydown", go);
    return () => document.removeEventListener("keydown", go);
  }, []);
  return (
    <div className="flex min-h-dvh">
      <a href="#main" className="bg-surface absolute -top-10 left-2 z-50 p-2 focus:top-2">
        Skip to the content
      </a>
      <Navigation stale={silent || status === "expired"} />
      <div className="flex min-w-0 flex-1 flex-col">
        <header className="border-border bg-surface sticky top-0 z-20 flex h-12 items-center gap-2 border-b px-4">
          <TenantSwitch />
          <button type="button" className="button text-muted w-9 px-0 sm:w-64 sm:justify-start sm:px-3" aria-label="Search or jump to" onClick={() => setPalette(true)}>
            <Search className="size-4 shrink-0" aria-hidden />
            <span className="hidden flex-1 text-left sm:inline">Search or jump to…</span>
            <kbd className="text-xs hidden sm:inline">Ctrl K</kbd>
          </button>
          <span className="flex-1" />
          <Connection />
          <button type="button" className="button button-quiet hidden sm:inline-flex" title="Time zone of all times: switch between the browser's and UTC" onClick={() => setZone(zone === "utc" ? "local" : "utc")}>
            <Clock className="size-4" aria-hidden /> <span className="sr-only">Time zone: </span>
            {zoneName(zone)}
          </button>
          <Theme />
          <button type="button" className="icon-button hidden sm:inline-flex" aria-label="Keyboard shortcuts" title="Keyboard shortcuts (?)" onClick={() => setHelp(true)}>
            <CircleHelp className="size-4" aria-hidden />
          </button>
          <Suspense fallback={<span className="size-8" />}>
            <Account />
          </Suspense>
        </header>
        <main id="main" className="min-w-0 flex-1 pb-14 md:pb-0">
          {silent ? <Silence /> : null}
          <div className={silent || status === "expired" ? "stale" : ""}>
            <Answered of={{ data, error: data ? undefined : who.error, refetch: who.refetch }}>{() => <Outlet />}</Answered>
          </div>
        </main>
      </div>
      {status === "expired" ? (
        <Suspense>
          <SignInAgain />
        </Suspense>
      ) : null}
      {palette ? (
        <Suspense>
          <Palette onClose={() => setPalette(false)} onHelp={() => setHelp(true)} />
        </Suspense>
      ) : null}
      {help ? (
        <Suspense>
          <Shortcuts onClose={() => setHelp(false)} />
        </Suspense>
      ) : null}
      <Suspense>
        <Toasts />
      </Suspense>
    </div>
  );
}

function Silence() {
  const seconds = useSecondsSinceAnswer();
  return (
    <div className="px-4 pt-4 md:px-6">
      <Notice tone="warn">The platform has not answered for {duration(seconds * 1000)}{navigator.onLine ? "" : ", and this browser is offline"}. What is shown is from before that. The console keeps trying.</Notice>
    </div>
  );
}

function Connection() {
  const silent = useSilent();
  const seconds = useSecondsSinceAnswer();
  return (
    <span role="status" aria-label="Connection" className={`hidden items-center gap-1.5 text-sm whitespace-nowrap lg:flex ${silent ? "text-warn" : "text-muted"}`} title={`Last answer ${seconds} s ago`}>
      <span className={`size-2 rounded-full ${silent ? "border-warn border" : "bg-ok"}`} aria-hidden />
      {silent ? "No answer" : "Connected"}
    </span>
  );
}

function TenantSwitch() {
  const [get, set] = useUrl();
  const tenants = useTenants();
  const tenant = useTenant();
  const named = get("tenant");
  useEffect(() => {
    // The address names what is shown, so that a link shows the same to others.
    if (named === "" && tenant !== "") set({ tenant }, { replace: true });
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [named, tenant]);
  const options = tenant === "" || tenants.includes(tenant) ? tenants : [tenant, ...tenants];
  return (
    <label>
      <span className="sr-only">Tenant</span>
      <select className="field max-w-40 font-semibold" value={tenant} onChange={(event) => set({ tenant: event.target.value, page: "", instance: "", open: "" })}>
        {options.length === 0 ? <option value="">No tenant</option> : null}
        {options.map((one) => (
          <option key={one}>{one}</option>
        ))}
      </select>
    </label>
  );
}

function Theme() {
  const dark = useTheme() === "dark";
  return (
    <button type="button" className="icon-button" aria-label={dark ? "Light theme" : "Dark theme"} title={dark ? "Light theme" : "Dark theme"} onClick={toggleTheme}>
      {dark ? <Sun className="size-4" aria-hidden /> : <Moon className="size-4" aria-hidden />}
    </button>
  );
}

function Navigation({ stale }: { stale: boolean }) {
  const [sheet, setSheet] = useState(false);
  const more = useRef<HTMLButtonElement>(null);
  const counts = useCounts(useTenant());
  const bar = screens.filter((screen) => ["/overview", "/fleet", "/workflows", "/dead-letters"].includes(screen.to));
  return (
    <>
      <nav aria-label="Screens" className={`${stale ? "stale" : ""} border-border bg-surface sticky top-0 hidden h-dvh w-14 shrink-0 flex-col gap-4 overflow-y-auto border-r px-2 py-3 md:flex min-[1100px]:w-52`}>
        <Link to="/" className="text-text flex items-center gap-2 px-2 no-underline" aria-label="Headgate, first screen">
          <Logo /> <span className="hidden text-lg font-semibold min-[1100px]:inline">Headgate</span>
        </Link>
        {groups.map((group) => (
          <div key={group.name} className="flex flex-col gap-0.5">
            <p className="text-muted hidden px-2 text-xs min-[1100px]:block">{group.name}</p>
            {group.screens.map((screen) => (
              <Item key={screen.to} screen={screen} counts={counts} collapses />
            ))}
          </div>
        ))}
      </nav>
      <nav aria-label="Main screens" className={`${stale ? "stale" : ""} border-border bg-surface fixed inset-x-0 bottom-0 z-20 flex h-14 items-stretch justify-around border-t md:hidden`}>
        {bar.map((screen) => (
          <Item key={screen.to} screen={screen} counts={counts} stacked />
        ))}
        <button ref={more} type="button" className="text-muted flex flex-1 flex-col items-center justify-center gap-0.5 text-xs" aria-haspopup="dialog" aria-expanded={sheet} onClick={() => setSheet(true)}>
          <Menu className="size-5" aria-hidden /> More
        </button>
        {sheet ? (
          <Suspense>
            <Sheet onClose={() => setSheet(false)} back={() => more.current?.focus()}>
              {groups.map((group) => (
                <div key={group.name} className="mb-3">
                  <p className="text-muted px-2 text-xs">{group.name}</p>
                  <div className="grid grid-cols-2">
                    {group.screens.map((screen) => (
                      <Item key={screen.to} screen={screen} counts={counts} />
                    ))}
                  </div>
                </div>
              ))}
            </Sheet>
          </Suspense>
        ) : null}
      </nav>
    </>
  );
}

/** A link to a screen; with a lock and the reason where the principal's rights do not reach. */
function Item({ screen, counts, collapses = false, stacked = false }: { screen: Screen; counts: Counts; collapses?: boolean; stacked?: boolean }) {
  const who = useWhoAmI().data;
  const shown = screen.count ? counts[screen.count] : undefined;
  const why = locked(who, screen);
  const Icon = screen.icon;
  const layout = stacked ? "flex flex-1 flex-col items-center justify-center gap-0.5 text-xs" : "flex h-9 items-center gap-2.5 rounded-md px-2 md:h-8";
  const label = collapses ? "sr-only min-[1100px]:not-sr-only" : "";
  if (who && why !== "")
    return (
      <span className={`${layout} text-muted cursor-not-allowed`} title={`${screen.name}: ${why}`}>
        <Icon className="size-4 shrink-0" aria-hidden /> <span className={`${label} truncate`}>{screen.name}</span>
        <Lock className={`ml-auto size-3 ${collapses ? "hidden min-[1100px]:block" : stacked ? "hidden" : ""}`} aria-hidden />
        <span className="sr-only">(locked: {why})</span>
      </span>
    );
  return (
    <Link
      to={screen.to}
      className={`${layout} text-text hover:bg-raised no-underline relative`}
      title={shown ? `${screen.name}: ${shown.text} ${shown.of}` : screen.name}
      activeProps={{ className: stacked ? "text-accent" : "bg-accent-soft font-semibold", "aria-current": "page" }}
      activeOptions={{ includeSearch: false }}
    >
      <Icon className="size-4 shrink-0" aria-hidden /> <span className={`${label} truncate`}>{screen.name}</span>
      {shown ? (
        <span className={`bg-bad-soft text-bad rounded-full px-1.5 text-xs ${stacked || collapses ? "absolute top-0 right-0.5" : "ml-auto"} ${collapses ? "min-[1100px]:static min-[1100px]:ml-auto" : ""}`}>
          {shown.text} <span className="sr-only">{shown.of}</span>
        </span>
      ) : null}
    </Link>
  );
}

import { execFile, spawn, type ChildProcess } from "node:child_process";
import { createServer } from "node:net";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const root = join(import.meta.dirname, "../../..");

/**
 * Starts the whole platform twice, on ports that the system chooses, and gives each some history: one for
 * tests that run beside others, one for tests that stop it or change what all share. With
 * HEADGATE_E2E=cluster both are the local cluster of eleven processes.
 */
export default async function setup(): Promise<() => Promise<void>> {
  const dir = mkdtempSync(join(tmpdir(), "headgate-ui-"));
  const mode = process.env["HEADGATE_E2E"] ?? "";
  const started = mode === "cluster" ? [await cluster(dir)] : await platforms(dir, mode === "" ? ["SHARED", "ALONE"] : ["SHARED"]);
  return async () => {
    await Promise.all(
      started.map((child) => {
        const ended = new Promise((resolve) => child.once("exit", resolve));
        child.kill("SIGTERM");
        return ended;
      }),
    );
    rmSync(dir, { recursive: true });
  };
}

async function build(to: string, program: string): Promise<string> {
  await run("go", ["build", "-o", to, program], { cwd: root });
  return to;
}

async function platforms(dir: string, names: string[]): Promise<ChildProcess[]> {
  const given = process.env["HEADGATE_BINARY"] ?? "";
  const [binary, openid] = await Promise.all([given === "" ? build(join(dir, "headgate"), "./cmd/headgate") : given, build(join(dir, "provider"), "./internal/oidctest/serve").then((provider) => spawn(provider, { stdio: ["pipe", "pipe", "inherit"] }))]);
  const { issuer, control } = await new Promise<{ issuer: string; control: string }>((resolve) => {
    openid.stdout.once("data", (line: Buffer) => resolve(JSON.parse(line.toString()) as { issuer: string; control: string }));
  });
  process.env["PROVIDER"] = issuer;
  process.env["PROVIDER_CONTROL"] = control;
  const started = await Promise.all(names.map((name) => start(binary, join(dir, name), name, issuer)));
  // The addresses of the pages are registered once they are known.
  const pages = `${process.env["SHARED_URL"] ?? ""}/ui/`;
  await fetch(control, { method: "POST", body: JSON.stringify({ client: { ID: "console", RedirectURIs: [`${pages}signed-in/corp`], LogoutURIs: [pages] } }) });
  return [...started, openid];
}

/** Starts deploy/local/cluster.sh, whose processes may call webhooks on this machine. */
async function cluster(dir: string): Promise<ChildProcess> {
  const script = spawn("bash", [join(root, "deploy/local/cluster.sh"), join(dir, "cluster")], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, HEADGATE_PORTS: String(await freePorts()), HEADGATE_WEBHOOK: "127.0.0.1" },
  });
  const output = await printed(script, /^curl .*\/v1\/query\/.*\n/m);
  const values = {
    URL: /Control UI\s+(http:\S+)\/ui\//.exec(output)?.[1] ?? "",
    OPERATOR: /OPERATOR=(\S+)/.exec(output)?.[1] ?? "",
    APPLICATION: /ACME=(\S+)/.exec(output)?.[1] ?? "",
    ISSUER: join(dir, "cluster/bin/headgate"),
    DATA: join(dir, "cluster"),
  };
  for (const name of ["SHARED", "ALONE"]) for (const [key, value] of Object.entries(values)) process.env[`${name}_${key}`] = value;
  await Promise.all([history(values.URL, values.APPLICATION), noisy(values.URL, values)]);
  return script;
}

/** The first of the cluster's hundred ports, of which the system gives none to connections. */
async function freePorts(): Promise<number> {
  for (let base = 18_000; base < 30_000; base += 100) {
    const server = createServer();
    const free = await new Promise<boolean>((resolve) => server.once("error", () => resolve(false)).listen(base, "127.0.0.1", () => resolve(true)));
    if (!free) continue;
    await new Promise((resolve) => server.close(resolve));
    return base;
  }
  throw new Error("no free ports for the cluster");
}

async function start(binary: string, data: string, name: string, issuer: string): Promise<ChildProcess> {
  const any = "127.0.0.1:0";
  mkdirSync(data);
  const settings = join(data, "settings.yaml");
  writeFileSync(settings, name === "SHARED" ? JSON.stringify({ gateway: { auth: { issuers: [{ name: "corp", issuer, audience: "console", ui_client_id: "console" }] } } }) : "{}");
  const flags = ["listen", "grpc-listen", "admin-listen", "aggregate-listen", "projection-listen", "runner-listen", "control-listen"].flatMap((flag) => [`--${flag}`, any]);
  const platform = spawn(binary, ["dev", "--config", settings, "--data", data, "--webhook", "127.0.0.1", ...flags], { stdio: ["ignore", "pipe", "inherit"] });
  const output = await printed(platform, /^buf curl .*QueryService\/Query\n[^]*^buf curl .*QueryService\/Query$/m);
  const gateway = /Control UI\s+(http:\S+)\/ui\//.exec(output)?.[1] ?? "";
  const acme = /ACME=(\S+)/.exec(output)?.[1] ?? "";
  const values = {
    URL: gateway,
    OPERATOR: /OPERATOR=(\S+)/.exec(output)?.[1] ?? "",
    APPLICATION: acme,
    // What tests need to issue tokens, and to suspend the platform.
    ISSUER: binary,
    DATA: data,
    PID: String(platform.pid),
  };
  for (const [key, value] of Object.entries(values)) process.env[`${name}_${key}`] = value;
  await Promise.all([history(gateway, acme), ...(name === "SHARED" ? [noisy(gateway, values)] : [])]);
  return platform;
}

/** What a process has printed, once it matches. */
function printed(child: ChildProcess, all: RegExp): Promise<string> {
  return new Promise((resolve, reject) => {
    let output = "";
    child.stdout?.on("data", (chunk: Buffer) => {
      output += chunk.toString();
      if (all.test(output)) resolve(output);
    });
    child.once("exit", (code) => reject(new Error(`it ended with ${code}:\n${output}`)));
  });
}

/** Wallets, a transfer that succeeds, one that is undone, and a denied call. */
async function history(gateway: string, token: string): Promise<void> {
  const post = async (path: string, payload: object, correlation = "") => {
    const res = await fetch(gateway + path, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json", ...(correlation === "" ? {} : { "x-correlation-id": correlation }) },
      body: JSON.stringify({ payload }),
    });
    return res.status;
  };
  for (const name of ["ada", "bob", "cyd"]) {
    await post(`/v1/commands/wallet/${name}/open`, { owner: name });
    await post(`/v1/commands/wallet/${name}/deposit`, { amount: 1000 });
  }
  await post("/v1/commands/transfer/good/request", { from: "ada", to: "bob", amount: 250 }, "the-transfer");
  await post("/v1/commands/transfer/bad/request", { from: "ada", to: "missing", amount: 10 }, "the-failure");
  await fetch(`${gateway}/admin/runner/drain`, { method: "POST", headers: { authorization: `Bearer ${token}`, "content-type": "application/json" }, body: "{}" });
}

/** A tenant that calls more than its limit allows. */
async function noisy(gateway: string, { OPERATOR, ISSUER, DATA }: { OPERATOR: string; ISSUER: string; DATA: string }): Promise<void> {
  const token = (await run(ISSUER, ["token", "--data", DATA, "--subject", "hooli-app", "--tenant", "hooli", "--right", "query.read"])).stdout.trim();
  const send = (path: string, bearer: string, body: object) => fetch(gateway + path, { method: "POST", headers: { authorization: `Bearer ${bearer}`, "content-type": "application/json" }, body: JSON.stringify(body) });
  await send("/v1/control/tenants", OPERATOR, { tenantId: "hooli" });
  const until = Date.now() + 15_000;
  const isServed = async () => {
    const { tenants } = (await (await fetch(`${gateway}/v1/control/tenants`, { headers: { authorization: `Bearer ${OPERATOR}` } })).json()) as { tenants: { tenantId: string; nodes?: string[] }[] };
    return tenants.some((tenant) => tenant.tenantId === "hooli" && tenant.nodes?.includes("projection-1"));
  };
  while (!(await isServed()) && Date.now() < until);
  await send("/v1/control/tenants/hooli/quota", OPERATOR, { quota: { rate: 1, burst: 1 } });
  const call = async () => (await send("/projection.gateway.v1.QueryService/ListViews", token, {})).status;
  // The limit is in force once the gateway has it.
  while ((await call()) !== 429 && Date.now() < until);
  await Promise.all(Array.from({ length: 40 }, call));
}

import { defineConfig } from "@playwright/test";

// The tests drive the pages as the real binary serves them (HEADGATE_BINARY, else it is
// built), in Debian's Chromium or the one that CHROMIUM names. HEADGATE_E2E selects what
// takes longer, or needs more: the operators' jobs against the local cluster ("cluster"),
// frame and load times ("speed"), the pictures of the docs and their layout ("pictures").
const mode = process.env["HEADGATE_E2E"] ?? "";
const gated = { speed: "speed.spec.ts", pictures: "pictures.spec.ts" } as Record<string, string>;

const projects = {
  // The tests of "alone" run one after the other, beside the others.
  "": [
    { name: "alone", testMatch: "alone.spec.ts", fullyParallel: false },
    { name: "shared", testIgnore: ["alone.spec.ts", ...Object.values(gated)] },
  ],
  // All tests use one platform: the next begins when the one before has ended.
  cluster: [
    { name: "shared", testMatch: "jobs.spec.ts", grep: /\bjob \d\d/ },
    { name: "alone", testMatch: "alone.spec.ts", grep: /\bjob \d\d/, dependencies: ["shared"] },
  ],
}[mode] ?? [{ name: "shared", testMatch: gated[mode] ?? "none" }];

export default defineConfig({
  testDir: "e2e",
  workers: mode === "" ? 3 : 1,
  fullyParallel: true,
  projects,
  timeout: 120_000,
  // A test that fails and passes the second time is listed as flaky, and must be mended. Measurements are not repeated.
  retries: mode === "" ? 1 : 0,
  // On a busy machine a page is slow; none of these times is what a test is about.
  expect: { timeout: 20_000 },
  reporter: [["list"]],
  globalSetup: "./e2e/platform.ts",
  use: {
    viewport: { width: 1280, height: 800 },
    // Nothing waits for an animation; what moves is tested by its class.
    contextOptions: { reducedMotion: "reduce" },
    launchOptions: {
      executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium",
      args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP console.example 127.0.0.1"],
    },
    // A step that cannot be done fails by its name, not as the end of the test.
    actionTimeout: 30_000,
    navigationTimeout: 40_000,
    permissions: ["clipboard-read", "clipboard-write"],
  },
});

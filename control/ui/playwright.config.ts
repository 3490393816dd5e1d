import { defineConfig } from "@playwright/test";

// The tests drive the pages as the real binary serves them (HEADGATE_BINARY, else it is
// built), in Debian's Chromium or the one that CHROMIUM names.
export default defineConfig({
  testDir: "e2e",
  // The tests of "alone" run one after the other, beside the others.
  workers: 2,
  fullyParallel: true,
  projects: [
    { name: "alone", testMatch: "alone.spec.ts", fullyParallel: false },
    { name: "shared", testIgnore: "alone.spec.ts" },
  ],
  timeout: 120_000,
  expect: { timeout: 10_000 },
  reporter: [["list"]],
  globalSetup: "./e2e/platform.ts",
  use: {
    viewport: { width: 1280, height: 800 },
    launchOptions: {
      executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium",
      args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP console.example 127.0.0.1"],
    },
    // A step that cannot be done fails by its name, not as the end of the test.
    actionTimeout: 15_000,
    navigationTimeout: 20_000,
    permissions: ["clipboard-read", "clipboard-write"],
  },
});

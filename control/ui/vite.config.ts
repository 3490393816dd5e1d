import { fileURLToPath } from "node:url";
import tailwindcss from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

// The build is committed and embedded in the binary, which serves it under /ui/. In
// development everything else goes to a gateway that runs beside it.
export default defineConfig({
  base: "/ui/",
  plugins: [react(), tailwindcss()],
  resolve: { alias: [{ find: /^.*\/buf\/validate\/validate_pb$/, replacement: fileURLToPath(new URL("src/app/validate.ts", import.meta.url)) }] },
  build: { outDir: "dist", emptyOutDir: true, target: "es2023", chunkSizeWarningLimit: 800 },
  server: { proxy: { "^/(?!ui/)": process.env["HEADGATE_URL"] ?? "http://127.0.0.1:8080" } },
  test: {
    // A document takes longer than most tests of functions.
    projects: [
      { extends: true, test: { name: "functions", environment: "node", include: ["src/**/*.test.ts"] } },
      { extends: true, test: { name: "components", environment: "jsdom", include: ["src/**/*.test.tsx"] } },
    ],
  },
});

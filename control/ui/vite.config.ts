import { fileURLToPath } from "node:url";
import tailwindcss from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

/** The page names the code that its first script imports, which is loaded beside it instead of after it. */
function preload(module: string): Plugin {
  return {
    name: "preload",
    transformIndexHtml: {
      order: "post",
      handler: (_, { bundle = {} }) => {
        const chunks = Object.values(bundle).filter((one) => one.type === "chunk");
        const first = chunks.find((one) => one.isEntry);
        const main = chunks.find((one) => one.moduleIds.some((id) => id.endsWith(module)));
        const files = main ? [main.fileName, ...main.imports].filter((file) => file !== first?.fileName) : [];
        return files.map((file) => ({ tag: "link", attrs: { rel: "modulepreload", crossorigin: true, href: `/ui/${file}` }, injectTo: "head" }));
      },
    },
  };
}

// The build is committed and embedded in the binary, which serves it under /ui/. In
// development everything else goes to a gateway that runs beside it.
export default defineConfig({
  base: "/ui/",
  plugins: [react(), tailwindcss(), preload("/src/main.tsx")],
  resolve: { alias: [{ find: /^.*\/buf\/validate\/validate_pb$/, replacement: fileURLToPath(new URL("src/app/validate.ts", import.meta.url)) }] },
  build: {
    outDir: "dist",
    emptyOutDir: true,
    target: "es2023",
    chunkSizeWarningLimit: 800,
    rolldownOptions: {
      output: {
        // A browser opens six connections over HTTP/1.1: what the first view needs is three files, not thirty.
        codeSplitting: {
          groups: [
            { name: "boot", tags: ["$initial"], priority: 3 },
            { name: "main", test: /\/src\/main\.tsx$/, priority: 2 },
            { name: "overview", test: /\/src\/overview\/overview\.tsx$/, priority: 1 },
          ],
        },
      },
    },
  },
  server: { proxy: { "^/(?!ui/)": process.env["HEADGATE_URL"] ?? "http://127.0.0.1:8080" } },
  test: {
    // A document takes longer than most tests of functions.
    projects: [
      { extends: true, test: { name: "functions", environment: "node", include: ["src/**/*.test.ts"] } },
      { extends: true, test: { name: "components", environment: "jsdom", include: ["src/**/*.test.tsx"] } },
    ],
  },
});

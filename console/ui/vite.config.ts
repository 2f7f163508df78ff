import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

export default defineConfig({
  plugins: [svelte()],
  build: {
    // Into the Python package: the wheel carries what was built, and the console serves it.
    outDir: "../nexus_console/page",
    emptyOutDir: true,
    // What is built in, and its licences, which must go with it; the bill of materials names it, too.
    license: { fileName: "licenses.json" },
    // The first versions with CSS light-dark() and nesting.
    target: ["chrome123", "firefox123", "safari17.5"],
    // The content security policy allows no inline script and no data: URL.
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
  },
});

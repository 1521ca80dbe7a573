import { defineConfig } from "@playwright/test";
import tests from "./playwright.config";

export default defineConfig({
  testDir: ".",
  testMatch: /bench\.ts/,
  globalSetup: "./bench-setup.ts",
  outputDir: "results",
  workers: 1,
  fullyParallel: false,
  retries: 0,
  timeout: 30 * 60_000,
  reporter: "./reporter.ts",
  // What moves on the page moves, as for most readers.
  use: { ...tests.use, reducedMotion: "no-preference", actionTimeout: 30_000 },
});

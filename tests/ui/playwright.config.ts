import { defineConfig } from "@playwright/test";

export default defineConfig({
  testDir: ".",
  globalSetup: "./setup.ts",
  outputDir: "results",
  workers: 2,
  fullyParallel: true,
  retries: 0,
  timeout: 30_000,
  expect: { timeout: 10_000 },
  reporter: "./reporter.ts",
  use: {
    // Debian's; none is downloaded.
    launchOptions: { executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium", args: ["--no-sandbox"] },
    viewport: { width: 1440, height: 900 },
    locale: "en-GB",
    timezoneId: "Asia/Kolkata",
    colorScheme: "light",
    reducedMotion: "reduce",
    trace: "off",
  },
  projects: [
    { name: "tests", testMatch: "*.spec.ts" },
    // What depends on the store, once more.
    { name: "postgres", testMatch: /(errors|figures|filters|list|newcomer|runs)\.spec\.ts/ },
    { name: "screenshots", testMatch: "screenshots.ts" },
  ],
});

/** Pictures of each view, light and dark, wide and narrow, in target/screenshots. */
import type { Page } from "@playwright/test";
import { signIn, test } from "./bed";

// Two of the views are of what is refused.
test.use({ user: "", expected: { errors: [/status of 40[14]/] } });

const FOLDER = process.env["SCREENSHOTS"] ?? new URL("../../target/screenshots", import.meta.url).pathname;
const PAY = "/scripts/shop/pay";

async function still(page: Page): Promise<void> {
  await page.waitForFunction(() => document.querySelector("h1, [role=alert]") && !document.querySelector(".skeleton"));
  // What is drawn on a canvas has no other sign.
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
}

const VIEWS: [string, (page: Page) => Promise<void>][] = [
  ["scripts", (page) => page.goto("/scripts").then(() => {})],
  ["runs", (page) => page.goto(`${PAY}/runs`).then(() => {})],
  [
    "runs-filtered",
    async (page) => {
      const filter = { match: "All", conditions: [{ column: "Status", operator: "Equals", values: ["Failed"] }] };
      await page.goto(`${PAY}/runs?range=Yesterday&filter=${encodeURIComponent(JSON.stringify(filter))}`);
    },
  ],
  ["record", (page) => page.goto(`${PAY}/runs/run-02996`).then(() => {})],
  ["record-success", (page) => page.goto(`${PAY}/runs/run-02995`).then(() => {})],
  [
    "run-again",
    async (page) => {
      await page.goto(`${PAY}/runs/run-02995`);
      await page.getByRole("button", { name: "Run again" }).click();
      await page.getByRole("dialog").waitFor();
    },
  ],
  [
    "export",
    async (page) => {
      await page.goto(`${PAY}/runs`);
      await page.getByRole("button", { name: "Export" }).click();
      await page.getByRole("menuitem", { name: "Save as ScriptExport" }).click();
      await page.getByRole("dialog").waitFor();
    },
  ],
  ["logs", (page) => page.goto(`${PAY}/logs?range=24h&live=on`).then(() => {})],
  ["runs-slowest", (page) => page.goto(`${PAY}/runs?range=30d&sort=slowest`).then(() => {})],
  ["logs-search", (page) => page.goto(`${PAY}/logs?q=rate`).then(() => {})],
  ["errors", (page) => page.goto(`${PAY}/errors`).then(() => {})],
  ["versions", (page) => page.goto(`${PAY}/versions`).then(() => {})],
  ["empty", (page) => page.goto("/scripts/shop/draft/runs").then(() => {})],
  ["no-match", (page) => page.goto(`${PAY}/logs?q=nothing+has+this`).then(() => {})],
  ["missing", (page) => page.goto("/scripts/shop/nope/runs").then(() => {})],
  [
    "filter-menu",
    async (page) => {
      await page.goto(`${PAY}/runs`);
      await page.getByRole("button", { name: "Filter" }).click();
    },
  ],
  [
    "range",
    async (page) => {
      await page.goto(`${PAY}/runs`);
      await page.getByRole("button", { name: "Last 7 days" }).click();
      await page.getByRole("button", { name: "Custom range" }).click();
      await page.getByRole("grid").waitFor();
    },
  ],
];

for (const scheme of ["light", "dark"] as const) {
  for (const width of [1440, 390]) {
    for (const [name, open] of VIEWS) {
      test(`${name} ${scheme} ${width}`, async ({ page }) => {
        await page.emulateMedia({ colorScheme: scheme });
        await page.setViewportSize({ width, height: width === 390 ? 844 : 900 });
        await signIn(page, "shop");
        await open(page);
        await still(page);
        await page.screenshot({ path: `${FOLDER}/${name}-${scheme}-${width}.png` });
      });
    }
    test(`sign-in ${scheme} ${width}`, async ({ page }) => {
      await page.emulateMedia({ colorScheme: scheme });
      await page.setViewportSize({ width, height: width === 390 ? 844 : 900 });
      await page.goto("/");
      await page.getByRole("heading", { name: "Sign in" }).waitFor();
      await page.screenshot({ path: `${FOLDER}/sign-in-${scheme}-${width}.png` });
    });
  }
}

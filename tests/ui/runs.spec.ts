import type { Page } from "@playwright/test";
import { expect, PAY, print, rest, test } from "./bed";

interface Figures {
  totalRuns: number;
  failedRuns: number;
  inProgressRuns: number;
  failureRateBasisPoints: number;
  p90Microseconds: number;
  p99Microseconds: number;
}
interface Run {
  runId: string;
  status: string;
  executedOn: string;
}

const API = "/namespaces/shop/scripts/pay";
const rows = (page: Page) => page.getByRole("table", { name: "Runs" }).locator(".grid-row-data");
const shown = (micros: number) => (micros < 999_500 ? `${Number((micros / 1e3).toPrecision(3))} ms` : `${(micros / 1e6).toFixed(2)} s`);

test("the tiles say their window and have REST's figures", async ({ page }) => {
  // Of a day that is over, so that nothing comes in meanwhile.
  await page.goto(`${PAY}/runs?range=Yesterday&tz=utc`);
  const { figures } = await rest<{ figures: Figures }>("shop", `${API}/figures?preset=Yesterday`);
  expect(figures.failedRuns).toBeGreaterThan(0);
  const tiles = page.getByLabel("Figures, Yesterday");
  await expect(tiles).toHaveAttribute("aria-busy", "false");
  const value = (name: string) => tiles.locator(".tile", { hasText: name }).locator(".tile-value");
  await expect(value("Total Runs")).toHaveText(figures.totalRuns.toLocaleString("en"));
  await expect(value("P90")).toHaveText(shown(figures.p90Microseconds));
  await expect(value("P99")).toHaveText(shown(figures.p99Microseconds));
  await expect(value("Failure Rate")).toHaveText(`${(figures.failureRateBasisPoints / 100).toFixed(2)} %`);
  await expect(value("In Progress")).toHaveText(String(figures.inProgressRuns));
  await expect(tiles.locator(".tile", { hasText: "Total Runs" })).toContainText("Yesterday");
});

test("the table has its eight columns, the newest first, and goes on to the last run", async ({ page }) => {
  await page.goto(`${PAY}/runs?range=Yesterday&tz=utc`);
  await expect(page.getByRole("columnheader")).toHaveText([
    "Run ID",
    "Status",
    "Deployment Version",
    "Response Time",
    "Function",
    "Executed On",
    "Source Type",
    "Source",
  ]);
  const { items } = await rest<{ items: Run[] }>("shop", `${API}/runs?preset=Yesterday&limit=1000`);
  expect(items.length).toBeGreaterThan(300);
  await expect(rows(page).first().getByRole("link")).toHaveText(items[0]?.runId ?? "");
  await expect(page.getByText(`${items.length} runs`, { exact: true })).toBeVisible();
  // Only what can be seen is there.
  expect(await rows(page).count()).toBeLessThan(80);
  const last = page.getByRole("link", { name: items.at(-1)?.runId ?? "", exact: true });
  await expect(async () => {
    await page.evaluate(() => window.scrollTo(0, document.body.scrollHeight));
    await expect(last).toBeVisible({ timeout: 300 });
  }).toPass();
  await expect(page.getByText("all of this range")).toBeVisible();
});

test("new runs come in by themselves, and those in progress end", async ({ page }) => {
  await page.goto(`${PAY}/runs?range=1h`);
  await expect(rows(page).first()).toBeVisible();
  const id = `live-${Date.now()}`;
  const record = { run_id: id, version: 3, function: "charge", source: "live", source_type: "Test" };
  await print({ scriptscope: "run.started", time: new Date().toISOString(), ...record });
  const row = rows(page).filter({ hasText: id });
  await expect(row).toContainText("In Progress");
  const end = { time: new Date().toISOString(), status: "Success", duration_us: 77_000 };
  await print({ scriptscope: "run.finished", run_id: id, ...end });
  await expect(row).toContainText("Success");
  await expect(row).toContainText("77 ms");
});

test("the charts show the days, deployments, and the same figures as a table", async ({ page }) => {
  await page.goto(`${PAY}/runs?tz=utc`);
  const chart = page.getByRole("figure").filter({ hasText: "Runs by status" });
  await expect(chart.locator("canvas")).toBeVisible();
  await chart.getByText("As a table").click();
  const { buckets } = await rest<{ buckets: { from: string; failedRuns: number }[] }>("shop", `${API}/series?last=7d`);
  const day = buckets.at(-3);
  const row = chart.getByRole("row").filter({ hasText: day?.from.slice(0, 10) ?? "" });
  await expect(row.getByRole("cell").nth(1)).toHaveText(String(day?.failedRuns));
  await expect(page.getByRole("figure").filter({ hasText: "Response time" }).locator("canvas")).toBeVisible();
});

test("dragging over a chart sets the range, and back undoes it", async ({ page }) => {
  await page.goto(`${PAY}/runs`);
  const plot = page.getByRole("figure").filter({ hasText: "Runs by status" }).locator(".u-over");
  await expect(plot).toBeVisible();
  const box = await plot.boundingBox();
  if (!box) throw new Error("the chart has no place");
  await page.mouse.move(box.x + box.width * 0.3, box.y + 50);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.5, box.y + 60, { steps: 4 });
  await page.mouse.up();
  await expect(page).toHaveURL(/range=20.*\.\.20/);
  await page.goBack();
  await expect(page).not.toHaveURL(/range=/);
  await expect(page.getByRole("button", { name: "Last 7 days" })).toBeVisible();
});

test("a range is chosen from the presets or to the minute, and is in the URL", async ({ page }) => {
  await page.goto(`${PAY}/runs`);
  await page.getByRole("button", { name: "Last 7 days" }).click();
  await page.getByRole("button", { name: "Last 30 days" }).click();
  await expect(page).toHaveURL(/range=Last30Days/);
  const total = page.getByLabel("Figures, Last 30 days").locator(".tile-value").first();
  const { figures } = await rest<{ figures: Figures }>("shop", `${API}/figures?last=30d`);
  expect(figures.totalRuns).toBeGreaterThan(3_000);
  await expect(total).toHaveText(/3,0\d\d/);
  await page.reload();
  await expect(page.getByRole("button", { name: "Last 30 days" })).toBeVisible();
  await page.getByRole("button", { name: "Last 30 days" }).click();
  await page.getByRole("button", { name: "Custom range" }).click();
  const from = page.getByRole("group", { name: "From" });
  await from.getByRole("spinbutton", { name: "hour" }).fill("07");
  await page.getByRole("button", { name: "Apply" }).click();
  await expect(page).toHaveURL(/range=\d{4}-\d\d-\d\dT\d\d%3A\d\d/);
});

test("times are the reader's or UTC", async ({ page }) => {
  await page.goto(`${PAY}/runs?range=Yesterday&tz=utc`);
  const { items } = await rest<{ items: Run[] }>("shop", `${API}/runs?preset=Yesterday&limit=1`);
  const at = items[0]?.executedOn ?? "";
  await expect(rows(page).first().locator("time")).toHaveText(at.replace("T", " ").slice(0, 23));
  await page.getByRole("button", { name: /Time zone/ }).click();
  await page.getByRole("option", { name: "Asia/" }).click();
  await expect(page).not.toHaveURL(/tz=/);
  // Yesterday is another day there.
  const first = rows(page).first().locator("time");
  const begin = new Date(new Date(Date.now() + 5.5 * 3.6e6).setUTCHours(0, 0, 0, 0) - 5.5 * 3.6e6);
  await expect(async () => {
    const time = (await first.getAttribute("datetime")) ?? "";
    expect(new Date(time).getTime()).toBeLessThan(begin.getTime());
    expect(new Date(time).getTime()).toBeGreaterThan(begin.getTime() - 600_000);
  }).toPass();
  await expect(first).toHaveText(/23:5\d:/);
});

import type { Page } from "@playwright/test";
import { expect, PAY, rest, test } from "./bed";

interface Group {
  type: string | null;
  reason: string;
  message: string;
  count: number;
  firstVersion: number;
  runs: string[];
}

const API = "/namespaces/shop/scripts/pay";
const groups = (page: Page) => page.getByRole("list", { name: "Errors" }).getByRole("listitem");

test("failed runs are grouped by what failed, as REST has them", async ({ page }) => {
  await page.goto(`${PAY}/runs?range=Yesterday&tz=utc`);
  await page.getByRole("link", { name: "Errors", exact: true }).click();
  await expect(page).toHaveURL(/errors\?range=Yesterday/);
  const { items, read } = await rest<{ items: Group[]; read: { runs: number } }>("shop", `${API}/errors?preset=Yesterday`);
  const { figures } = await rest<{ figures: { failedRuns: number } }>("shop", `${API}/figures?preset=Yesterday`);
  expect(read.runs).toBe(figures.failedRuns);
  await expect(groups(page)).toHaveCount(items.length);
  await expect(page.getByText(`${items.length} errors in ${read.runs} failed runs`)).toBeVisible();
  for (const [n, item] of items.entries()) {
    const group = groups(page).nth(n);
    await expect(group.getByRole("heading")).toHaveText(item.type ?? item.reason);
    await expect(group).toContainText(item.message);
    await expect(group.locator(".error-count")).toHaveText(String(item.count));
    await expect(group).toContainText(`v${item.firstVersion}`);
  }
  const raised = groups(page).filter({ hasText: "ZeroDivisionError" });
  await expect(raised).toContainText("main.py:41 in charge");
  await expect(groups(page).filter({ hasText: "Timeout" })).toContainText("longer than <n> s");
  await expect(raised.getByRole("img", { name: /Runs from .* in 24 equal parts/ })).toBeVisible();
});

test("an error leads to its runs, and through them by J and K", async ({ page }) => {
  await page.goto(`${PAY}/errors?range=Yesterday&tz=utc`);
  const { items } = await rest<{ items: Group[] }>("shop", `${API}/errors?preset=Yesterday`);
  const raised = items.find((one) => one.type === "ZeroDivisionError");
  if (!raised) throw new Error("there is no such error");
  const group = groups(page).filter({ hasText: "ZeroDivisionError" });
  await group.getByRole("link", { name: "Newest run" }).click();
  const record = page.getByRole("complementary");
  await expect(record.getByRole("heading", { level: 2 })).toContainText(raised.runs[0] ?? "");
  await expect(record).toContainText("ZeroDivisionError");
  await page.waitForLoadState("networkidle");
  await page.keyboard.press("j");
  await expect(record.getByRole("heading", { level: 2 })).toContainText(raised.runs[1] ?? "");
  await page.goBack();
  await group.getByRole("link", { name: /^(All|Newest) \d+ runs$/ }).click();
  await expect(page.getByText(`${raised.runs.length} runs`, { exact: true })).toBeVisible();
});

test("a filter goes along between runs and errors, and none failed is said", async ({ page }) => {
  await page.goto(`${PAY}/runs?range=Yesterday&tz=utc&q=refund`);
  await page.locator(".grid-row-data").first().waitFor();
  await page.keyboard.press("e");
  await expect(page).toHaveURL(/errors\?.*q=refund/);
  const filter = JSON.stringify({ match: "All", conditions: [{ column: "Status", operator: "Equals", values: ["Success"] }] });
  await page.goto(`${PAY}/errors?filter=${encodeURIComponent(filter)}`);
  await expect(page.getByText("No run has failed")).toBeVisible();
});

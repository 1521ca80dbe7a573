import type { Page } from "@playwright/test";
import { expect, PAY, rest, test } from "./bed";

const API = "/namespaces/shop/scripts/pay";
const rows = (page: Page) => page.getByRole("table", { name: "Runs" }).locator(".grid-row-data");

interface Total {
  total: { count: number };
}

async function choose(page: Page, list: RegExp, option: string): Promise<void> {
  await page.getByRole("dialog").getByRole("button", { name: list }).click();
  await page.getByRole("option", { name: option, exact: true }).click();
}

async function add(page: Page, column: string, operator: string, ...values: string[]): Promise<void> {
  await page.getByRole("button", { name: /^Filter/ }).click();
  await choose(page, /Column/, column);
  if (operator !== "is") await choose(page, /Operator/, operator);
  for (const value of values) {
    const known = page.getByRole("dialog").getByText(value, { exact: true });
    const field = page.getByRole("textbox", { name: "Values" });
    if (await field.isVisible()) {
      await field.fill(value);
      await field.press("Tab");
    } else {
      await known.click();
    }
  }
  await page.getByRole("button", { name: "Apply" }).click();
}

async function expectCount(page: Page, query: string): Promise<number> {
  const { total } = await rest<Total>("shop", `${API}/runs?preset=Yesterday&count=true&limit=1&${query}`);
  await expect(page.getByText(`${total.count.toLocaleString("en")} runs`, { exact: true })).toBeVisible();
  return total.count;
}

test.beforeEach(async ({ page }) => {
  await page.goto(`${PAY}/runs?range=Yesterday&tz=utc`);
  await expect(rows(page).first()).toBeVisible();
});

test("conditions are added, counted, joined by all or any, and cleared", async ({ page }) => {
  await add(page, "Status", "is", "Failed");
  const failed = await expectCount(page, "status=Failed");
  await expect(page.getByRole("button", { name: /^Filter/ })).toContainText("1");
  await add(page, "Function", "contains", "refund", "quo");
  const both = await expectCount(page, "status=Failed&function=refund&function=quote");
  expect(both).toBeLessThan(failed);
  await page.getByRole("button", { name: /How filters are joined/ }).click();
  await page.getByRole("option", { name: "Any holds" }).click();
  const any = {
    match: "Any",
    conditions: [
      { column: "Status", operator: "Equals", values: ["Failed"] },
      { column: "Function", operator: "Contains", values: ["refund", "quo"] },
    ],
  };
  expect(await expectCount(page, `filter=${encodeURIComponent(JSON.stringify(any))}`)).toBeGreaterThan(failed);
  // The same view for whoever gets the address.
  const url = page.url();
  await page.goto("/scripts");
  await page.goto(url);
  await expectCount(page, `filter=${encodeURIComponent(JSON.stringify(any))}`);
  await page.getByRole("button", { name: "Remove: Status is Failed" }).click();
  await expectCount(page, "function=refund&function=quote");
  await page.getByRole("button", { name: "Clear all" }).click();
  await expectCount(page, "");
  await page.goBack();
  await expectCount(page, "function=refund&function=quote");
});

test("response times are compared in milliseconds, and nonsense is refused", async ({ page }) => {
  await page.getByRole("button", { name: /^Filter/ }).click();
  await choose(page, /Column/, "Response Time");
  await choose(page, /Operator/, "≥");
  await page.getByRole("textbox", { name: "Values" }).fill("fast");
  await expect(page.getByRole("alert")).toContainText("milliseconds");
  await expect(page.getByRole("button", { name: "Apply" })).toBeDisabled();
  await page.getByRole("textbox", { name: "Values" }).fill("300");
  await page.keyboard.press("Enter");
  const filter = { match: "All", conditions: [{ column: "Response Time", operator: "AtLeast", values: ["300"] }] };
  await expectCount(page, `filter=${encodeURIComponent(JSON.stringify(filter))}`);
});

test("a click on a value shows only rows that have it", async ({ page }) => {
  await rows(page).first().getByRole("button", { name: /show only this Source Type/ }).click();
  await expect(page).toHaveURL(/Source\+Type/);
  await expect(page.getByRole("list", { name: "Conditions" })).toContainText("Source Type");
});

test("a search finds runs by id, function or source", async ({ page }) => {
  await page.getByRole("searchbox").fill("refund");
  await expectCount(page, "function=refund");
  await expect(page).toHaveURL(/q=refund/);
});

test("a filter that lets nothing through says so", async ({ page }) => {
  await add(page, "Function", "is", "no such function");
  await expect(page.getByText("No runs here")).toBeVisible();
  await expect(page.getByText("clear the filters")).toBeVisible();
});

test("every column but the time can be filtered", async ({ page }) => {
  await page.getByRole("button", { name: /^Filter/ }).click();
  await page.getByRole("dialog").getByRole("button", { name: /Column/ }).click();
  await expect(page.getByRole("option")).toHaveText([
    "Status",
    "Run ID",
    "Deployment Version",
    "Response Time",
    "Function",
    "Source Type",
    "Source",
  ]);
});

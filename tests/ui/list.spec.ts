import { expect, rest, test } from "./bed";

interface Script {
  namespace: string;
  name: string;
  figures: { totalRuns: number; failureRateBasisPoints: number | null };
}

test("the list has the scripts of the reader with REST's figures", async ({ page }) => {
  await page.goto("/");
  await expect(page).toHaveURL(/\/scripts$/);
  const { items } = await rest<{ items: Script[] }>("shop", "/scripts");
  const rows = page.getByRole("table", { name: "Scripts" }).getByRole("row");
  await expect(rows).toHaveCount(items.length + 1);
  const quotes = items.find((script) => script.name === "quotes");
  const row = rows.filter({ hasText: "quotes" });
  await expect(row.getByRole("cell").nth(5)).toHaveText(String(quotes?.figures.totalRuns));
  await expect(row.getByRole("cell").nth(7)).toHaveText("0.00 %");
  await expect(row).toContainText("Deployment failed");
  await expect(row.getByRole("img", { name: /^Runs of the last 7 days: / })).toBeVisible();
  await expect(page.getByRole("link", { name: "loans" })).toBeHidden();
});

test("a search narrows the list, stays in the URL, and a click opens a script", async ({ page }) => {
  await page.goto("/scripts");
  await expect(page.getByRole("link", { name: "pay", exact: true })).toBeVisible();
  await page.keyboard.press("/");
  await page.keyboard.type("quo");
  await expect(page.getByRole("link", { name: "quotes" })).toBeVisible();
  await expect(page.getByRole("link", { name: "pay", exact: true })).toBeHidden();
  await expect(page).toHaveURL(/q=quo/);
  await page.reload();
  await expect(page.getByRole("link", { name: "pay", exact: true })).toBeHidden();
  await page.getByRole("searchbox").fill("nothing like it");
  await expect(page.getByText("No script matches")).toBeVisible();
  await page.getByRole("searchbox").fill("pay");
  await page.getByRole("link", { name: "pay", exact: true }).click();
  await expect(page.getByRole("heading", { name: "pay" })).toBeVisible();
  await page.goBack();
  await expect(page.getByRole("searchbox")).toHaveValue("pay");
});

test.describe("of every namespace", () => {
  test.use({ user: "all" });

  test("the list can be narrowed to one", async ({ page }) => {
    await page.goto("/scripts");
    await page.getByRole("button", { name: /Namespace/ }).click();
    await page.getByRole("option", { name: "bank" }).click();
    await expect(page.getByRole("link", { name: "loans" })).toBeVisible();
    await expect(page.getByRole("link", { name: "pay", exact: true })).toBeHidden();
    await expect(page).toHaveURL(/namespace=bank/);
  });
});

test("a script without runs says how to get the first, one that is not there says so", async ({ page, expected }) => {
  expected.errors.push(/404/);
  await page.goto("/scripts/shop/draft/runs");
  await expect(page.getByText("No run yet")).toBeVisible();
  await expect(page.getByText("curl")).toBeVisible();
  await page.goto("/scripts/shop/draft/logs");
  await expect(page.getByText("No log line yet")).toBeVisible();
  await page.goto("/scripts/shop/nope/runs");
  await expect(page.getByRole("alert")).toContainText("There is no such script");
  await page.goto("/scripts/nowhere");
  await expect(page.getByText("There is nothing at this address")).toBeVisible();
});

test("an operator that is away is told, and what is shown stays", async ({ page, expected }) => {
  expected.errors.push(/ERR_FAILED|Failed to load/);
  await page.goto("/scripts");
  await expect(page.getByRole("link", { name: "pay", exact: true })).toBeVisible();
  await page.route("**/api/**", (route) => route.abort());
  await expect(page.getByText("What is shown may be out of date")).toBeVisible({ timeout: 15_000 });
  await expect(page.getByRole("link", { name: "pay", exact: true })).toBeVisible();
  await page.unroute("**/api/**");
  await expect(page.getByText("What is shown may be out of date")).toBeHidden({ timeout: 15_000 });
});

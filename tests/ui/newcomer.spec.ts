import type { Page } from "@playwright/test";
import { expect, rest, test } from "./bed";

/**
 * Somebody who has never seen the dashboard wants the slowest failed run of yesterday, and what went into it. Both ways take
 * six presses from the address on, as nobody should need more.
 */
const PRESSES = 6;

interface Run {
  runId: string;
  executedOn: string;
  finishedAt: string;
}

const took = (run: Run) => Date.parse(run.finishedAt) - Date.parse(run.executedOn);

/** What REST says is the slowest failed run of the reader's yesterday. */
async function slowest(page: Page): Promise<{ runId: string; order: string }> {
  const [from, to] = await page.evaluate(() => {
    const day = (ago: number) => {
      const now = new Date();
      return new Date(now.getFullYear(), now.getMonth(), now.getDate() - ago).toISOString();
    };
    return [day(1), day(0)] as const;
  });
  const api = "/namespaces/shop/scripts/pay/runs";
  const { items } = await rest<{ items: Run[] }>("shop", `${api}?status=Failed&from=${from}&to=${to}&limit=1000`);
  const [first] = items.toSorted((a, b) => took(b) - took(a));
  if (!first) throw new Error("no run failed yesterday");
  const { input } = await rest<{ input: { order: number } }>("shop", `${api}/${first.runId}`);
  return { runId: first.runId, order: String(input.order) };
}

test("the mouse leads from the address to the slowest failed run of yesterday and its input", async ({ page }) => {
  await page.goto("/");
  const wanted = await slowest(page);
  const presses = [
    page.getByRole("link", { name: "pay", exact: true }),
    page.getByRole("button", { name: "Last 7 days" }),
    page.getByRole("button", { name: "Yesterday" }),
    page.getByRole("button", { name: "show only the runs that are Failed" }),
    page.getByRole("button", { name: "Slowest first" }),
    page.locator(".grid-runs .grid-row-data a").first(),
  ];
  expect(presses).toHaveLength(PRESSES);
  for (const [n, press] of presses.entries()) {
    // Who reads waits until the row is that of what was asked for.
    if (n === PRESSES - 1) await expect(press).toHaveText(wanted.runId);
    await press.click();
  }
  const record = page.getByRole("complementary");
  await expect(record.getByRole("heading", { level: 2 })).toContainText(wanted.runId);
  await expect(record.getByRole("textbox", { name: "Input" })).toContainText(wanted.order);
  await expect(record.getByText("Failed after")).toBeVisible();
});

test("so does the keyboard", async ({ page }) => {
  await page.goto("/");
  const wanted = await slowest(page);
  const to = async (name: string, role: "link" | "button") => {
    const target = page.getByRole(role, { name, exact: role === "link" }).first();
    await target.waitFor();
    // Tab reaches it, as it has to.
    for (let n = 0; n < 60 && !(await target.evaluate((node) => node === document.activeElement)); n++) {
      await page.keyboard.press("Tab");
    }
    await expect(target).toBeFocused();
    await page.keyboard.press("Enter");
  };
  await to("pay", "link");
  await to("Last 7 days", "button");
  await to("Yesterday", "button");
  await to("show only the runs that are Failed", "button");
  await expect(page.getByRole("button", { name: "Remove: Status is Failed" })).toBeVisible();
  await page.keyboard.press("s");
  await expect(page.locator(".grid-runs .grid-row-data a").first()).toHaveText(wanted.runId);
  await to(wanted.runId, "link");
  const record = page.getByRole("complementary");
  await expect(record.getByRole("textbox", { name: "Input" })).toContainText(wanted.order);
  // Back to where it was opened from.
  await page.keyboard.press("Escape");
  await expect(record).toBeHidden();
  await expect(page).toHaveURL(/range=Yesterday.*sort=slowest/);
});

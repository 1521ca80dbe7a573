import { readFile } from "node:fs/promises";
import type { Page } from "@playwright/test";
import { expect, PAY, print, rest, test } from "./bed";

const API = "/namespaces/shop/scripts/pay";
const rows = (page: Page) => page.getByRole("table", { name: "Log lines" }).locator(".grid-row-data:not(.gap)");

const said = (text: string, level = "INFO") => ({
  name: `gvisor_${level.toLowerCase()}_log`,
  start_time: new Date().toISOString(),
  attributes: { run_id: "run-03000", "log.message": text, "log.level": level },
});

test("the log has its four columns, the total and the lines by level", async ({ page }) => {
  await page.goto(`${PAY}/logs?range=Yesterday&tz=utc`);
  await expect(page.getByRole("columnheader")).toHaveText(["Log ID", "Log Level", "Log Message", "Timestamp"]);
  const { buckets } = await rest<{ buckets: { logs: Record<string, number> }[] }>("shop", `${API}/series?preset=Yesterday`);
  const total = buckets.flatMap((one) => Object.values(one.logs)).reduce((sum, n) => sum + n, 0);
  const tiles = page.getByLabel("Log lines, Yesterday");
  await expect(tiles.locator(".tile-value").first()).toHaveText(total.toLocaleString("en"));
  await expect(page.getByText(`${total.toLocaleString("en")} lines`, { exact: true })).toBeVisible();
  await expect(page.getByRole("figure").locator("canvas")).toBeVisible();
});

test("colours are shown, markup is not, and what is searched for is marked", async ({ page }) => {
  await page.goto(`${PAY}/logs?range=Yesterday&tz=utc&q=MISS`);
  const row = rows(page).first();
  await expect(row.locator("mark")).toHaveText(["miss"]);
  await expect(row.locator(".ansi-cyan")).toHaveText("cache");
  await expect(row).toContainText("cache miss for <b>rate</b>");
});

test("a long line is folded and opens with its details", async ({ page }) => {
  await page.goto(`${PAY}/logs?range=AllTime&q=payload`);
  const row = rows(page).first();
  await row.getByRole("button", { name: "Show the whole line" }).click();
  await expect(row).toContainText('"order.kind": "retail"');
  await row.getByRole("button", { name: "Show less" }).click();
  await expect(row).not.toContainText("order.kind");
  const wrapped = await row.evaluate((node) => node.clientHeight);
  await page.getByRole("button", { name: "Wrap long lines" }).click();
  await expect.poll(() => row.evaluate((node) => node.clientHeight)).toBeLessThan(wrapped);
});

test("a line leads to its run", async ({ page }) => {
  await page.goto(`${PAY}/logs?range=Yesterday&tz=utc&q=began`);
  const link = rows(page).first().getByRole("link", { name: /^Run / });
  const id = ((await link.getAttribute("aria-label")) ?? "").slice(4);
  await link.click();
  await expect(page.getByRole("complementary").getByRole("heading", { level: 2 })).toContainText(id);
});

test("missing lines are shown where they would be, with their reason", async ({ page }) => {
  await page.goto(`${PAY}/logs?range=24h`);
  const gap = page.getByText("Lines are missing here: a log file was removed before it was read");
  await expect(async () => {
    await page.mouse.wheel(0, 600);
    await expect(gap).toBeVisible({ timeout: 200 });
  }).toPass();
  await expect(gap).toContainText("4.71 kB");
});

test("live lines appear as they are stored, wait while the page is read or paused, and none is lost or twice", async ({ page }) => {
  const tag = `live ${Date.now()}`;
  await print(said(`${tag} before`));
  await page.goto(`${PAY}/logs?range=24h&q=${encodeURIComponent(tag)}`);
  await expect(rows(page)).toHaveCount(1);
  await page.getByRole("button", { name: "Live" }).click();
  await expect(page.locator(".live-live")).toBeVisible();
  await print(said(`${tag} one`), said("something else"), said(`${tag} two`));
  await expect(rows(page).locator(".message")).toHaveText([`${tag} two`, `${tag} one`, `${tag} before`]);
  await page.getByRole("button", { name: "Pause" }).click();
  await print(said(`${tag} three`));
  await expect(page.getByRole("button", { name: "1 new lines" })).toBeVisible();
  await expect(rows(page)).toHaveCount(3);
  await page.getByRole("button", { name: "Resume" }).click();
  await expect(rows(page)).toHaveCount(4);
  await expect(page).toHaveURL(/live=on/);
});

test("a broken stream goes on where it was", async ({ page, expected }) => {
  expected.errors.push(/ERR_|Failed to load/);
  const tag = `again ${Date.now()}`;
  let broken = 0;
  await page.route("**/logs/stream**", async (route) => {
    // The first answer ends after what there is, as when a proxy loses the connection.
    if (broken === 0) {
      broken += 1;
      const url = route.request().url();
      const answer = await fetch(url, { headers: { Authorization: "Bearer shop" } });
      const reader = answer.body?.getReader();
      const first = await reader?.read();
      await reader?.cancel();
      await print(said(`${tag} meanwhile`));
      return route.fulfill({ contentType: "text/event-stream", body: Buffer.from(first?.value ?? []) });
    }
    expect(route.request().headers()["last-event-id"]).toBeTruthy();
    return route.continue();
  });
  await page.goto(`${PAY}/logs?range=24h&live=on&q=${encodeURIComponent(tag)}`);
  await expect(rows(page).locator(".message")).toHaveText([`${tag} meanwhile`]);
  await print(said(`${tag} after`));
  await expect(rows(page).locator(".message")).toHaveText([`${tag} after`, `${tag} meanwhile`]);
});

test("thousands of lines a second do not freeze the page", async ({ page }) => {
  await page.goto(`${PAY}/logs?range=1h&live=on`);
  await expect(page.locator(".live-live")).toBeVisible();
  const tag = `flood ${Date.now()}`;
  const frames = page.evaluate(
    () =>
      new Promise<number>((resolve) => {
        let longest = 0;
        let last = performance.now();
        const end = last + 3_000;
        const frame = (now: number) => {
          longest = Math.max(longest, now - last);
          last = now;
          if (now < end) requestAnimationFrame(frame);
          else resolve(longest);
        };
        requestAnimationFrame(frame);
      }),
  );
  for (let n = 0; n < 5; n++) {
    await print(...Array.from({ length: 2_000 }, (_, i) => said(`${tag} ${n * 2_000 + i}`)));
  }
  await expect(rows(page).first()).toContainText(`${tag} 9999`);
  // What a person would call frozen; the machine has other work.
  expect(await frames).toBeLessThan(1_500);
});

test("what is shown is downloaded as a file, or saved as a ScriptExport", async ({ page }) => {
  await page.goto(`${PAY}/logs?range=Yesterday&tz=utc&q=began`);
  await expect(rows(page).first()).toBeVisible();
  await page.getByRole("button", { name: "Export" }).click();
  const saved = page.waitForEvent("download");
  await page.getByRole("menuitem", { name: "Download CSV", exact: true }).click();
  const download = await saved;
  expect(download.suggestedFilename()).toBe("pay_logs_data.csv");
  await expect(page.getByText("was downloaded")).toBeVisible();
  const csv = await readFile(await download.path(), "utf8");
  const expected = await fetch(`${process.env["PAGE_URL"]}/api/v1${API}/logs.csv?preset=Yesterday&search=began`, {
    headers: { Authorization: "Bearer shop" },
  });
  expect(csv).toBe(await expected.text());
  await page.getByRole("button", { name: "Export" }).click();
  await page.getByRole("menuitem", { name: "Save as ScriptExport" }).click();
  const yaml = page.getByRole("dialog").locator("pre");
  await expect(yaml).toContainText("kind: ScriptExport");
  await expect(yaml).toContainText("preset: Yesterday");
  await expect(yaml).toContainText("column: Log Message");
});

test("a download can be Parquet or compressed, and a ScriptExport says the same", async ({ page }) => {
  await page.goto(`${PAY}/logs?range=Yesterday&tz=utc&q=began`);
  await expect(rows(page).first()).toBeVisible();
  for (const [item, name, magic] of [
    ["Download Parquet", "pay_logs_data.parquet", "PAR1"],
    ["Download CSV, gzip", "pay_logs_data.csv.gz", "\u001f\u008b"],
  ] as const) {
    await page.getByRole("button", { name: "Export" }).click();
    const saved = page.waitForEvent("download");
    await page.getByRole("menuitem", { name: item }).click();
    const download = await saved;
    expect(download.suggestedFilename()).toBe(name);
    const bytes = await readFile(await download.path());
    expect(bytes.subarray(0, magic.length).toString("latin1")).toBe(magic);
    await page.getByRole("button", { name: "Close" }).click();
  }
  await page.getByRole("button", { name: "Export" }).click();
  await page.getByRole("menuitem", { name: "Save as ScriptExport" }).click();
  const dialog = page.getByRole("dialog", { name: "Save as ScriptExport" });
  await dialog.getByRole("button", { name: /Format/ }).click();
  await page.getByRole("option", { name: "Parquet" }).click();
  await expect(dialog.locator("pre")).toContainText("format: Parquet");
});

test("a download can be cancelled", async ({ page, expected }) => {
  expected.errors.push(/ERR_|Failed to load/);
  await page.route("**/logs.csv**", () => {});
  await page.goto(`${PAY}/logs?range=Yesterday&tz=utc`);
  await page.getByRole("button", { name: "Export" }).click();
  await page.getByRole("menuitem", { name: "Download CSV", exact: true }).click();
  await expect(page.getByRole("progressbar", { name: "Downloading pay_logs_data.csv" })).toBeVisible();
  await page.getByRole("button", { name: "Cancel" }).click();
  await expect(page.getByRole("progressbar")).toBeHidden();
});

import type { AxeResults } from "axe-core";
import type { Page } from "@playwright/test";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { expect, PAY, test } from "./bed";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** What axe finds on the page, by rule and place. */
async function findings(page: Page, options = {}): Promise<string[]> {
  // As the developer's tools do; the page's policy does not hold for it.
  await page.evaluate(AXE);
  const result = (await page.evaluate(`axe.run(${JSON.stringify(options)})`)) as AxeResults;
  return result.violations.flatMap((rule) => rule.nodes.map((node) => `${rule.id}: ${node.target.join(" ")} ${node.html.slice(0, 120)}`));
}

async function settled(page: Page): Promise<void> {
  await page.waitForFunction(() => document.querySelector("h1") && !document.querySelector(".skeleton"));
}

const PLACES: [string, string][] = [
  ["the list", "/scripts"],
  ["the runs", `${PAY}/runs?range=24h`],
  ["a record", `${PAY}/runs/run-02987`],
  ["the logs", `${PAY}/logs?range=24h&q=cache`],
  ["the errors", `${PAY}/errors`],
  ["the versions", `${PAY}/versions`],
  ["an empty script", "/scripts/shop/draft/runs"],
];

for (const scheme of ["light", "dark"] as const) {
  for (const [name, path] of PLACES) {
    test(`axe finds nothing in ${name}, ${scheme}`, async ({ page }) => {
      await page.emulateMedia({ colorScheme: scheme });
      await page.goto(path);
      await settled(page);
      expect(await findings(page)).toEqual([]);
    });
  }
}

// What opens lies outside of the page's landmarks, with a hidden button to close it beside the dialog.
const POPOVERS = { rules: { region: { enabled: false } } };

test("axe finds nothing in what opens", async ({ page }) => {
  await page.goto(`${PAY}/runs?range=24h`);
  await settled(page);
  await page.keyboard.press("?");
  await expect(page.getByRole("dialog", { name: "Keyboard shortcuts" })).toBeVisible();
  expect(await findings(page, POPOVERS)).toEqual([]);
  await page.keyboard.press("Escape");
  await page.keyboard.press("f");
  await expect(page.getByRole("dialog", { name: "Add a filter" })).toBeVisible();
  expect(await findings(page, POPOVERS)).toEqual([]);
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Last 24 hours" }).click();
  await page.getByRole("button", { name: "Custom range" }).click();
  await expect(page.getByRole("grid")).toBeVisible();
  expect(await findings(page, POPOVERS)).toEqual([]);
});

test("axe finds nothing in what asks", async ({ page }) => {
  await page.goto(`${PAY}/runs/run-02985`);
  await settled(page);
  await page.getByRole("button", { name: "Run again" }).click();
  await expect(page.getByRole("dialog", { name: "Run again with the same input" })).toBeVisible();
  expect(await findings(page, POPOVERS)).toEqual([]);
  await page.keyboard.press("Escape");
  await page.goto(`${PAY}/runs?range=24h`);
  await settled(page);
  await page.getByRole("button", { name: "Export" }).click();
  await page.getByRole("menuitem", { name: "Save as ScriptExport" }).click();
  await expect(page.getByRole("dialog", { name: "Save as ScriptExport" })).toBeVisible();
  expect(await findings(page, POPOVERS)).toEqual([]);
});

test.describe("signed out", () => {
  test.use({ user: "" });

  test("axe finds nothing", async ({ page, expected }) => {
    expected.errors.push(/401/);
    await page.goto("/");
    await expect(page.getByRole("heading", { name: "Sign in" })).toBeVisible();
    expect(await findings(page)).toEqual([]);
  });
});

test("the keyboard leads everywhere", async ({ page }) => {
  await page.goto(`${PAY}/runs?range=24h`);
  await settled(page);
  await page.keyboard.press("l");
  await expect(page).toHaveURL(/\/logs\?range=24h/);
  await page.keyboard.press("v");
  await expect(page).toHaveURL(/\/versions/);
  await page.keyboard.press("r");
  await expect(page).toHaveURL(/\/runs\?range=24h/);
  await page.keyboard.press("t");
  await expect(page).toHaveURL(/tz=utc/);
  await page.keyboard.press("/");
  await expect(page.getByRole("searchbox")).toBeFocused();
  await page.keyboard.type("rv?");
  await expect(page.getByRole("searchbox")).toHaveValue("rv?");
});

for (const width of [360, 768, 3840]) {
  test(`nothing is wider than a screen of ${width}`, async ({ page }) => {
    await page.setViewportSize({ width, height: 900 });
    for (const [name, path] of PLACES) {
      await page.goto(path);
      await settled(page);
      const over = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      expect(over, name).toBeLessThanOrEqual(0);
    }
  });
}

test("a chosen look holds after a reload", async ({ page }) => {
  await page.goto("/scripts");
  await page.getByRole("button", { name: "You and the look of the page" }).click();
  await page.getByRole("menuitemradio", { name: "Dark" }).click();
  const dark = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await expect.poll(dark).toBe("rgb(15, 19, 25)");
  await page.reload();
  expect(await dark()).toBe("rgb(15, 19, 25)");
});

test("files with a hash in their name are kept for ever, the page itself is asked for again", async ({ request }) => {
  const page = await request.get("/scripts/shop/pay/runs");
  expect(page.headers()["cache-control"]).toBe("no-cache");
  const tag = page.headers()["etag"] ?? "";
  const again = await request.get("/", { headers: { "If-None-Match": tag } });
  expect(again.status()).toBe(304);
  const [, script] = (await page.text()).match(/src="(\/assets\/[^"]+\.js)"/) ?? [];
  const file = await request.get(script ?? "");
  expect(file.headers()).toMatchObject({ "content-encoding": "br", "content-type": "text/javascript; charset=utf-8" });
  expect(file.headers()["cache-control"]).toContain("immutable");
});

test("versions show what changed, and a regression that is more than chance", async ({ page }) => {
  await page.goto(`${PAY}/versions`);
  await expect(page.getByText("Regression: Version 3 is slower")).toBeVisible();
  await expect(page.getByText("Regression: Version 3 fails more often")).toBeVisible();
  await expect(page.getByText("Fisher's exact test")).toBeVisible();
  const history = page.getByRole("list").filter({ hasText: "argocd-controller" });
  await expect(history.getByRole("listitem")).toHaveCount(3);
});

test.describe("with a right to the objects", () => {
  test("the diff of a version has its source", async ({ page }) => {
    await page.goto(`${PAY}/versions`);
    await page.getByRole("button", { name: "What changed" }).first().click();
    const diff = page.getByRole("region", { name: "Changes of the spec" });
    await expect(diff).toContainText("− ");
    await expect(diff.locator(".diff-removed").first()).toContainText("1.0825");
    await expect(diff.locator(".diff-added").first()).toContainText("0");
  });
});

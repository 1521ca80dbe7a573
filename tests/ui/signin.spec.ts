import { expect, PAY, test } from "./bed";

test.describe("without a session", () => {
  test.use({ user: "" });

  test("a token signs in, and the place is kept", async ({ page, context, expected }) => {
    expected.errors.push(/401/);
    await page.goto(`${PAY}/runs?range=24h`);
    await expect(page.getByRole("heading", { name: "Sign in" })).toBeVisible();
    await page.getByLabel("Token").fill("wrong");
    await page.keyboard.press("Enter");
    await expect(page.getByRole("alert")).toContainText("the token is not valid");
    await page.getByLabel("Token").fill("shop");
    await page.getByRole("button", { name: "Sign in" }).click();
    await expect(page.getByRole("heading", { name: "pay" })).toBeVisible();
    await expect(page.getByRole("button", { name: "Last 24 hours" })).toBeVisible();
    const [cookie] = await context.cookies();
    expect(cookie).toMatchObject({ name: "scriptscope-session", httpOnly: true, sameSite: "Strict" });
    const stored = await page.evaluate(() => JSON.stringify({ ...localStorage, ...sessionStorage }));
    expect(stored).not.toContain("shop");
    await page.reload();
    await expect(page.getByRole("heading", { name: "pay" })).toBeVisible();
  });

  test("signing out ends what can be seen", async ({ page, expected, context }) => {
    expected.errors.push(/401/);
    await page.goto("/scripts");
    await page.getByLabel("Token").fill("shop");
    await page.keyboard.press("Enter");
    await expect(page.getByRole("link", { name: "pay", exact: true })).toBeVisible();
    await page.getByRole("button", { name: "You and the look of the page" }).click();
    await page.getByRole("menuitem", { name: "Sign out" }).click();
    await expect(page.getByRole("heading", { name: "Sign in" })).toBeVisible();
    await expect(page.getByRole("link", { name: "pay", exact: true })).toBeHidden();
    expect(await context.cookies()).toEqual([]);
  });
});

test.describe("rights", () => {
  test.describe("to nothing", () => {
    test.use({ user: "nobody" });

    test("say what is missing", async ({ page, expected }) => {
      expected.errors.push(/403/);
      await page.goto("/scripts");
      await expect(page.getByText("No scripts that you may see")).toBeVisible();
      await page.goto(`${PAY}/runs`);
      await expect(page.getByRole("alert").first()).toContainText("You may not see this");
      await expect(page.getByText("needs get on customscripts/runs").first()).toBeVisible();
    });
  });

  test.describe("to runs alone", () => {
    test.use({ user: "runs-only" });

    test("show runs, and say why there are no logs", async ({ page, expected }) => {
      expected.errors.push(/403/);
      await page.goto(`${PAY}/runs`);
      await expect(page.getByRole("table", { name: "Runs" })).toBeVisible();
      await page.getByRole("link", { name: "Logs" }).click();
      await expect(page.getByText("needs get on customscripts/logs").first()).toBeVisible();
    });
  });
});

import { command, expect, metrics, PAY, print, rest, test } from "./bed";

interface Figures {
  totalRuns: number;
  succeededRuns: number;
  failedRuns: number;
  inProgressRuns: number;
  failureRateBasisPoints: number;
  p90Microseconds: number;
  p99Microseconds: number;
  totalLogs: number;
}

const API = "/namespaces/shop/scripts/pay";
const shown = (micros: number) => (micros < 999_500 ? `${Number((micros / 1e3).toPrecision(3))} ms` : `${(micros / 1e6).toFixed(2)} s`);

/** Runs of shop/pay that have ended so, as the operator's metrics count them. */
function counted(text: string, status: string): number {
  const line = text.split("\n").find((one) => /^scriptscope_runs_total\{.*script="pay"/.test(one) && one.includes(`status="${status}"`));
  return Number(line?.split(" ").at(-1));
}

test("page, REST, command, what the status is written from and the metrics say the same of all time", async ({ page }) => {
  await page.goto(`${PAY}/runs?range=AllTime`);
  const tiles = page.getByLabel("Figures, All time");
  const value = (name: string) => tiles.locator(".tile", { hasText: name }).locator(".tile-value");
  // Other tests have runs come in meanwhile: all are looked at until nothing did.
  await expect(async () => {
    const { figures } = await rest<{ figures: Figures }>("shop", `${API}/figures?preset=AllTime`);
    const { figures: lifetime } = await rest<{ figures: Figures }>("shop", API);
    const { buckets } = await rest<{ buckets: (Figures & { logs: Record<string, number> })[] }>("shop", `${API}/series?preset=AllTime`);
    const { read } = await rest<{ read: { runs: number } }>("shop", `${API}/errors?preset=AllTime`);
    const text = await metrics();
    const stats = await command<{ figures: Figures }>("shop", "stats", "pay", "--from", "2000-01-01T00:00:00Z");
    const whole = await command<{ figures: Figures }>("shop", "stats", "pay");
    const all = await command<{ items: { name: string; figures: Figures }[] }>("shop", "stats");
    const again = await rest<{ figures: Figures }>("shop", `${API}/figures?preset=AllTime`);
    expect(again.figures).toEqual(figures);
    expect(stats.figures).toEqual(figures);
    expect(whole.figures).toEqual(lifetime);
    expect(all.items.find(({ name }) => name === "pay")?.figures).toEqual(lifetime);
    for (const key of ["totalRuns", "succeededRuns", "failedRuns", "inProgressRuns", "failureRateBasisPoints", "totalLogs"] as const) {
      expect(lifetime[key], key).toBe(figures[key]);
    }
    const sum = (key: "succeededRuns" | "failedRuns" | "inProgressRuns") => buckets.reduce((all, bucket) => all + bucket[key], 0);
    expect([sum("succeededRuns"), sum("failedRuns"), sum("inProgressRuns")]).toEqual([
      figures.succeededRuns,
      figures.failedRuns,
      figures.inProgressRuns,
    ]);
    expect(read.runs).toBe(figures.failedRuns);
    expect(counted(text, "Success")).toBe(figures.succeededRuns);
    expect(counted(text, "Failed")).toBe(figures.failedRuns);
    expect(await value("Total Runs").textContent()).toBe(figures.totalRuns.toLocaleString("en"));
    expect(await value("P90").textContent()).toBe(shown(figures.p90Microseconds));
    expect(await value("P99").textContent()).toBe(shown(figures.p99Microseconds));
    expect(await value("Failure Rate").textContent()).toBe(`${(figures.failureRateBasisPoints / 100).toFixed(2)} %`);
    expect(await value("In Progress").textContent()).toBe(String(figures.inProgressRuns));
  }).toPass({ timeout: 25_000 });
});

test("page, REST and command say the same of a day and a filter", async ({ page }) => {
  const filter = { match: "All", conditions: [{ column: "Function", operator: "Equals", values: ["charge", "refund"] }] };
  const asked = `filter=${encodeURIComponent(JSON.stringify(filter))}`;
  // Of a day that is over, so that nothing comes in meanwhile.
  await page.goto(`${PAY}/runs?range=Yesterday&tz=utc&${asked}`);
  const { figures } = await rest<{ figures: Figures }>("shop", `${API}/figures?preset=Yesterday&${asked}`);
  const { items, range } = await rest<{ items: { runId: string }[]; range: { from: string; to: string } }>(
    "shop",
    `${API}/runs?preset=Yesterday&limit=1000&${asked}`,
  );
  expect(figures.totalRuns).toBeGreaterThan(100);
  expect(figures.totalRuns).toBe(items.length);
  const which = ["--from", range.from, "--to", range.to, "--filter", "Function=charge,refund"];
  const stats = await command<{ figures: Figures }>("shop", "stats", "pay", ...which);
  expect(stats.figures).toEqual(figures);
  const runs = await command<{ items: { runId: string }[] }>("shop", "runs", "pay", ...which, "--limit", "1000");
  expect(runs.items.map(({ runId }) => runId)).toEqual(items.map(({ runId }) => runId));
  const tiles = page.getByLabel("Figures, Yesterday");
  const value = (name: string) => tiles.locator(".tile", { hasText: name }).locator(".tile-value");
  await expect(value("Total Runs")).toHaveText(figures.totalRuns.toLocaleString("en"));
  await expect(value("P90")).toHaveText(shown(figures.p90Microseconds));
  await expect(value("Failure Rate")).toHaveText(`${(figures.failureRateBasisPoints / 100).toFixed(2)} %`);
  await expect(page.getByText(`${items.length} runs`, { exact: true })).toBeVisible();
});

test("a run that fails is in every figure soon", async ({ page }) => {
  const source = `figures-${Date.now()}`;
  const ids = [1, 2, 3].map((n) => `${source}-${n}`);
  for (const [n, id] of ids.entries()) {
    const time = new Date().toISOString();
    const error = { reason: "Exception", type: "OSError", message: `no route to host ${n}` };
    const failed = n === 0 ? { status: "Failed", error } : { status: "Success" };
    await print(
      { scriptscope: "run.started", time, run_id: id, version: 3, function: "charge", source, source_type: "Test" },
      { scriptscope: "run.finished", time, run_id: id, duration_us: 12_345, ...failed },
    );
  }
  const filter = JSON.stringify({ match: "All", conditions: [{ column: "Source", operator: "Equals", values: [source] }] });
  await page.goto(`${PAY}/runs?range=24h&filter=${encodeURIComponent(filter)}`);
  const tiles = page.getByLabel("Figures, Last 24 hours");
  const value = (name: string) => tiles.locator(".tile", { hasText: name }).locator(".tile-value");
  await expect(value("Total Runs")).toHaveText("3");
  await expect(value("Failure Rate")).toHaveText("33.33 %");
  await expect(value("P99")).toHaveText("12.3 ms");
  await page.keyboard.press("e");
  await expect(page.getByText("1 error in 1 failed run")).toBeVisible();
  await expect(page.getByRole("listitem").filter({ hasText: "OSError" })).toContainText("no route to host <n>");
});

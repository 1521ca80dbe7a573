/**
 * How fast the dashboard is with many runs and lines of one script. `SIZE` says how many, `LIVE_SECONDS` how long lines are
 * followed. Prints a table with the bars; fails where one is missed at the size that they are meant for.
 */
import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { type Browser, type CDPSession, type Page, test as base } from "@playwright/test";
import { watchPage } from "./bench-page";

const SIZE = Number(process.env["SIZE"] ?? 10_000_000);
/** The size of the bars. */
const FULL = 10_000_000;
const ROUNDS = Number(process.env["ROUNDS"] ?? (SIZE >= FULL ? 8 : 2));
const SCRIPT = "/scripts/bed/measured";
const SCROLL_SECONDS = SIZE >= FULL ? 10 : 3;
const LIVE_SECONDS = Number(process.env["LIVE_SECONDS"] ?? (SIZE >= FULL ? 600 : 10));
const BURST_SECONDS = SIZE >= FULL ? 20 : 4;

const test = base.extend({
  // biome-ignore lint/correctness/noEmptyPattern: fixtures are asked for by name
  baseURL: async ({}, use) => use(process.env["PAGE_URL"]),
});
test.describe.configure({ mode: "default" });

interface Line {
  what: string;
  bar: string;
  value: string;
  missed: boolean;
}
const report: Line[] = [];
const put = (what: string, bar: string, value: string, missed = false) => {
  report.push({ what, bar, value, missed });
  console.log(`  ${what}: ${value}${missed ? ` (bar ${bar}: missed)` : ""}`);
};

function quantile(values: number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
}
const spread = (values: number[]) =>
  `p50 ${quantile(values, 0.5).toFixed(0)} ms, p95 ${quantile(values, 0.95).toFixed(0)} ms (${values.length})`;

async function signIn(page: Page): Promise<void> {
  const answer = await page.request.post("/api/v1/session", { headers: { Authorization: "Bearer reader" } });
  if (answer.status() !== 204) throw new Error(`the sign-in was answered with ${answer.status()}`);
}

/** A page as nobody has seen it: nothing in any cache. */
async function fresh(browser: Browser, watched = true): Promise<Page> {
  const context = await browser.newContext({ baseURL: process.env["PAGE_URL"] ?? "", viewport: { width: 1440, height: 900 } });
  const page = await context.newPage();
  if (watched) await page.addInitScript(watchPage);
  await signIn(page);
  return page;
}

test("first content", async ({ browser }) => {
  for (const tab of ["runs", "logs"]) {
    const times: Record<"cold" | "warm", number[]> = { cold: [], warm: [] };
    for (let n = 0; n < ROUNDS * 3; n++) {
      const page = await fresh(browser);
      for (const kind of ["cold", "warm"] as const) {
        await page.goto(`${SCRIPT}/${tab}`);
        times[kind].push(await page.evaluate(() => window.watch.first));
      }
      await page.context().close();
    }
    for (const kind of ["cold", "warm"] as const) {
      const name = kind === "cold" ? "nothing in the browser's cache" : "visited before";
      put(`first rows of ${tab} painted, ${name}`, "p95 300 ms", spread(times[kind]), quantile(times[kind], 0.95) > 300);
    }
  }
});

interface Change {
  name: string;
  /** A part of the filter that the page asks the API for. */
  part: string;
  /** Whether it begins with a key or a press. */
  byInput: boolean;
  act: (page: Page) => Promise<void>;
}

const filter = (conditions: [string, string, string[]][], match = "All") =>
  JSON.stringify({ match, conditions: conditions.map(([column, operator, values]) => ({ column, operator, values })) });

/** As when a filter is chosen in the form, or a link is followed. */
function goes(name: string, text: string): Change {
  return {
    name,
    part: text.slice(text.indexOf("conditions")),
    byInput: false,
    act: (page) =>
      page.evaluate((filter) => {
        const search = new URLSearchParams(location.search);
        search.delete("q");
        search.set("filter", filter);
        history.pushState({}, "", `${location.pathname}?${search}`);
      }, text),
  };
}

/** A value of a row is pressed; the conditions add up. */
function presses(column: string): Change {
  return {
    name: `press a ${column}`,
    part: `"${column}"`,
    byInput: true,
    act: async (page) => {
      const cells = page.locator(`.grid-body [aria-label$="show only this ${column}"]`);
      await cells.nth(1).click();
    },
  };
}

function searches(text: string): Change {
  return {
    name: `search ${text}`,
    part: JSON.stringify(text),
    byInput: true,
    act: async (page) => {
      await page.getByRole("searchbox").fill(text);
      await page.keyboard.press("Enter");
    },
  };
}

const CHANGES: Record<string, Change[]> = {
  runs: [
    presses("Function"),
    presses("Source"),
    presses("Source Type"),
    goes("Status is Failed", filter([["Status", "Equals", ["Failed"]]])),
    goes("Response Time from 30 s on", filter([["Response Time", "AtLeast", ["30000"]]])),
    goes("Function is rare", filter([["Function", "Equals", ["cleanup"]]])),
    goes("Source contains", filter([["Source", "Contains", ["audit"]]])),
    goes("Version is rare", filter([["Deployment Version", "Equals", ["6"]]])),
    goes("Failed, of some sources", filter([["Status", "Equals", ["Failed"]], ["Source", "Contains", ["service-7", "service-11"]]])),
    goes("Source is not", filter([["Source", "NotEquals", ["billing-service-1"]]])),
    goes("any of two", filter([["Source", "Equals", ["nightly-audit"]], ["Response Time", "AtLeast", ["30000"]]], "Any")),
  ],
  logs: [
    presses("Log Level"),
    searches("customer 123"),
    goes("Log Level is Error", filter([["Log Level", "Equals", ["Error"]]])),
    goes("Log Level is Warning or Error", filter([["Log Level", "Equals", ["Warning", "Error"]]])),
    goes("Message contains", filter([["Log Message", "Contains", ["customer 77 "]]])),
    goes("Message contains, Info", filter([["Log Message", "Contains", ["after 42 ms"]], ["Log Level", "Equals", ["Info"]]])),
    goes("Message is not", filter([["Log Message", "NotEquals", ["x"]]])),
    goes("no such text", filter([["Log Message", "Contains", ["connection refused"]]])),
  ],
};

for (const [tab, changes] of Object.entries(CHANGES)) {
  for (const [range, name] of [["7d", "7 days"], ["AllTime", "all time"]] as const) {
    test(`another filter, ${tab}, ${name}`, async ({ browser }) => {
      const page = await fresh(browser);
      const rows: number[] = [];
      const all: number[] = [];
      const each = new Map<string, number[]>();
      for (let n = 0; n < ROUNDS; n++) {
        await page.goto(`${SCRIPT}/${tab}?range=${range}`);
        await page.evaluate(() => window.watch.first);
        await page.waitForLoadState("networkidle");
        for (const change of changes) {
          const { part, byInput } = change;
          await page.evaluate(([part, byInput]) => window.watch.expect(part, byInput), [part, byInput] as const);
          await change.act(page);
          const took = await page.evaluate(() => window.watch.painted);
          rows.push(took.rows);
          all.push(took.all);
          each.set(change.name, [...(each.get(change.name) ?? []), took.rows]);
        }
      }
      for (const [name, times] of each) console.log(`    ${name}: ${spread(times)}`);
      put(`another filter of ${tab}, ${name}: its rows painted`, "p95 200 ms", spread(rows), quantile(rows, 0.95) > 200);
      put(`the same, with tiles, charts and counts`, "", spread(all));
      await page.context().close();
    });
  }
}

for (const tab of ["runs", "logs"]) {
  test(`scrolling ${tab}`, async ({ browser }) => {
    const page = await fresh(browser);
    await page.goto(`${SCRIPT}/${tab}?range=AllTime`);
    await page.evaluate(() => window.watch.first);
    await page.waitForLoadState("networkidle");
    await page.mouse.move(700, 700);
    const stop = await page.evaluateHandle(() => window.watch.frames());
    const began = Date.now();
    while (Date.now() - began < SCROLL_SECONDS * 1_000) {
      await page.mouse.wheel(0, 60);
      await page.waitForTimeout(16);
    }
    const gaps = await stop.evaluate((stop) => stop());
    const scrolled = await page.evaluate(() => window.scrollY);
    const seconds = gaps.reduce((sum, gap) => sum + gap, 0) / 1_000;
    const late = gaps.filter((gap) => gap > 20).length;
    const rate = gaps.length / seconds;
    const text = `${rate.toFixed(1)} frames/s; ${late} of ${gaps.length} frames late, the longest ${Math.max(...gaps).toFixed(0)} ms; ${(scrolled / seconds).toFixed(0)} px/s`;
    put(`scrolling ${tab}`, "60 frames/s", text, rate < 59.5);
    await page.context().close();
  });
}

/** Bytes of memory that are a process' own. */
function own(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const kilobytes = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1] ?? 0);
  return (kilobytes("RssAnon") + kilobytes("VmSwap")) * 1_024;
}

async function renderers(browser: Browser): Promise<number[]> {
  const session = await browser.newBrowserCDPSession();
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  await session.detach();
  return processInfo.filter((one) => one.type === "renderer").map((one) => one.id);
}

async function heap(session: CDPSession, collect: boolean): Promise<number> {
  if (collect) await session.send("HeapProfiler.collectGarbage");
  return (await session.send("Runtime.getHeapUsage")).usedSize;
}

/** Has the pod print so many lines a second for so long, at an even pace. */
async function prints(rate: number, seconds: number, meanwhile: () => Promise<void>): Promise<void> {
  const began = Date.now();
  let printed = 0;
  let looked = began;
  while (Date.now() - began < seconds * 1_000) {
    const due = Math.floor(((Date.now() - began) / 1_000) * rate) - printed;
    if (due > 0) {
      await fetch(`${process.env["POD_URL"]}/print/${due}`, { method: "POST" });
      printed += due;
    }
    if (Date.now() - looked > 5_000) {
      looked = Date.now();
      await meanwhile();
    }
    await new Promise((done) => setTimeout(done, 100));
  }
}

test("live", async ({ browser }) => {
  const page = await fresh(browser, false);
  await page.goto(`${SCRIPT}/logs?live=on`);
  await page.getByRole("button", { name: "Live" }).waitFor();
  await page.locator(".grid-body .grid-row-data").first().waitFor();
  await page.evaluate(() => {
    const gaps: number[] = [];
    let before: number | null = null;
    const frame = (now: number) => {
      if (before !== null) gaps.push(now - before);
      if (gaps.length > 60_000) gaps.length = 0;
      before = now;
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    Object.assign(window, { gaps });
  });
  const longest = () =>
    page.evaluate(() => {
      const { gaps } = window as unknown as { gaps: number[] };
      return Math.max(0, ...gaps.splice(0));
    });
  const session = await page.context().newCDPSession(page);
  await session.send("HeapProfiler.enable");
  const pids = await renderers(browser);
  const memory = () => Math.max(...pids.map(own));
  const most = { heap: 0, memory: 0, frame: 0 };
  const look = async () => {
    most.heap = Math.max(most.heap, await heap(session, false));
    most.memory = Math.max(most.memory, memory());
    most.frame = Math.max(most.frame, await longest());
  };
  await prints(200, LIVE_SECONDS, look);
  const calm = { ...most };
  most.frame = 0;
  await prints(5_000, BURST_SECONDS, look);
  await look();
  const [left, after] = [await heap(session, true), memory()];
  const mega = (bytes: number) => (bytes / 1e6).toFixed(0);
  const time = `${LIVE_SECONDS} s live at 200 lines/s`;
  put(`JavaScript heap, the most in ${time}`, "150 MB", `${mega(calm.heap)} MB`, calm.heap > 150e6);
  put(`memory of the tab's process, the most in ${time}`, "150 MB", `${mega(calm.memory)} MB`, calm.memory > 150e6);
  put(`longest frame in ${time}`, "", `${calm.frame.toFixed(0)} ms`);
  const burst = `a burst of ${BURST_SECONDS} s at 5,000 lines/s after it`;
  put(`JavaScript heap, with ${burst}`, "150 MB", `${mega(most.heap)} MB, ${mega(left)} MB of it in use`, most.heap > 150e6);
  put(`memory of the tab's process, with ${burst}`, "150 MB", `${mega(most.memory)} MB, ${mega(after)} MB at the end`, most.memory > 150e6);
  put(`longest frame in ${burst}`, "", `${most.frame.toFixed(0)} ms`);
  await page.context().close();
});

test("JavaScript of the first view", async ({ browser }) => {
  const page = await fresh(browser);
  const scripts: Promise<Buffer>[] = [];
  page.on("response", (answer) => {
    if (answer.request().resourceType() === "script") scripts.push(answer.body());
  });
  await page.goto(`${SCRIPT}/runs`);
  await page.evaluate(() => window.watch.first);
  await page.locator(".plot canvas").last().waitFor();
  const bytes = (await Promise.all(scripts)).map((body) => gzipSync(body, { level: 9 }).length);
  const total = bytes.reduce((sum, one) => sum + one, 0);
  put("JavaScript of the first view, with the charts, gzip", "250 kB", `${(total / 1e3).toFixed(1)} kB`, total > 250_000);
  await page.context().close();
});

test.afterAll(() => {
  console.log(`\n| with ${SIZE.toLocaleString("en")} runs and as many lines | bar | measured |\n|---|---:|---:|`);
  for (const { what, bar, value, missed } of report) {
    console.log(`| ${what} | ${bar} | ${value}${missed ? ", **missed**" : ""} |`);
  }
  const missed = report.filter((line) => line.missed);
  if (SIZE >= FULL && missed.length) throw new Error(`missed: ${missed.map((line) => line.what).join("; ")}`);
});

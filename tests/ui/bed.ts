/** What every test stands on: a page that must not complain, a reader, and the REST API to compare with. */
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { test as base, expect, type Page } from "@playwright/test";

const run = promisify(execFile);

export const PAY = "/scripts/shop/pay";

/** Where the server of this project's store listens: the page, or the pod that prints. */
function address(of: "PAGE" | "POD"): string | undefined {
  const store = base.info().project.name === "postgres" ? "POSTGRES_" : "";
  return process.env[`${store}${of}_URL`];
}

const token = (user: string) => ({ Authorization: `Bearer ${user}` });

/** What REST says to the same reader. */
export async function rest<T>(user: string, path: string): Promise<T> {
  const answer = await fetch(`${address("PAGE")}/api/v1${path}`, { headers: token(user) });
  expect(answer.status, path).toBe(200);
  return (await answer.json()) as T;
}

/** What the command says to the same reader, with `-o json`. */
export async function command<T>(user: string, ...verb: string[]): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), "scriptscope-"));
  try {
    const file = join(folder, "token");
    await writeFile(file, user);
    const place = ["--server", address("PAGE") ?? "", "--token-file", file, "--namespace", "shop"];
    const { stdout } = await run(process.env["COMMAND"] ?? "scriptscope", [...verb, ...place, "-o", "json"]);
    return JSON.parse(stdout) as T;
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** The operator's metrics as text. */
export async function metrics(): Promise<string> {
  const answer = await fetch(`${address("POD")}/metrics`);
  return answer.text();
}

/** Has the pod of shop/pay print records. */
export async function print(...records: object[]): Promise<void> {
  const body = records.map((record) => JSON.stringify(record)).join("\n");
  const answer = await fetch(`${address("POD")}/print`, { method: "POST", body });
  expect(answer.status).toBe(204);
}

/** Signs in as the page itself does. */
export async function signIn(page: Page, user: string): Promise<void> {
  const answer = await page.request.post("/api/v1/session", { headers: token(user) });
  expect(answer.status()).toBe(204);
}

/** Errors that a test expects to see on the console. */
export const test = base.extend<{ user: string; expected: { errors: RegExp[] }; quiet: undefined }>({
  user: ["shop", { option: true }],
  // biome-ignore lint/correctness/noEmptyPattern: fixtures are asked for by name
  baseURL: async ({}, use) => use(address("PAGE")),
  // biome-ignore lint/correctness/noEmptyPattern: fixtures are asked for by name
  expected: async ({}, use) => use({ errors: [] }),
  // Nothing on the console, nothing against the policy, nothing from elsewhere.
  quiet: [
    async ({ page, user, expected, baseURL }, use) => {
      const complaints: string[] = [];
      page.on("pageerror", (error) => complaints.push(String(error)));
      page.on("console", (message) => {
        if (message.type() === "error" || message.type() === "warning") complaints.push(message.text());
      });
      page.on("request", (request) => {
        if (!/^(data|blob):/.test(request.url()) && !request.url().startsWith(`${baseURL}/`)) {
          complaints.push(`a request left the page's origin: ${request.url()}`);
        }
      });
      if (user) await signIn(page, user);
      await use(undefined);
      expect(complaints.filter((text) => !expected.errors.some((known) => known.test(text)))).toEqual([]);
    },
    { auto: true },
  ],
});

export { expect };

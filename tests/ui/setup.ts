/** Starts the servers with their data, one a store; they end with this process. */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

const ROOT = new URL("../..", import.meta.url).pathname;

/** Starts the server on a store, and gives what ends it. */
async function serve(store: string, prefix: string): Promise<() => Promise<void>> {
  const server = spawn("cargo", ["test", "--locked", "--quiet", "--test", "ui"], {
    cwd: ROOT,
    env: { ...process.env, SCRIPTSCOPE_UI_TESTS: "serve", SCRIPTSCOPE_UI_STORE: store },
    stdio: ["pipe", "pipe", "inherit"],
  });
  const ended = new Promise<never>((_, reject) => {
    server.on("error", reject);
    server.on("exit", (code) => reject(new Error(`the server for the tests on ${store} ended with ${code}`)));
  });
  ended.catch(() => {});
  const lines = createInterface({ input: server.stdout });
  const says = new Promise<{ page: string; pod: string }>((resolve) => {
    lines.on("line", (line) => {
      if (line.startsWith("{")) resolve(JSON.parse(line));
    });
  });
  const { page, pod } = await Promise.race([says, ended]);
  process.env[`${prefix}PAGE_URL`] = page;
  process.env[`${prefix}POD_URL`] = pod;
  return async () => {
    server.stdin.end();
    await ended.catch(() => {});
  };
}

export default async function setup(): Promise<() => Promise<void>> {
  const wanted = (process.env["SCRIPTSCOPE_UI_STORES"] ?? "sqlite,postgres").split(",");
  const started = await Promise.all(
    wanted.map((store) => serve(store, store === "postgres" ? "POSTGRES_" : "")),
  );
  return async () => {
    await Promise.all(started.map((end) => end()));
  };
}

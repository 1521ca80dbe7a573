/** Starts the server with its data; it ends with this process. */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

const ROOT = new URL("../..", import.meta.url).pathname;

export default async function setup(): Promise<() => Promise<void>> {
  const server = spawn("cargo", ["test", "--locked", "--quiet", "--test", "ui"], {
    cwd: ROOT,
    env: { ...process.env, SCRIPTSCOPE_UI_TESTS: "serve" },
    stdio: ["pipe", "pipe", "inherit"],
  });
  const ended = new Promise<never>((_, reject) => {
    server.on("error", reject);
    server.on("exit", (code) => reject(new Error(`the server for the tests ended with ${code}`)));
  });
  ended.catch(() => {});
  const lines = createInterface({ input: server.stdout });
  const says = new Promise<{ page: string; pod: string }>((resolve) => {
    lines.on("line", (line) => {
      if (line.startsWith("{")) resolve(JSON.parse(line));
    });
  });
  const { page, pod } = await Promise.race([says, ended]);
  process.env["PAGE_URL"] = page;
  process.env["POD_URL"] = pod;
  return async () => {
    server.stdin.end();
    await ended.catch(() => {});
  };
}

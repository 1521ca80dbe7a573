/** Starts a server that says in a line of JSON where it listens, and serves until its standard input ends. */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

const ROOT = new URL("../..", import.meta.url).pathname;

export interface Server {
  /** Address of the page. */
  page: string;
  /** Address of what stands for the pods of scripts. */
  pod: string;
  /** Where the command is. */
  command?: string;
  end: () => Promise<void>;
}

/** Has cargo build and start it. */
export async function serve(
  name: string,
  cargo: string[],
  env: Record<string, string>,
): Promise<Server> {
  const server = spawn("cargo", cargo, {
    cwd: ROOT,
    env: { ...process.env, ...env },
    stdio: ["pipe", "pipe", "inherit"],
  });
  const ended = new Promise<never>((_, reject) => {
    server.on("error", reject);
    server.on("exit", (code) => reject(new Error(`${name} ended with ${code}`)));
  });
  ended.catch(() => {});
  const lines = createInterface({ input: server.stdout });
  const says = new Promise<Omit<Server, "end">>((resolve) => {
    lines.on("line", (line) => {
      if (line.startsWith("{")) resolve(JSON.parse(line));
    });
  });
  const places = await Promise.race([says, ended]);
  return {
    ...places,
    end: async () => {
      server.stdin.end();
      await ended.catch(() => {});
    },
  };
}

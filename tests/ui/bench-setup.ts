/** Starts the server of the benchmark, unless one is named that runs already; its store is filled first. */
import { serve } from "./serve";

export default async function setup(): Promise<(() => Promise<void>) | undefined> {
  if (process.env["PAGE_URL"]) return undefined;
  const size = process.env["SIZE"] ?? "10000000";
  const cargo = (process.env["BENCH_CARGO"] ?? "").split(" ").filter(Boolean);
  const server = await serve("the server of the benchmark", [...cargo, "--bench", "dashboard"], {
    SCRIPTSCOPE_UI_BENCH: size,
  });
  process.env["PAGE_URL"] = server.page;
  process.env["POD_URL"] = server.pod;
  return server.end;
}

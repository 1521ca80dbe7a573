/** Starts the servers with their data, one a store; they end with this process. */
import { serve } from "./serve";

export default async function setup(): Promise<() => Promise<void>> {
  const wanted = (process.env["SCRIPTSCOPE_UI_STORES"] ?? "sqlite,postgres").split(",");
  const servers = await Promise.all(
    wanted.map(async (store) => {
      const server = await serve(
        `the server for the tests on ${store}`,
        ["test", "--locked", "--quiet", "--test", "ui"],
        { SCRIPTSCOPE_UI_TESTS: "serve", SCRIPTSCOPE_UI_STORE: store },
      );
      const prefix = store === "postgres" ? "POSTGRES_" : "";
      process.env[`${prefix}PAGE_URL`] = server.page;
      process.env[`${prefix}POD_URL`] = server.pod;
      process.env["COMMAND"] = server.command;
      return server;
    }),
  );
  return async () => {
    await Promise.all(servers.map((server) => server.end()));
  };
}

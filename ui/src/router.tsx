import type { QueryClient } from "@tanstack/react-query";
import {
  createRootRouteWithContext,
  createRoute,
  createRouter,
  lazyRouteComponent,
  redirect,
} from "@tanstack/react-router";
import { beginLogs, beginRun, beginRuns, beginScript } from "./api/begin";
import { listSearch, parseSearch, stringifySearch, viewSearch } from "./lib/search";
import { NotFound, Root, RouteFailure } from "./routes/root";
import { RunsTab } from "./routes/runs";
import { ScriptLayout } from "./routes/script";
import { ScriptsList } from "./routes/scripts";

const rootRoute = createRootRouteWithContext<{ queryClient: QueryClient }>()({
  component: Root,
  notFoundComponent: NotFound,
});

const homeRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/",
  beforeLoad: () => {
    throw redirect({ to: "/scripts", replace: true });
  },
});

const listRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/scripts",
  validateSearch: listSearch,
  component: ScriptsList,
});

const scriptRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/scripts/$namespace/$name",
  validateSearch: viewSearch,
  loader: ({ context, params }) => beginScript(context.queryClient, params),
  component: ScriptLayout,
});

const scriptHomeRoute = createRoute({
  getParentRoute: () => scriptRoute,
  path: "/",
  beforeLoad: ({ params, search }) => {
    throw redirect({ to: "/scripts/$namespace/$name/runs", params, search, replace: true });
  },
});

const runsRoute = createRoute({
  getParentRoute: () => scriptRoute,
  path: "/runs",
  loaderDeps: ({ search }) => search,
  loader: ({ context, params, deps }) => beginRuns(context.queryClient, params, deps),
  component: RunsTab,
});

const runRoute = createRoute({
  getParentRoute: () => runsRoute,
  path: "/$runId",
  loader: ({ context, params }) => beginRun(context.queryClient, params, params.runId),
  component: lazyRouteComponent(() => import("./routes/record"), "RecordRoute"),
});

const logsRoute = createRoute({
  getParentRoute: () => scriptRoute,
  path: "/logs",
  loaderDeps: ({ search }) => search,
  loader: ({ context, params, deps }) => beginLogs(context.queryClient, params, deps),
  component: lazyRouteComponent(() => import("./routes/logs"), "LogsTab"),
});

const errorsRoute = createRoute({
  getParentRoute: () => scriptRoute,
  path: "/errors",
  component: lazyRouteComponent(() => import("./routes/errors"), "ErrorsTab"),
});

const versionsRoute = createRoute({
  getParentRoute: () => scriptRoute,
  path: "/versions",
  component: lazyRouteComponent(() => import("./routes/versions"), "VersionsTab"),
});

const routeTree = rootRoute.addChildren([
  homeRoute,
  listRoute,
  scriptRoute.addChildren([
    scriptHomeRoute,
    runsRoute.addChildren([runRoute]),
    logsRoute,
    errorsRoute,
    versionsRoute,
  ]),
]);

export function createAppRouter(queryClient: QueryClient) {
  return createRouter({
    routeTree,
    context: { queryClient },
    parseSearch,
    stringifySearch,
    defaultErrorComponent: RouteFailure,
    defaultNotFoundComponent: NotFound,
    defaultPreload: "intent",
    scrollRestoration: false,
  });
}

declare module "@tanstack/react-router" {
  interface Register {
    router: ReturnType<typeof createAppRouter>;
  }
}

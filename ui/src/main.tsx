import { QueryCache, QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { RouterProvider } from "@tanstack/react-router";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { ApiFailure } from "./api/client";
import { meQuery } from "./api/session";
import { createAppRouter } from "./router";
import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/buttons.css";
import "./styles/menus.css";
import "./styles/fields.css";
import "./styles/badges.css";
import "./styles/filters.css";
import "./styles/range.css";
import "./styles/dialogs.css";
import "./styles/states.css";
import "./styles/layout.css";
import "./styles/table.css";
import "./styles/record.css";

const queryClient: QueryClient = new QueryClient({
  queryCache: new QueryCache({
    onError: (error) => {
      // The session has ended: the sign-in takes the page's place, and the place is kept.
      if (error instanceof ApiFailure && error.status === 401)
        queryClient.setQueryData(meQuery.queryKey, null);
    },
  }),
  defaultOptions: {
    queries: {
      retry: (failures, error) => error instanceof ApiFailure && error.status === 0 && failures < 1,
      refetchOnWindowFocus: true,
      staleTime: 2_000,
    },
  },
});

const router = createAppRouter(queryClient);

const root = document.getElementById("root");
if (root) {
  createRoot(root).render(
    <StrictMode>
      <QueryClientProvider client={queryClient}>
        <RouterProvider router={router} />
      </QueryClientProvider>
    </StrictMode>,
  );
}

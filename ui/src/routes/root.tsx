import { useQuery } from "@tanstack/react-query";
import { type ErrorComponentProps, Link, Outlet } from "@tanstack/react-router";
import { meQuery } from "../api/session";
import { Header } from "../components/Header";
import { SignIn } from "../components/SignIn";
import { Empty, Failure, SkeletonRows } from "../components/States";

export function Root() {
  const me = useQuery(meQuery);
  return (
    <>
      <a className="skip" href="#main">
        Skip to the content
      </a>
      <Header me={me.data ?? null} />
      <main id="main" tabIndex={-1}>
        {me.isPending ? (
          <div className="page">
            <SkeletonRows label="Loading" />
          </div>
        ) : me.isError && !me.data ? (
          <div className="page">
            <Failure error={me.error} onRetry={() => void me.refetch()} />
          </div>
        ) : me.data ? (
          <Outlet />
        ) : (
          <SignIn />
        )}
      </main>
    </>
  );
}

export function NotFound() {
  return (
    <div className="page">
      <Empty title="There is nothing at this address">
        <p>
          <Link to="/scripts">To the scripts</Link>
        </p>
      </Empty>
    </div>
  );
}

export function RouteFailure({ error, reset }: ErrorComponentProps) {
  return (
    <div className="page">
      <Failure error={error} onRetry={reset} />
    </div>
  );
}

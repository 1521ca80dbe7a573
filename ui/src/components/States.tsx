import type { ReactNode } from "react";
import { Button } from "react-aria-components";
import { ApiFailure } from "../api/client";
import { Icon } from "./Icon";

/** Nothing there, and what to do about it. */
export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className="state">
      <p className="state-title">{title}</p>
      <div className="state-text">{children}</div>
    </div>
  );
}

const TITLES: Record<string, string> = {
  Forbidden: "You may not see this",
  ScriptNotFound: "There is no such script",
  RunNotFound: "There is no such run",
  TimeLimit: "This takes the store too long",
  StoreUnavailable: "The store can not be read",
  Unreachable: "The operator can not be reached",
};

/** An error, which never looks like nothing. */
export function Failure({ error, onRetry }: { error: unknown; onRetry?: () => void }) {
  const code = error instanceof ApiFailure ? error.code : "";
  const text = error instanceof Error ? error.message : String(error);
  return (
    <div className="state state-bad" role="alert">
      <p className="state-title">
        <Icon name="warning" />
        {TITLES[code] ?? "This could not be shown"}
      </p>
      <div className="state-text">
        <p>{text.charAt(0).toUpperCase() + text.slice(1)}</p>
        {code === "Forbidden" && text.includes("needs get") && (
          <p>
            Ask whoever runs the cluster for <code>get</code> on <code>customscripts/runs</code> and{" "}
            <code>customscripts/logs</code>.
          </p>
        )}
      </div>
      {onRetry && code !== "Forbidden" && (
        <Button className="button" onPress={onRetry}>
          Try again
        </Button>
      )}
    </div>
  );
}

/** What is shown may be old. */
export function Stale({ error }: { error: unknown }) {
  return (
    <p className="stale" role="status">
      <Icon name="warning" />
      What is shown may be out of date: {error instanceof Error ? error.message : String(error)}
    </p>
  );
}

/** The place of rows that are on their way. */
export function SkeletonRows({ rows = 12, label }: { rows?: number; label: string }) {
  return (
    <div className="skeleton-rows" role="status" aria-label={label}>
      {Array.from({ length: rows }, (_, i) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: they are all alike
        <div className="skeleton-row" key={i}>
          <span className="skeleton skeleton-a" />
          <span className="skeleton skeleton-b" />
          <span className="skeleton skeleton-c" />
          <span className="skeleton skeleton-d" />
        </div>
      ))}
    </div>
  );
}

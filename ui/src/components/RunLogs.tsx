import { useInfiniteQuery } from "@tanstack/react-query";
import { Button } from "react-aria-components";
import { runLogsQuery } from "../api/queries";
import { usePlace } from "../routes/script";
import { LevelBadge } from "./Badge";
import { LogMessage } from "./LogMessage";
import { Failure, SkeletonRows } from "./States";
import { Time } from "./Time";

/** The lines of a run in the order they were printed. Who may see runs need not be allowed to see logs. */
export function RunLogs({ runId, isOpen }: { runId: string; isOpen: boolean }) {
  const { script } = usePlace();
  const logs = useInfiniteQuery(runLogsQuery(script, runId, isOpen));
  if (logs.isPending) return <SkeletonRows label="Loading the lines" rows={3} />;
  if (logs.isError && !logs.data) return <Failure error={logs.error} />;
  const lines = logs.data?.pages.flatMap((page) => page.items).reverse() ?? [];
  if (lines.length === 0) {
    return (
      <p className="soft">
        {isOpen ? "Prints appear when the run ends, korelogger's lines at once." : "The run printed nothing."}
      </p>
    );
  }
  return (
    <>
      {logs.hasNextPage && (
        <Button
          className="button"
          isDisabled={logs.isFetchingNextPage}
          onPress={() => void logs.fetchNextPage()}
        >
          Earlier lines
        </Button>
      )}
      <ol className="run-lines">
        {lines.map((line) => (
          <li key={line.logId}>
            <LevelBadge level={line.level} />
            <span className="message">
              <LogMessage message={line.message} />
            </span>
            <Time at={line.timestamp} />
          </li>
        ))}
      </ol>
    </>
  );
}

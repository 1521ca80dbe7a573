import { createColumnHelper } from "@tanstack/react-table";
import type { LogLine, ScriptName } from "../api/types";
import { LevelBadge } from "../components/Badge";
import { Copy } from "../components/Copy";
import { FilterCell } from "../components/FilterCell";
import { Icon } from "../components/Icon";
import { LogMessage } from "../components/LogMessage";
import { RunLink } from "../components/RunLink";
import { Time } from "../components/Time";
import { plainText } from "../lib/ansi";
import type { LogRow } from "../lib/gaps";

const ALL_TIME = { range: "AllTime" };
const column = createColumnHelper<LogRow<LogLine>>();

interface Context {
  search: string;
  script: ScriptName;
  open: ReadonlySet<string>;
  toggle: (id: string) => void;
  onFilter: (column: string, value: string) => void;
}

/** The four columns of log lines. Gaps are rows without cells. */
export function logColumns({ search, script, open, toggle, onFilter }: Context) {
  return [
    column.display({
      id: "id",
      header: "Log ID",
      meta: { className: "cell-id cell-log-id" },
      cell: ({ row: { original: row } }) =>
        row.kind === "line" && <span title={row.line.logId}>{row.line.logId}</span>,
    }),
    column.display({
      id: "level",
      header: "Log Level",
      cell: ({ row: { original: row } }) =>
        row.kind === "line" && (
          <FilterCell column="Log Level" value={row.line.level} onFilter={onFilter}>
            <LevelBadge level={row.line.level} />
          </FilterCell>
        ),
    }),
    column.display({
      id: "message",
      header: "Log Message",
      meta: { className: "cell-message" },
      cell: ({ row: { original: row } }) => {
        if (row.kind !== "line") return null;
        const { line } = row;
        const isOpen = open.has(line.logId);
        return (
          <>
            <button
              type="button"
              className="expand"
              aria-label={isOpen ? "Show less" : "Show the whole line"}
              aria-expanded={isOpen}
              onClick={() => toggle(line.logId)}
            >
              <Icon name={isOpen ? "chevron" : "right"} />
            </button>
            <span className={`message ${isOpen ? "message-open" : ""}`}>
              <LogMessage message={line.message} search={search} />
              {isOpen && <LineDetails line={line} />}
            </span>
            {line.runId && (
              <RunLink
                className="run-link"
                script={script}
                runId={line.runId}
                search={ALL_TIME}
                label={`Run ${line.runId}`}
                title={`Run ${line.runId}`}
              >
                {line.runId.length > 10 ? `…${line.runId.slice(-8)}` : line.runId}
              </RunLink>
            )}
          </>
        );
      },
    }),
    column.display({
      id: "time",
      header: "Timestamp",
      meta: { className: "cell-time" },
      cell: ({ row: { original: row } }) => row.kind === "line" && <Time at={row.line.timestamp} />,
    }),
  ];
}

function LineDetails({ line }: { line: LogLine }) {
  return (
    <span className="line-details">
      <span className="with-copy">
        <span className="soft">Log ID</span> {line.logId} <Copy text={line.logId} label="Copy the log id" />
      </span>
      <span className="with-copy">
        <span className="soft">Message</span> <Copy text={plainText(line.message)} label="Copy the message" />
      </span>
      {line.attributes && <span className="attributes">{JSON.stringify(line.attributes, null, 2)}</span>}
    </span>
  );
}

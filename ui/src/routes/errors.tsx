import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { errorsQuery } from "../api/queries";
import type { ErrorGroup, ErrorGroups } from "../api/types";
import { ErrorBars } from "../components/ErrorBars";
import { FilterBar } from "../components/FilterBar";
import { Icon } from "../components/Icon";
import { Empty, Failure, SkeletonRows, Stale } from "../components/States";
import { Time, useZone } from "../components/Time";
import { count, minuteTime } from "../lib/format";
import { rangeLabel } from "../lib/range";
import { elsewhere, filterOf, rangeOf, withFilter, withText } from "../lib/search";
import { usePlace } from "./script";
import { useRunParams } from "./useRuns";

/** Failed runs by what failed. */
export function ErrorsTab() {
  const { script, search, setSearch } = usePlace();
  const params = useRunParams();
  const errors = useQuery(errorsQuery(script, params));
  const filter = filterOf(search, "runs");
  return (
    <>
      <div className="table-tools">
        <FilterBar
          table="runs"
          filter={filter}
          search={search.q ?? ""}
          onFilter={(next) => setSearch((now) => withFilter(now, next))}
          onSearch={(q) => setSearch((now) => withText(now, q), true)}
        />
        <span className="soft num table-count" role="status">
          {errors.data ? summary(errors.data) : "\u00a0"}
        </span>
      </div>
      {errors.isError && errors.data && <Stale error={errors.error} />}
      {errors.data ? (
        <Groups found={errors.data} narrowed={filter.conditions.length > 0 || Boolean(search.q)} />
      ) : errors.isError ? (
        <Failure error={errors.error} onRetry={() => void errors.refetch()} />
      ) : (
        <SkeletonRows label="Loading the errors" rows={6} />
      )}
    </>
  );
}

const plural = (n: number, word: string) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;

function summary({ items, leftOut, read }: ErrorGroups): string {
  return `${plural(items.length + leftOut, "error")} in ${plural(read.runs, "failed run")}`;
}

function Groups({ found, narrowed }: { found: ErrorGroups; narrowed: boolean }) {
  const { search } = usePlace();
  const zone = useZone();
  if (found.items.length === 0) {
    const label = rangeLabel(rangeOf(search), (time) => minuteTime(time, zone));
    return (
      <Empty title="No run has failed">
        <p>
          None in the range “{label}”{narrowed && " that passes the filters"}.
        </p>
      </Empty>
    );
  }
  return (
    <>
      {found.read.more && found.read.oldest && (
        <p className="stale" role="status">
          <Icon name="info" />
          <span>
            Of many failed runs the newest {count(found.read.runs)} are grouped here, back to{" "}
            <Time at={found.read.oldest} toMinute />. A shorter range or a filter shows older ones.
          </span>
        </p>
      )}
      <ol className="errors" aria-label="Errors">
        {found.items.map((group) => (
          <li key={group.fingerprint} className="error-group">
            <Group group={group} span={found.counts} />
          </li>
        ))}
      </ol>
      {found.leftOut > 0 && (
        <p className="soft list-end">{plural(found.leftOut, "rarer error")} not shown: add a filter</p>
      )}
    </>
  );
}

function Group({ group, span }: { group: ErrorGroup; span: ErrorGroups["counts"] }) {
  const { script, search } = usePlace();
  // The record is opened beside the runs of this error, so that J and K lead through these.
  const these = withFilter(elsewhere(search), {
    match: "All",
    conditions: [{ column: "Run ID", operator: "Equals", values: group.runs }],
  });
  const { frame } = group;
  const newest = group.runs[0] ?? "";
  const all = group.runs.length === group.count;
  return (
    <>
      <div className="error-what">
        <h2 className="error-type">{group.type ?? group.reason}</h2>
        {group.message && <p className="error-text">{group.message}</p>}
        {group.example !== group.message && (
          <p className="error-example soft" title={group.example}>
            {group.example}
          </p>
        )}
        {frame && (
          <p className="soft">
            <code>
              {frame.file}:{frame.line}
            </code>
            {frame.function && (
              <>
                {" in "}
                <code>{frame.function}</code>
              </>
            )}
          </p>
        )}
      </div>
      <ErrorBars counts={group.counts} span={span} />
      <dl className="error-facts">
        <div>
          <dt>Runs</dt>
          <dd className="num error-count">{count(group.count)}</dd>
        </div>
        <div>
          <dt>Since version</dt>
          <dd className="num">v{group.firstVersion}</dd>
        </div>
        <div>
          <dt>First seen</dt>
          <dd>
            <Time at={group.firstSeen} toMinute />
          </dd>
        </div>
        <div>
          <dt>Last seen</dt>
          <dd>
            <Time at={group.lastSeen} toMinute />
          </dd>
        </div>
      </dl>
      <div className="error-links">
        <Link
          className="button"
          to="/scripts/$namespace/$name/runs/$runId"
          params={{ ...script, runId: newest }}
          search={these as never}
        >
          Newest run
        </Link>
        <Link className="button" to="/scripts/$namespace/$name/runs" params={script} search={these as never}>
          {all
            ? group.count === 1
              ? "In the table"
              : `All ${group.count} runs`
            : `Newest ${group.runs.length} runs`}
        </Link>
      </div>
    </>
  );
}

import { queryOptions, useQuery } from "@tanstack/react-query";
import { get, queryString, scriptPath } from "../api/client";
import type { Figures, Page, Run, ScriptName } from "../api/types";
import { count, duration, percent } from "../lib/format";
import { fisher, mannWhitney, pText, SIGNIFICANT } from "../lib/stats";
import { usePlace } from "../routes/script";
import { Choice } from "./Choice";
import { Icon } from "./Icon";
import { Failure, SkeletonRows } from "./States";

/** Response times of each version that the rank test looks at, the latest. */
const SAMPLE = 1_000;

interface VersionSample {
  figures: Figures;
  times: number[];
}

const sampleQuery = (script: ScriptName, version: number) =>
  queryOptions({
    queryKey: ["script", script.namespace, script.name, "sample", version],
    queryFn: async ({ signal }): Promise<VersionSample> => {
      const of = { preset: "AllTime", version: String(version) };
      const [{ figures }, page] = await Promise.all([
        get<{ figures: Figures }>(scriptPath(script, `/figures${queryString(of)}`), signal),
        get<Page<Run>>(
          scriptPath(script, `/runs${queryString({ ...of, status: "Success", limit: String(SAMPLE) })}`),
          signal,
        ),
      ]);
      return { figures, times: page.items.flatMap((run) => run.responseTimeMicros ?? []) };
    },
    staleTime: 30_000,
  });

/** Two versions side by side, and whether what differs is more than chance. */
export function CompareVersions({ versions }: { versions: number[] }) {
  const { script, search, setSearch } = usePlace();
  const [a, b] = chosen(search.compare, versions);
  const before = useQuery(sampleQuery(script, a));
  const after = useQuery(sampleQuery(script, b));
  const error = before.error ?? after.error;
  const choose = (one: number, other: number) =>
    setSearch((now) => ({ ...now, compare: `${one}..${other}` }), true);
  const options = versions.map((version): [string, string] => [String(version), `Version ${version}`]);
  return (
    <section className="compare" aria-labelledby="compare">
      <div className="section-head">
        <h2 id="compare">Compare</h2>
        <Choice
          label="Earlier version"
          value={String(a)}
          options={options}
          onChange={(v) => choose(Number(v), b)}
        />
        <span className="soft">with</span>
        <Choice
          label="Later version"
          value={String(b)}
          options={options}
          onChange={(v) => choose(a, Number(v))}
        />
      </div>
      {error ? (
        <Failure error={error} />
      ) : before.data && after.data ? (
        <Comparison a={a} b={b} before={before.data} after={after.data} />
      ) : (
        <SkeletonRows label="Loading the figures" rows={4} />
      )}
    </section>
  );
}

function chosen(text: string | undefined, versions: number[]): [number, number] {
  const [one, other] = (text ?? "").split("..").map(Number);
  const known = (version: number | undefined): version is number => versions.includes(version ?? 0);
  return [known(one) ? one : (versions[1] ?? 0), known(other) ? other : (versions[0] ?? 0)];
}

interface Sides {
  a: number;
  b: number;
  before: VersionSample;
  after: VersionSample;
}

function Comparison({ a, b, before, after }: Sides) {
  const ended = ({ figures }: VersionSample) => figures.succeededRuns + figures.failedRuns;
  const [f, g] = [before.figures, after.figures];
  const rate = fisher(f.failedRuns, ended(before), g.failedRuns, ended(after));
  const ranks = mannWhitney(before.times, after.times);
  const rows: [string, string, string][] = [
    ["Runs", count(f.totalRuns), count(g.totalRuns)],
    ["Failure Rate", percent(f.failureRateBasisPoints), percent(g.failureRateBasisPoints)],
    ["P50", duration(f.p50Microseconds), duration(g.p50Microseconds)],
    ["P90", duration(f.p90Microseconds), duration(g.p90Microseconds)],
    ["P99", duration(f.p99Microseconds), duration(g.p99Microseconds)],
  ];
  const worse = (g.failureRateBasisPoints ?? 0) > (f.failureRateBasisPoints ?? 0);
  return (
    <>
      <table className="plain-table">
        <thead>
          <tr>
            <th scope="col">Figure</th>
            <th scope="col">Version {a}</th>
            <th scope="col">Version {b}</th>
          </tr>
        </thead>
        <tbody>
          {rows.map(([name, one, other]) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              <td>{one}</td>
              <td>{other}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <ul className="verdicts">
        <Verdict
          p={rate}
          worse={worse}
          words={[
            `Version ${b} fails more often`,
            `Version ${b} fails less often`,
            "No sound difference in failures",
          ]}
          how="Fisher's exact test of all ended runs"
        />
        <Verdict
          p={ranks?.p ?? null}
          worse={(ranks?.slower ?? 0.5) > 0.5}
          words={[
            `Version ${b} is slower`,
            `Version ${b} is faster`,
            "No sound difference in response times",
          ]}
          how={`Mann-Whitney U test of the latest ${count(before.times.length)} and ${count(after.times.length)} successful runs`}
        />
      </ul>
    </>
  );
}

interface VerdictProps {
  p: number | null;
  worse: boolean;
  /** Worse, better, neither. */
  words: [string, string, string];
  how: string;
}

function Verdict({ p, worse, words, how }: VerdictProps) {
  if (p === null) {
    return (
      <li className="verdict">
        <Icon name="info" />
        <span>
          Too few runs to tell <span className="soft">({how})</span>
        </span>
      </li>
    );
  }
  const sure = p < SIGNIFICANT;
  const kind = !sure ? "" : worse ? "verdict-bad" : "verdict-good";
  return (
    <li className={`verdict ${kind}`}>
      <Icon name={!sure ? "info" : worse ? "warning" : "check"} />
      <span>
        <strong>
          {sure && worse ? "Regression: " : ""}
          {sure ? (worse ? words[0] : words[1]) : words[2]}
        </strong>{" "}
        <span className="soft num">
          {how}, {pText(p)}
        </span>
      </span>
    </li>
  );
}

import { Link } from "@tanstack/react-router";
import { lazy, type ReactNode, Suspense, useState } from "react";
import { Button } from "react-aria-components";
import type { RunDetail, RunError } from "../api/types";
import { duration } from "../lib/format";
import { elsewhere, withFilter } from "../lib/search";
import { tookMicros } from "../lib/slowest";
import { usePlace } from "../routes/script";
import { Copy } from "./Copy";
import { Icon } from "./Icon";
import { RunLogs } from "./RunLogs";
import { Time } from "./Time";

const Rerun = lazy(() => import("./Rerun"));
const Editor = lazy(() => import("./json/Editor"));

export function RunBody({ run }: { run: RunDetail }) {
  const { script, search } = usePlace();
  const logs = withFilter(
    { ...elsewhere(search), range: "AllTime" },
    { match: "All", conditions: [{ column: "Run ID", operator: "Equals", values: [run.runId] }] },
  );
  return (
    <>
      <Facts run={run} />
      {run.error && <ErrorBlock error={run.error} />}
      <Payload name="Input" text={run.inputText} absent={absentInput(run)}>
        <RunAgain key={run.runId} run={run} />
      </Payload>
      <Payload name="Output" text={run.outputText} absent={absentOutput(run)} />
      <section aria-labelledby="run-logs">
        <div className="section-head">
          <h3 id="run-logs">Logs</h3>
          <Link to="/scripts/$namespace/$name/logs" params={script} search={logs as never} className="soft">
            In the Logs tab
          </Link>
        </div>
        <RunLogs runId={run.runId} isOpen={run.status === "In Progress"} />
      </section>
    </>
  );
}

function Facts({ run }: { run: RunDetail }) {
  const facts: [string, ReactNode][] = [
    ["Function", <code key="f">{run.function}</code>],
    [
      "Response Time",
      run.responseTimeMicros === null ? null : (
        <span className="num" key="r">
          {duration(run.responseTimeMicros)}{" "}
          <span className="soft">({(run.responseTimeMicros / 1000).toLocaleString("en")} ms)</span>
        </span>
      ),
    ],
    ["Reason", run.reason],
    [
      "Failed after",
      run.status === "Failed" && run.finishedAt !== null && (
        <span className="num" key="a">
          {duration(tookMicros(run))}
        </span>
      ),
    ],
    ["Executed On", <Time at={run.executedOn} key="e" />],
    ["Finished", run.finishedAt && <Time at={run.finishedAt} key="d" />],
    ["Source", run.source],
    ["Source Type", run.sourceType],
    ["Version", `${run.deploymentVersion}`],
    ["Deployment", <code key="i">{run.deploymentId}</code>],
    [
      "Trace",
      run.traceparent && (
        <span className="with-copy" key="t">
          <code>{run.traceparent}</code>
          <Copy text={run.traceparent} label="Copy the trace" />
        </span>
      ),
    ],
  ];
  return (
    <dl className="facts">
      {facts.map(([name, value]) =>
        value ? (
          <div key={name} className={name === "Trace" ? "wide" : undefined}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ) : null,
      )}
    </dl>
  );
}

function ErrorBlock({ error }: { error: RunError }) {
  return (
    <section className="error-block" aria-labelledby="run-error">
      <div className="section-head">
        <h3 id="run-error">Error</h3>
        <Copy text={error.traceback ?? error.message} label="Copy the error" />
      </div>
      <p className="error-message">
        <strong>{error.type ?? error.reason}</strong> {error.message}
      </p>
      {error.traceback && (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls
        <pre tabIndex={0} role="region" aria-label="Stack trace">
          {error.traceback}
        </pre>
      )}
    </section>
  );
}

const TOO_LARGE = (
  <>
    It was larger than <code>capture.maxBytes</code> allows and is left out.
  </>
);

function absentInput(run: RunDetail): ReactNode {
  if (run.inputTruncated) return TOO_LARGE;
  return (
    <>
      It was not captured: <code>capture.input</code> of the script was false, or the caller gave none.
    </>
  );
}

function absentOutput(run: RunDetail): ReactNode {
  if (run.outputTruncated) return TOO_LARGE;
  if (run.status === "In Progress") return "There is none yet: the run goes on.";
  if (run.status === "Failed") return "There is none: the run failed.";
  return (
    <>
      Nothing was returned, or it was not captured (<code>capture.output</code> of the script).
    </>
  );
}

/** Leads to the question whether to call the script again; without the input there is nothing to call it with. */
function RunAgain({ run }: { run: RunDetail }) {
  const [asks, setAsks] = useState(false);
  if (run.inputText === null) return null;
  return (
    <>
      <Button className="button" onPress={() => setAsks(true)}>
        <Icon name="play" />
        Run again…
      </Button>
      <Suspense>{asks && <Rerun run={run} onClose={() => setAsks(false)} />}</Suspense>
    </>
  );
}

interface PayloadProps {
  name: string;
  text: string | null;
  /** Why there is none. */
  absent: ReactNode;
  children?: ReactNode;
}

function Payload({ name, text, absent, children }: PayloadProps) {
  return (
    <section aria-labelledby={`run-${name}`}>
      <div className="section-head">
        <h3 id={`run-${name}`}>{name}</h3>
        {text !== null && <Copy text={text} label={`Copy the ${name.toLowerCase()}`} />}
        {children}
      </div>
      {text === null ? (
        <p className="soft">{absent}</p>
      ) : (
        <Suspense fallback={<pre className="json-plain">{text.slice(0, 4_000)}</pre>}>
          <Editor text={text} label={name} />
        </Suspense>
      )}
    </section>
  );
}

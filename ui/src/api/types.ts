/** What the REST API answers; docs/api.md says what each means. Durations are microseconds, times RFC 3339 in UTC. */

export type RunStatus = "Success" | "Failed" | "In Progress";
export type LogLevel = "Stdout" | "Stderr" | "Info" | "Debug" | "Warning" | "Error";

export interface Figures {
  totalRuns: number;
  succeededRuns: number;
  failedRuns: number;
  inProgressRuns: number;
  failureRateBasisPoints: number | null;
  p50Microseconds: number | null;
  p90Microseconds: number | null;
  p99Microseconds: number | null;
  totalLogs: number;
  lastRunTime: string | null;
}

export interface VersionFigures extends Figures {
  version: number;
}

export interface ScriptSummary {
  namespace: string;
  name: string;
  exists: boolean;
  phase: string | null;
  version: number | null;
  endpoint: string | null;
  figures: Figures;
}

export interface Deployment {
  version: number;
  deploymentId: string;
  state: "Deploying" | "Deployed" | "Failed" | "Replaced" | "Undeployed";
  reason: string | null;
  startedAt: string;
  deployedAt: string | null;
  endedAt: string | null;
}

export interface DeploymentItem extends Deployment {
  changedBy: string | null;
  specKept: boolean;
}

export interface DeploymentDetail extends Deployment {
  changedBy: string | null;
  spec: unknown;
}

export interface ScriptDetail extends ScriptSummary {
  byVersion: VersionFigures[];
  deployments: Deployment[];
}

export interface Run {
  runId: string;
  status: RunStatus;
  reason: string | null;
  deploymentVersion: number;
  deploymentId: string;
  responseTimeMicros: number | null;
  function: string;
  executedOn: string;
  finishedAt: string | null;
  sourceType: string;
  source: string;
  traceparent: string | null;
}

export interface RunError {
  reason: string;
  type?: string;
  message: string;
  traceback?: string;
}

export interface RunDetail extends Run {
  error: RunError | null;
  /** JSON as the script gave it, laid out for reading; none where none was kept. */
  inputText: string | null;
  /** There was one, larger than what is kept. */
  inputTruncated: boolean;
  outputText: string | null;
  outputTruncated: boolean;
}

export interface LogLine {
  logId: string;
  level: LogLevel;
  message: string;
  timestamp: string;
  runId: string | null;
  attributes?: Record<string, unknown>;
}

export interface LogGap {
  time: string;
  pod: string;
  restart: number;
  version: number;
  reason: string;
  bytes: number;
  offset: number;
}

export interface ErrorGroup {
  fingerprint: string;
  reason: string;
  type: string | null;
  /** What its messages have in common. */
  message: string;
  /** The newest message. */
  example: string;
  frame: { file: string; line: number; function: string | null } | null;
  count: number;
  firstSeen: string;
  lastSeen: string;
  firstVersion: number;
  lastVersion: number;
  /** The newest of its runs, the last first. */
  runs: string[];
  counts: number[];
}

export interface ErrorGroups {
  items: ErrorGroup[];
  leftOut: number;
  read: { runs: number; more: boolean; oldest: string | null };
  counts: { from: string | null; to: string | null };
}

export interface Total {
  count: number;
  more: boolean;
}

export interface Page<T> {
  items: T[];
  next: string | null;
  range: { from: string | null; to: string | null };
  gaps?: LogGap[];
  total?: Total;
}

export interface Bucket {
  from: string;
  to: string;
  succeededRuns: number;
  failedRuns: number;
  inProgressRuns: number;
  p50Microseconds: number | null;
  p90Microseconds: number | null;
  p99Microseconds: number | null;
  logs: Partial<Record<LogLevel, number>>;
}

export interface Series {
  buckets: Bucket[];
  step: "Hour" | "Day";
  range: { from: string | null; to: string | null };
}

export interface ScriptName {
  namespace: string;
  name: string;
}

import { Icon, type IconName } from "./Icon";

type Kind = "good" | "bad" | "busy" | "plain" | "info";

/** What a word stands for; colour never says it alone, the shape and the word do as well. */
const KINDS: Record<string, [Kind, IconName | null]> = {
  Success: ["good", "check"],
  Deployed: ["good", "check"],
  Failed: ["bad", "cross"],
  DeploymentFailed: ["bad", "cross"],
  "In Progress": ["busy", "clock"],
  Deploying: ["busy", "clock"],
};

const WORDS: Record<string, string> = {
  DeploymentFailed: "Deployment failed",
  ReadyToDeploy: "Ready to deploy",
};

export function StatusBadge({ status }: { status: string }) {
  const [kind, icon] = KINDS[status] ?? ["plain", null];
  return (
    <span className={`badge badge-${kind}`}>
      {icon && <Icon name={icon} />}
      {WORDS[status] ?? status}
    </span>
  );
}

const LEVELS: Record<string, Kind> = {
  Error: "bad",
  Stderr: "bad",
  Warning: "busy",
  Info: "info",
};

export function LevelBadge({ level }: { level: string }) {
  return (
    <span className={`level level-${LEVELS[level] ?? "plain"} level-is-${level.toLowerCase()}`}>{level}</span>
  );
}

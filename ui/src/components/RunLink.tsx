import { useQueryClient } from "@tanstack/react-query";
import { useRouter } from "@tanstack/react-router";
import type { MouseEvent, ReactNode } from "react";
import { beginRun } from "../api/begin";
import type { ScriptName } from "../api/types";
import { stringifySearch, type ViewSearch } from "../lib/search";

interface Props {
  script: ScriptName;
  runId: string;
  search: ViewSearch;
  className?: string;
  label?: string;
  title?: string;
  children: ReactNode;
}

/** Whether the browser is not to open it elsewhere. */
const isPlain = (event: MouseEvent) =>
  event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;

/** Leads to a run; it is asked for as soon as the pointer is there. Light, as rows are many. */
export function RunLink({ script, runId, search, className, label, title, children }: Props) {
  const router = useRouter();
  const client = useQueryClient();
  const [namespace, name, run] = [script.namespace, script.name, runId].map(encodeURIComponent);
  const href = `/scripts/${namespace}/${name}/runs/${run}${stringifySearch(search)}`;
  return (
    <a
      href={href}
      className={className}
      aria-label={label}
      title={title}
      onPointerEnter={() => beginRun(client, script, runId)}
      onClick={(event) => {
        if (!isPlain(event)) return;
        event.preventDefault();
        router.history.push(href);
      }}
    >
      {children}
    </a>
  );
}

import { useEffect, useState } from "react";
import { Button } from "react-aria-components";
import { ask, queryString, scriptPath } from "../api/client";
import { type ExportFormat, fileName } from "../lib/exportFormat";
import type { Table } from "../lib/filters";
import { bytes } from "../lib/format";
import { usePlace } from "../routes/script";
import { Icon } from "./Icon";

/** Bytes that a download here may have; larger files are for a ScriptExport. */
const MOST = 512 * 1024 * 1024;

type State =
  | { kind: "running"; bytes: number }
  | { kind: "done"; bytes: number }
  | { kind: "failed"; why: string };

interface Props {
  table: Table;
  params: Record<string, string>;
  format: ExportFormat;
  onClose: () => void;
}

/** Reads a file piece by piece, so that its progress shows and it can be cancelled. */
async function read(path: string, signal: AbortSignal, onProgress: (bytes: number) => void): Promise<Blob> {
  const answer = await ask(path, { signal });
  const reader = answer.body?.getReader();
  const parts: BlobPart[] = [];
  let size = 0;
  for (;;) {
    const part = await reader?.read();
    if (!part || part.done) break;
    parts.push(part.value);
    size += part.value.length;
    if (size > MOST) throw new Error("This file is too large for a browser: save it as a ScriptExport.");
    onProgress(size);
  }
  return new Blob(parts, { type: answer.headers.get("Content-Type") ?? "" });
}

function save(blob: Blob, name: string): void {
  const url = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

export default function Download({ table, params, format, onClose }: Props) {
  const { script } = usePlace();
  const [state, setState] = useState<State>({ kind: "running", bytes: 0 });
  const name = fileName(script.name, table, format);
  // The query as it was when the download was asked for.
  const [path] = useState(() =>
    scriptPath(script, `/${table}.${format.route}${queryString({ ...params, ...format.query })}`),
  );
  useEffect(() => {
    const stop = new AbortController();
    read(path, stop.signal, (size) => setState({ kind: "running", bytes: size }))
      .then((blob) => {
        save(blob, name);
        setState({ kind: "done", bytes: blob.size });
      })
      .catch((error: unknown) => {
        if (stop.signal.aborted) return;
        const why = error instanceof Error ? error.message : String(error);
        setState({ kind: "failed", why });
      });
    return () => stop.abort();
  }, [path, name]);
  return (
    <div className={`toast ${state.kind === "failed" ? "toast-bad" : ""}`} role="status">
      {state.kind === "running" && (
        <>
          <progress aria-label={`Downloading ${name}`} />
          <span>
            {name} <span className="num soft">{bytes(state.bytes)}</span>
          </span>
          <Button className="button" onPress={onClose}>
            Cancel
          </Button>
        </>
      )}
      {state.kind === "done" && (
        <>
          <Icon name="check" />
          <span>
            {name} was downloaded, <span className="num">{bytes(state.bytes)}</span>
          </span>
        </>
      )}
      {state.kind === "failed" && (
        <>
          <Icon name="warning" />
          <span>
            {name} was not downloaded: {state.why}
          </span>
        </>
      )}
      {state.kind !== "running" && (
        <Button className="button-quiet" aria-label="Close" onPress={onClose}>
          <Icon name="cross" />
        </Button>
      )}
    </div>
  );
}

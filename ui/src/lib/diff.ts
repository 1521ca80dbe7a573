/** What changed between two texts, line by line. Pure. */

export interface DiffLine {
  kind: "same" | "added" | "removed";
  text: string;
}

/** Lines of each text that are compared; longer texts are shown as replaced. */
const MOST = 4_000;

/** The longest common subsequence of lines decides what stayed. */
export function diffLines(before: string, after: string): DiffLine[] {
  const a = before.split("\n");
  const b = after.split("\n");
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end])
    end++;
  const same = (lines: string[]): DiffLine[] => lines.map((text) => ({ kind: "same", text }));
  const middle = changed(a.slice(start, a.length - end), b.slice(start, b.length - end));
  return [...same(a.slice(0, start)), ...middle, ...same(a.slice(a.length - end))];
}

function changed(a: string[], b: string[]): DiffLine[] {
  const removed = (text: string): DiffLine => ({ kind: "removed", text });
  const added = (text: string): DiffLine => ({ kind: "added", text });
  if (a.length * b.length > MOST * MOST) return [...a.map(removed), ...b.map(added)];
  const width = b.length + 1;
  const lengths = new Uint32Array((a.length + 1) * width);
  const at = (i: number, k: number) => lengths[i * width + k] ?? 0;
  for (let i = a.length - 1; i >= 0; i--) {
    for (let k = b.length - 1; k >= 0; k--) {
      lengths[i * width + k] = a[i] === b[k] ? at(i + 1, k + 1) + 1 : Math.max(at(i + 1, k), at(i, k + 1));
    }
  }
  const lines: DiffLine[] = [];
  let [i, k] = [0, 0];
  while (i < a.length && k < b.length) {
    if (a[i] === b[k]) {
      lines.push({ kind: "same", text: a[i] ?? "" });
      i++;
      k++;
    } else if (at(i + 1, k) >= at(i, k + 1)) lines.push(removed(a[i++] ?? ""));
    else lines.push(added(b[k++] ?? ""));
  }
  return [...lines, ...a.slice(i).map(removed), ...b.slice(k).map(added)];
}

/** A spec as people write it: one line a value, texts of many lines as they are. */
export function specText(value: unknown, indent = ""): string {
  if (Array.isArray(value)) {
    if (value.length === 0) return "[]";
    return value.map((one) => `\n${indent}- ${specText(one, `${indent}  `).trimStart()}`).join("");
  }
  if (typeof value === "object" && value !== null) {
    const entries = Object.entries(value).filter(([, one]) => one !== null);
    if (entries.length === 0) return "{}";
    return entries.map(([key, one]) => `\n${indent}${key}:${space(specText(one, `${indent}  `))}`).join("");
  }
  if (typeof value === "string" && value.includes("\n")) {
    const lines = value.replace(/\n$/, "").split("\n");
    return ["|", ...lines.map((line) => `${indent}${line}`)].join("\n");
  }
  return String(value);
}

const space = (text: string) => (text.startsWith("\n") ? text : ` ${text}`);

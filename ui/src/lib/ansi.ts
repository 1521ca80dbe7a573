/** A log message as pieces: its ANSI colours, and what a search found. */
import Anser from "anser";

export interface Piece {
  text: string;
  /** Class names of its colours and style. */
  style: string;
  found: boolean;
}

/** Escape sequences that are no colours (cursor movements, titles), and control characters that show nothing. */
const NOISE = new RegExp(
  [
    String.raw`\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)`,
    String.raw`\u001b\[[0-9;?]*[A-LN-Za-ln-z]`,
    String.raw`[\u0000-\u0008\u000b-\u001a\u001c-\u001f\u007f]`,
  ].join("|"),
  "g",
);
// biome-ignore lint/suspicious/noControlCharactersInRegex: it is what is looked for
const COLOUR = /\u001b\[[0-9;]*m/g;

/** The message as it is read: without any escape sequence. */
export function plainText(message: string): string {
  return message.replace(NOISE, "").replace(COLOUR, "");
}

function coloured(message: string): Omit<Piece, "found">[] {
  if (!message.includes("\u001b")) return [{ text: message, style: "" }];
  return Anser.ansiToJson(message, { use_classes: true, remove_empty: true }).map((part) => {
    const names = [part.fg, part.bg && `${part.bg}-bg`, ...(part.decorations ?? [])];
    const known = names.filter((name): name is string =>
      /^ansi-[a-z-]+$|^(bold|dim|italic|underline)$/.test(name ?? ""),
    );
    return { text: part.content, style: known.join(" ") };
  });
}

/** Pieces of a message; every occurrence of `search`, upper and lower case alike, is a piece of its own. */
export function pieces(message: string, search: string): Piece[] {
  const parts = coloured(message.replace(NOISE, ""));
  if (!search) return parts.map((part) => ({ ...part, found: false }));
  const whole = parts.map((part) => part.text).join("");
  const hits = occurrences(whole, search);
  const result: Piece[] = [];
  let begin = 0;
  for (const part of parts) {
    const end = begin + part.text.length;
    let at = begin;
    for (const [from, to] of hits) {
      if (to <= at || from >= end) continue;
      if (from > at) result.push({ ...part, text: whole.slice(at, from), found: false });
      const until = Math.min(to, end);
      result.push({ ...part, text: whole.slice(Math.max(from, at), until), found: true });
      at = until;
    }
    if (at < end) result.push({ ...part, text: whole.slice(at, end), found: false });
    begin = end;
  }
  return result;
}

function occurrences(text: string, search: string): [number, number][] {
  const found: [number, number][] = [];
  const pattern = new RegExp(search.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "giu");
  for (const match of text.matchAll(pattern)) found.push([match.index, match.index + match[0].length]);
  return found;
}

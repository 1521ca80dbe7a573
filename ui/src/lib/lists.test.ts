import { describe, expect, test } from "vitest";
import { eventParser } from "../api/stream";
import type { LogGap } from "../api/types";
import { diffLines, specText } from "./diff";
import { formatOf } from "./exportFormat";
import { exportYaml } from "./exportYaml";
import { duration, exactTime, percent } from "./format";
import { compareTimes, withGaps } from "./gaps";
import { payloadText } from "./json";
import { LineBuffer } from "./lineBuffer";
import { joinNewest } from "./newest";
import { parseRange } from "./range";
import { parseSearch, stringifySearch, viewSearch } from "./search";
import { slowest, tookMicros } from "./slowest";

const id = (text: string) => text;

describe("new rows", () => {
  test("come in front, each once, and change what is shown already", () => {
    const row = (name: string, state: string) => ({ name, state });
    const joined = joinNewest(
      [row("c", "new"), row("b", "ended")],
      [row("b", "open"), row("a", "ended")],
      (one) => one.name,
      false,
    );
    expect(joined.rows).toEqual([row("c", "new"), row("b", "ended"), row("a", "ended")]);
    expect(joined).toMatchObject({ fresh: 1, complete: true });
  });

  test("that do not reach what is shown are no whole list", () => {
    expect(joinNewest(["d", "c"], ["a"], id, false).complete).toBe(false);
    expect(joinNewest(["b", "a"], ["a"], id, false).complete).toBe(true);
    expect(joinNewest(["d"], [], id, true).complete).toBe(true);
  });
});

describe("the slowest runs", () => {
  const run = (id: string, responseTimeMicros: number | null, finishedAt: string | null) => ({
    id,
    responseTimeMicros,
    executedOn: "2026-11-22T10:00:00Z",
    finishedAt,
  });
  test("are those that took longest, failed or not; one that goes on took nothing yet", () => {
    const runs = [
      run("ok", 1_500_000, "2026-11-22T10:00:01.5Z"),
      run("open", null, null),
      run("failed", null, "2026-11-22T10:00:30Z"),
      run("quick", 900, "2026-11-22T10:00:00.0009Z"),
    ];
    expect(slowest(runs, 2).map((one) => one.id)).toEqual(["failed", "ok"]);
    expect(slowest(runs, 9)).toHaveLength(3);
    expect(runs.map(tookMicros)).toEqual([1_500_000, null, 30_000_000, 900]);
  });
});

describe("a buffer of lines", () => {
  test("keeps the newest, each once", () => {
    const buffer = new LineBuffer<{ logId: string }>(3);
    buffer.push([{ logId: "a" }, { logId: "b" }, { logId: "b" }]);
    buffer.push([{ logId: "b" }, { logId: "c" }, { logId: "d" }]);
    expect(buffer.newestFirst().map((line) => line.logId)).toEqual(["d", "c", "b"]);
    expect(buffer.dropped).toBe(1);
  });
});

describe("gaps", () => {
  test("stand where the lines would be", () => {
    const gap = (time: string) => ({ time, pod: "p", restart: 0, offset: 1 }) as LogGap;
    const line = (timestamp: string) => ({ timestamp });
    const rows = withGaps(
      [line("2026-01-01T00:00:03Z"), line("2026-01-01T00:00:01Z")],
      [gap("2026-01-01T00:00:00Z"), gap("2026-01-01T00:00:02.5Z")],
    );
    expect(rows.map((row) => row.kind)).toEqual(["line", "gap", "line", "gap"]);
  });

  test("are ordered by times whose fractions differ in length", () => {
    expect(compareTimes("2026-01-01T00:00:01.5Z", "2026-01-01T00:00:01.25Z")).toBe(1);
    expect(compareTimes("2026-01-01T00:00:01Z", "2026-01-01T00:00:01.000Z")).toBe(0);
  });
});

describe("server-sent events", () => {
  test("are read however they are cut", () => {
    const text = ': hello\n\nevent: lines\nid: 7\ndata: {"items":[]}\n\nevent: error\ndata: {}\n\n';
    for (const size of [1, 3, text.length]) {
      const parse = eventParser();
      const events = [];
      for (let at = 0; at < text.length; at += size) events.push(...parse(text.slice(at, at + size)));
      expect(events).toEqual([
        { name: "lines", id: "7", data: '{"items":[]}' },
        { name: "error", id: undefined, data: "{}" },
      ]);
    }
  });
});

describe("the URL", () => {
  test("says what is shown, and nothing else", () => {
    const search = viewSearch(parseSearch("?range=24h&tz=utc&q=a+b&x=1&live=maybe"));
    expect(search).toEqual({ range: "24h", tz: "utc", q: "a b" });
    expect(parseSearch(stringifySearch(search))).toEqual(search);
  });
});

describe("figures", () => {
  test("are short and say their unit", () => {
    expect([null, 0, 999, 1_000, 12_345, 999_499, 999_600, 1_240_000, 61_000_000].map(duration)).toEqual([
      "–",
      "0 µs",
      "999 µs",
      "1 ms",
      "12.3 ms",
      "999 ms",
      "1.00 s",
      "1.24 s",
      "1 min 1 s",
    ]);
    expect([null, 0, 3333, 10_000].map(percent)).toEqual(["–", "0.00 %", "33.33 %", "100.00 %"]);
    expect(exactTime("2026-11-23T06:39:12.123456Z", "utc")).toBe("2026-11-23 06:39:12.123");
  });
});

describe("payloads", () => {
  test("are laid out, and nothing is none", () => {
    expect(payloadText('{"input":{"a":[1]},"output":null}', "input")).toBe('{\n  "a": [\n    1\n  ]\n}');
    expect(payloadText('{"output":null}', "output")).toBeNull();
    expect(payloadText("{}", "output")).toBeNull();
  });
});

describe("a diff", () => {
  test("names lines that came and went", () => {
    const lines = diffLines("a\nb\nc", "a\nx\nc\nd").map((line) => `${line.kind[0]}${line.text}`);
    expect(lines).toEqual(["sa", "rb", "ax", "sc", "ad"]);
    expect(diffLines("a", "a")).toEqual([{ kind: "same", text: "a" }]);
  });

  test("shows source as it was written", () => {
    expect(
      specText({ env: [{ name: "A", value: "1" }], source: { "main.py": "x = 1\ny = 2\n" } }).trimStart(),
    ).toBe("env:\n  - name: A\n    value: 1\nsource:\n  main.py: |\n    x = 1\n    y = 2");
  });
});

describe("a ScriptExport", () => {
  test("asks for what the page shows, and quotes what could be anything", () => {
    const yaml = exportYaml(
      {
        script: { namespace: "shop", name: "pay" },
        table: "runs",
        range: parseRange("24h"),
        zone: "local",
        filter: {
          match: "All",
          conditions: [{ column: "Source", operator: "Equals", values: ['a"b: #c', "yes"] }],
        },
        search: "x",
        format: formatOf("csv-gzip"),
      },
      new Date(),
    );
    expect(yaml).toContain("  range:\n    last: 24h\n  match: All\n");
    expect(yaml.endsWith("\n  compression: Gzip\n")).toBe(true);
    expect(yaml).toContain(
      '      values: ["a\\"b: #c", "yes"]\n    - column: Run ID\n      operator: Contains\n',
    );
  });
});

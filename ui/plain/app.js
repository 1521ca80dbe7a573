// The plain page: hash routes, fetch, textContent. Data never becomes markup.
"use strict";

const KEY = "scriptscope.token";
const EVERY = 5000;
const RANGES = [["last=24h", "Last 24 hours"], ["last=7d", "Last 7 days"], ["last=30d", "Last 30 days"], ["preset=AllTime", "All time"]];
const LEVELS = ["", "Stdout", "Stderr", "Info", "Debug", "Warning", "Error"];
const STATUSES = ["", "Success", "Failed", "In Progress"];
const $ = (id) => document.getElementById(id);
// What is chosen; pages holds the cursors of the pages before the shown one.
let view = { range: RANGES[1][0], tab: "runs", narrow: "", cursor: null, pages: [] };
let timer = 0;
let turn = 0;
// When a list was opened; it must not close under the hand.
let opened = 0;

// An element: el("td", {class: "n"}, "text", child...). Strings become text nodes.
function el(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value != null) node.setAttribute(key, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child != null));
  return node;
}

class Failure extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

async function ask(path) {
  const token = sessionStorage.getItem(KEY);
  let answer;
  try {
    answer = await fetch(path, token ? { headers: { Authorization: "Bearer " + token } } : {});
  } catch {
    throw new Failure(0, "Unreachable", "The operator can not be reached. Trying again every few seconds.");
  }
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => null);
  const error = (body && body.error) || {};
  throw new Failure(answer.status, error.code, error.message || "The operator answered " + answer.status + ".");
}

const get = async (path) => (await ask("/api/v1" + path)).json();

// --- figures and times for people

function duration(micros) {
  if (micros == null) return "–";
  if (micros < 1e3) return micros + " µs";
  if (micros < 1e6) return (micros / 1e3).toPrecision(3).replace(/\.?0+$/, (zeros) => (zeros[0] === "." ? "" : zeros)) + " ms";
  if (micros < 6e7) return (micros / 1e6).toFixed(2) + " s";
  return Math.floor(micros / 6e7) + " min " + Math.round((micros % 6e7) / 1e6) + " s";
}
const milliseconds = (micros) => (micros == null ? "" : String(micros / 1e3) + " ms");
const percent = (points) => (points == null ? "–" : (points / 100).toFixed(2) + " %");
const count = (n) => Number(n || 0).toLocaleString("en");
const time = (text) => (text ? el("time", { datetime: text, title: text }, text.replace("T", " ").replace(/(\.\d{3})\d*Z|Z$/, "$1") + " UTC") : "–");
const KINDS = { Success: "good", Deployed: "good", Failed: "bad", Error: "bad", Stderr: "bad", DeploymentFailed: "bad", "In Progress": "busy", Deploying: "busy", Warning: "busy" };
const badge = (text) => el("span", { class: "badge " + (KINDS[text] || "") }, text);
// Numbers as the script wrote them (1.0, large integers), where the browser can.
const exact = (key, value, context) => (typeof value === "number" && context && context.source && JSON.rawJSON ? JSON.rawJSON(context.source) : value);

// --- pieces

function table(caption, columns, rows) {
  const head = columns.map(([name, kind]) => el("th", { scope: "col", class: kind }, name));
  const body = rows.map((cells) => cells instanceof Node ? cells : el("tr", {}, cells.map((cell, i) => el("td", { class: columns[i][1] }, cell == null ? "" : cell))));
  return el("div", { class: "wide", id: "rows", role: "region", tabindex: "0", "aria-label": caption },
    el("table", {}, el("caption", {}, caption), el("thead", {}, el("tr", {}, head)), el("tbody", {}, body)));
}

const empty = (title, ...help) => el("div", { class: "empty" }, el("strong", {}, title), ...help);
const tiles = (pairs) => el("dl", { class: "tiles" }, pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));

function choice(id, label, options, chosen, change) {
  const hold = () => { opened = Date.now(); };
  return el("select", { id, "aria-label": label, onpointerdown: hold, onkeydown: hold, onchange: (event) => { opened = 0; change(event.target.value); } },
    options.map(([value, text]) => el("option", { value, selected: value === chosen }, text)));
}

function runTable(caption, base, items) {
  return table(caption,
    [["Run ID", "id"], ["Status"], ["Deployment Version", "n"], ["Response Time", "n"], ["Function"], ["Executed On"], ["Source Type"], ["Source"]],
    items.map((run) => [
      el("a", { id: "run-" + run.runId, href: base + "/runs/" + encodeURIComponent(run.runId) }, run.runId),
      badge(run.status), String(run.deploymentVersion), milliseconds(run.responseTimeMicros),
      run.function, time(run.executedOn), run.sourceType, run.source,
    ]));
}

// Why lines are missing, for people; newer reasons are shown as they are.
const GAPS = {
  PodEndedUnread: "the pod ended before its log was read to the end",
  FileRotatedAway: "a log file was removed before it was read",
  FileTruncated: "a log file was cut short",
  WrittenAfterRotation: "a log file was written to after the next one was begun",
  Unreadable: "a log file is damaged",
};
const gapRow = (gap) => el("tr", { class: "gap" }, el("td", { colspan: "3" }, "Lines are missing here: ", GAPS[gap.reason] || gap.reason,
  " (pod ", gap.pod, ", version ", String(gap.version), gap.bytes ? ", at least " + count(gap.bytes) + " bytes)" : ")"), el("td", {}, time(gap.time)));

function logTable(caption, items, gaps) {
  const rows = items.map((line) => [line.timestamp, [line.logId, badge(line.level), line.message, time(line.timestamp)]]);
  const all = [...rows, ...(gaps || []).map((gap) => [gap.time, gapRow(gap)])];
  // Stable: of one moment, the gap comes after its lines. Fractions may differ in length.
  if (gaps && gaps.length) all.sort(([a], [b]) => compareTimes(b, a));
  return table(caption, [["Log ID", "id"], ["Log Level"], ["Log Message", "text"], ["Timestamp"]], all.map(([, row]) => row));
}

function compareTimes(a, b) {
  const pad = (text) => text.replace(/(?:\.(\d*))?Z$/, (_, digits) => "." + (digits || "").padEnd(9, "0"));
  return pad(a) < pad(b) ? -1 : pad(a) > pad(b) ? 1 : 0;
}

function pager(page) {
  const go = (change) => () => { change(); refresh(true); };
  return el("nav", { class: "pages", "aria-label": "Pages" },
    el("button", { type: "button", id: "first", disabled: !view.pages.length, onclick: go(() => { view.cursor = null; view.pages = []; }) }, "First page"),
    el("button", { type: "button", id: "prev", disabled: !view.pages.length, onclick: go(() => { view.cursor = view.pages.pop(); }) }, "Previous page"),
    el("button", { type: "button", id: "next", disabled: !page.next, onclick: go(() => { view.pages.push(view.cursor); view.cursor = page.next; }) }, "Next page"),
    el("span", { class: "note" }, "Page " + (view.pages.length + 1) + (view.cursor ? "" : ", newest first, refreshed every 5 s")));
}

// A file needs the token too, so a plain link would not do.
async function download(path, name) {
  try {
    const url = URL.createObjectURL(await (await ask("/api/v1" + path)).blob());
    el("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  } catch (error) {
    trouble(error.message || "The download was broken off. Try again.");
  }
}

// --- views: each gives the nodes of main

function signIn(message) {
  const input = el("input", { id: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true, "aria-describedby": "how" });
  const submit = (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, input.value.trim());
    refresh(true);
  };
  show([], [el("form", { class: "sign", onsubmit: submit },
    el("h1", {}, "Sign in"),
    el("p", { class: "note", id: "how" }, "Sign in with a Kubernetes token. You see the scripts whose runs and logs you may read. A token of a service account: ",
      el("code", {}, "kubectl create token NAME -n NAMESPACE")),
    el("label", { for: "token" }, "Token"), input,
    el("button", { class: "main" }, "Sign in"))]);
  trouble(message);
  $("out").hidden = true;
  $("who").textContent = "";
  input.focus();
}

async function scriptsView() {
  const { items } = await get("/scripts");
  const head = el("div", { class: "head" }, el("h1", {}, "Scripts"));
  if (!items.length) {
    return [[], [head, empty("No scripts that you may see",
      el("p", {}, "Create a CustomScript and it appears here. If there are some, ask for the right to get customscripts/runs and customscripts/logs in their namespace."))]];
  }
  return [[], [head, table(count(items.length) + (items.length === 1 ? " script" : " scripts") + ", figures over their whole life",
    [["Script"], ["Namespace"], ["Phase"], ["Version", "n"], ["Runs", "n"], ["In Progress", "n"], ["Failure Rate", "n"], ["P90", "n"], ["P99", "n"], ["Logs", "n"], ["Last Run"]],
    items.map((s) => [
      el("a", { id: "script-" + s.namespace + "-" + s.name, href: "#/" + s.namespace + "/" + s.name }, s.name), s.namespace,
      badge(s.exists ? s.phase || "Draft" : "Deleted"), s.version == null ? "–" : String(s.version),
      count(s.figures.totalRuns), count(s.figures.inProgressRuns), percent(s.figures.failureRateBasisPoints),
      duration(s.figures.p90Microseconds), duration(s.figures.p99Microseconds), count(s.figures.totalLogs), time(s.figures.lastRunTime),
    ]))]];
}

async function scriptView(namespace, name) {
  const path = "/namespaces/" + namespace + "/scripts/" + name;
  const runs = view.tab === "runs";
  const narrow = view.narrow ? (runs ? "&status=" : "&level=") + encodeURIComponent(view.narrow) : "";
  const query = "?" + view.range + narrow;
  const page = view.cursor ? "&cursor=" + encodeURIComponent(view.cursor) : "";
  const [script, window, rows] = await Promise.all([
    get(path), get(path + "/figures?" + view.range),
    // Who may see one table need not be allowed to see the other.
    get(path + "/" + view.tab + query + page).catch((error) => { if (error.status === 401) throw error; return error; })]);
  const f = window.figures;
  const rangeName = RANGES.find(([value]) => value === view.range)[1];
  const choose = (change) => (value) => { change(value); view.cursor = null; view.pages = []; refresh(true); };
  const file = name + "_" + view.tab + "_data.csv";
  const tab = (id, text) => el("button", { type: "button", id: "tab-" + id, "aria-pressed": String(view.tab === id), onclick: () => choose(() => { view.tab = id; view.narrow = ""; })() }, text);
  const base = "#/" + namespace + "/" + name;
  const caption = (runs ? "Runs, " : "Log lines, ") + rangeName.toLowerCase() + (view.narrow ? ", only " + view.narrow : "");
  const nothing = view.narrow || view.range !== "preset=AllTime"
    ? empty("No " + (runs ? "runs" : "log lines") + " here", el("p", {}, "None in this range" + (view.narrow ? " with " + view.narrow : "") + ". Choose a longer range or All."))
    : empty("No " + (runs ? "runs" : "log lines") + " yet", el("p", {}, "Call a function of the script; it appears here within seconds.", script.endpoint ? [" The script listens at ", el("code", {}, script.endpoint)] : null));
  const options = (runs ? STATUSES : LEVELS).map((value) => [value, value || (runs ? "All statuses" : "All levels")]);
  return [[["#/" + namespace + "/" + name, name]], [
    el("div", { class: "head" },
      el("h1", {}, name), badge(script.exists ? script.phase || "Draft" : "Deleted"),
      el("span", { class: "note grow" }, "in " + namespace + (script.version == null ? "" : ", version " + script.version)),
      choice("range", "Range", RANGES, view.range, choose((value) => { view.range = value; }))),
    tiles([["Total Runs", count(f.totalRuns)], ["P90", duration(f.p90Microseconds)], ["P99", duration(f.p99Microseconds)],
      ["Failure Rate", percent(f.failureRateBasisPoints)], ["In Progress", count(f.inProgressRuns)]]),
    el("p", { class: "note" }, "Figures of the range: " + rangeName.toLowerCase() + (window.range.from ? ", since " : ""),
      window.range.from ? time(window.range.from) : "", ". Over its whole life: " + count(script.figures.totalRuns) + " runs, " + count(script.figures.totalLogs) + " log lines."),
    el("div", { class: "tabs", role: "group", "aria-label": "What to show" }, tab("runs", "Runs"), tab("logs", "Logs")),
    el("div", { class: "head" },
      choice("narrow", runs ? "Status" : "Log level", options, view.narrow, choose((value) => { view.narrow = value; })),
      el("span", { class: "grow" }),
      el("button", { type: "button", id: "csv", onclick: () => download(path + "/" + view.tab + ".csv" + query, file) }, "Download CSV")),
    rows instanceof Error ? empty("The " + (runs ? "runs" : "log lines") + " can not be shown", el("p", {}, rows.message))
      : [rows.items.length || (rows.gaps || []).length ? (runs ? runTable(caption, base, rows.items) : logTable(caption, rows.items, rows.gaps)) : nothing, pager(rows)],
  ]];
}

async function runView(namespace, name, id) {
  const path = "/namespaces/" + namespace + "/scripts/" + name + "/runs/" + encodeURIComponent(id);
  const page = view.cursor ? "?cursor=" + encodeURIComponent(view.cursor) : "";
  // Who may see runs need not be allowed to see logs.
  const [text, logs] = await Promise.all([
    ask("/api/v1" + path).then((answer) => answer.text()), get(path + "/logs" + page).catch((error) => { if (error.status === 401) throw error; return error; })]);
  const run = JSON.parse(text);
  const payloads = JSON.parse(text, exact);
  const facts = [["Status", badge(run.status)], ["Reason", run.reason], ["Function", run.function],
    ["Response Time", milliseconds(run.responseTimeMicros)], ["Executed On", time(run.executedOn)],
    ["Finished", run.finishedAt ? time(run.finishedAt) : null], ["Source", run.source], ["Source Type", run.sourceType],
    ["Deployment Version", String(run.deploymentVersion)], ["Deployment", run.deploymentId], ["Trace", run.traceparent]];
  const payload = (title, value = payloads[title.toLowerCase()]) => [el("h2", {}, title), value == null ? el("p", { class: "note" }, "None was kept.") : el("pre", { id: "pre-" + title, tabindex: "0" }, JSON.stringify(value, null, 2))];
  const error = run.error && [el("h2", {}, "Error"), el("pre", { id: "pre-error", tabindex: "0" },
    (run.error.type ? run.error.type + ": " : "") + run.error.message + (run.error.traceback ? "\n\n" + run.error.traceback : ""))];
  let lines;
  if (logs instanceof Error) lines = empty("The log lines can not be shown", el("p", {}, logs.message));
  else if (!logs.items.length) lines = empty("No log lines", el("p", {}, run.status === "In Progress" ? "Prints appear when the run ends, korelogger's lines at once." : "The run printed nothing."));
  else lines = [logTable("Log lines of this run", logs.items), pager(logs)];
  return [[["#/" + namespace + "/" + name, name], [location.hash, id]], [
    el("div", { class: "head" }, el("h1", {}, "Run " + id)),
    el("dl", { class: "facts" }, facts.filter(([, value]) => value).map(([key, value]) => [el("dt", {}, key), el("dd", {}, value)])),
    error, payload("Input"), payload("Output"), el("h2", {}, "Logs"), lines]];
}

// --- the loop

function trouble(message) {
  $("trouble").hidden = !message;
  if ($("trouble").textContent !== (message || "")) $("trouble").textContent = message || "";
}

// Puts nodes into the page, keeping the focus and scroll of what is there.
function show(place, nodes) {
  const focused = document.activeElement && document.activeElement.id;
  const scrolls = [...document.querySelectorAll(".wide, pre")].map((node) => [node.scrollLeft, node.scrollTop]);
  $("place").replaceChildren(...place.map(([href, text]) => el("a", { href }, text)));
  $("main").replaceChildren(...nodes.flat(Infinity).filter(Boolean));
  [...document.querySelectorAll(".wide, pre")].forEach((node, i) => { if (scrolls[i]) [node.scrollLeft, node.scrollTop] = scrolls[i]; });
  if (focused && focused !== "main" && $(focused)) $(focused).focus({ preventScroll: true });
}

async function refresh(now) {
  clearTimeout(timer);
  const mine = ++turn;
  // The form waits for a token. Without one it is asked all the same: scriptscope dashboard says itself who asks.
  if (!sessionStorage.getItem(KEY) && $("token")) return;
  // A list that somebody opens, selects or reads on a later page stays as it is.
  const busy = !now && (document.hidden || view.cursor || String(getSelection()) || Date.now() - opened < 3 * EVERY);
  if (!busy) {
    try {
      const [namespace, name, what, id] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
      const [place, nodes] = what === "runs" && id ? await runView(namespace, name, id)
        : name ? await scriptView(namespace, name) : await scriptsView();
      if (mine !== turn) return;
      show(place, nodes);
      trouble("");
      document.title = (name ? name + " – " : "") + "ScriptScope";
      $("out").hidden = false;
      if (!$("who").textContent) $("who").textContent = (await get("/whoami")).username;
    } catch (error) {
      if (mine !== turn) return;
      if (error.status === 401) {
        const had = sessionStorage.getItem(KEY);
        sessionStorage.removeItem(KEY);
        return signIn(had ? error.message : "");
      }
      // What is shown may be old; the line above says so. Nothing shown yet must not look like nothing there.
      trouble(error.message || "The page failed: " + error);
      $("out").hidden = false;
      if (now) show([], [el("h1", {}, "This could not be shown"), empty("The operator's answer", el("p", {}, error.message))]);
    }
  }
  timer = setTimeout(refresh, EVERY);
}

addEventListener("hashchange", () => {
  view = { ...view, cursor: null, pages: [], narrow: "" };
  refresh(true).then(() => $("main").focus());
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
$("out").addEventListener("click", () => {
  sessionStorage.removeItem(KEY);
  location.hash = "#/";
  signIn("");
});
refresh(true);

'use strict';
// korelogger as its users know it, outside a ScriptScope pod and with a runner that listens.

const assert = require('node:assert/strict');
const { execFileSync, spawn } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { after, test } = require('node:test');

const KORELOGGER = path.join(__dirname, '..', 'korelogger');
const PACKAGE = JSON.stringify(KORELOGGER);
const CONTEXT = {
  traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
  run_id: 'run_1',
  deployment_id: 'deploy_1',
  source: 'billing',
  source_type: 'Tool',
};

/** What a program prints. */
function printed(code, environment = {}) {
  const env = { ...process.env, ...environment };
  return execFileSync(process.execPath, ['-e', `const korelogger = require(${PACKAGE}); ${code}`], { encoding: 'utf8', env });
}

/** Spans and echoes. */
function logged(code) {
  const spans = [];
  const echoes = [];
  for (const line of printed(code).split('\n').slice(0, -1)) {
    if (line.startsWith('{"name"')) spans.push(JSON.parse(line));
    else echoes.push(line);
  }
  return { spans, echoes };
}

test('a line is a span and an echo', () => {
  const out = printed("korelogger.info('balance of %s is %d', 'a\\nb', 7, { shop: 17 })");
  const [json, ...echo] = out.split('\n');
  assert.deepEqual(echo, ['INFO :: balance of a', 'b is 7', '']);
  const span = JSON.parse(json);
  const keys = 'attributes context end_time events kind links name parent_id resource start_time status';
  assert.equal(Object.keys(span).sort().join(' '), keys);
  assert.equal(span.name, 'gvisor_info_log');
  assert.equal(span.attributes['log.message'], 'balance of a\nb is 7');
  assert.equal(span.attributes['log.level'], 'INFO');
  assert.equal(span.attributes.shop, 17);
  assert.match(span.attributes['log.meta.pid'], /^\d+$/);
  assert.match(span.attributes['log.meta.logid'], /^[0-9a-f]{24}$/);
  assert.match(span.context.trace_id, /^0x[0-9a-f]{32}$/);
  assert.match(span.context.span_id, /^0x[0-9a-f]{16}$/);
  assert.match(span.start_time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
  assert.ok(Math.abs(Date.parse(span.start_time) - Date.now()) < 60_000);
});

test('every level has its name', () => {
  const { spans, echoes } = logged("for (const l of ['debug', 'info', 'warning', 'error']) korelogger[l]('x')");
  assert.deepEqual(spans.map((s) => s.name), ['gvisor_debug_log', 'gvisor_info_log', 'gvisor_warning_log', 'gvisor_error_log']);
  assert.deepEqual(echoes, ['DEBUG :: x', 'INFO :: x', 'WARNING :: x', 'ERROR :: x']);
});

test('ids are unique', () => {
  const { spans } = logged("for (let i = 0; i < 1000; i++) korelogger.info('x')");
  assert.equal(new Set(spans.map((s) => s.attributes['log.meta.logid'])).size, 1000);
  assert.equal(new Set(spans.map((s) => s.context.span_id)).size, 1000);
});

test('only a plain object beyond the placeholders is attributes', () => {
  const { spans } = logged(`
    korelogger.info('%j', { a: 1 });
    korelogger.info('%s of %s', 'one', 'two', { a: 1 });
    korelogger.info('list', [1, 2]);
    korelogger.info({ a: 1 });
    korelogger.info('100%', { a: 1 });
    korelogger.info('100%% of %s', 'it', { a: 1 });`);
  const found = spans.map((s) => [s.attributes['log.message'], s.attributes.a]);
  assert.deepEqual(found, [
    ['{"a":1}', undefined],
    ['one of two', 1],
    ['list [ 1, 2 ]', undefined],
    ['{ a: 1 }', undefined],
    ['100%', 1],
    ['100% of it', 1],
  ]);
});

test('it never throws and stays JSON', () => {
  const { spans } = logged(`
    const loop = {}; loop.loop = loop;
    const bad = { toString() { throw new Error(); }, toJSON() { throw new Error(); } };
    const bad2 = new Proxy({}, { get() { throw new Error(); }, ownKeys() { throw new Error(); } });
    korelogger.error('x', { v: bad });
    korelogger.error('x', { v: loop });
    korelogger.error('x', { v: NaN, f() {}, s: Symbol('s'), n: 1n, e: new Error('in it'), u: undefined });
    korelogger.error('half \\udcff', { v: '\\udcff', w: ['\\\\\\\\ud800', '\\\\\\\\\\ud800'] });
    korelogger.error('x', Object.fromEntries(Array.from({ length: 100 }, (_, i) => ['a' + i, 'y'.repeat(10000)])));
    korelogger.error('x', { run_id: 'mine', 'log.level': 'LOUD' });
    korelogger.error(bad2); korelogger.error();`);
  assert.ok(spans.length >= 6);
  for (const span of spans) assert.equal(span.attributes['log.level'], 'ERROR');
  assert.equal(spans[2].attributes.n, '1');
  assert.match(spans[2].attributes.e, /^Error: in it/);
  assert.equal(spans[3].attributes['log.message'], 'half \ufffd');
  assert.ok(spans.every((s) => JSON.stringify(s).length < 200_000));
  assert.equal(spans[5].attributes['user.run_id'], 'mine');
});

test('a span is bounded', () => {
  const { Template } = require(path.join(KORELOGGER, 'lib', 'span.js'));
  for (const text of ['x', '\0', '\u20ac', '\u{1f600}', '"']) {
    const span = new Template({}).span('INFO', text.repeat(1_000_000), { v: text.repeat(1_000_000) }, 'id');
    assert.ok(Buffer.byteLength(span) < 200_000);
    const message = JSON.parse(span).attributes['log.message'];
    assert.ok(message.startsWith(text) && message.endsWith('[cut]'));
  }
});

test('the console bridge does nothing outside', () => {
  assert.equal(printed("korelogger.bridgeConsole()(); console.log('as ever')"), 'as ever\n');
});

test('import and require give the same', () => {
  const code = `const ours = await import(${JSON.stringify(path.join(KORELOGGER, 'index.mjs'))});
    const { createRequire } = await import('node:module');
    const theirs = createRequire('/')(${PACKAGE});
    console.log(ours.default === theirs, ours.info === theirs.info, Object.keys(ours).sort().join());`;
  const out = execFileSync(process.execPath, ['--input-type=module', '-e', code], { encoding: 'utf8' });
  assert.equal(out, 'true true bridgeConsole,debug,default,error,info,traceparent,tracestate,warning\n');
});

test('npm installs it', () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'korelogger-'));
  after(() => fs.rmSync(folder, { recursive: true }));
  fs.writeFileSync(path.join(folder, 'package.json'), '{"private": true}');
  const install = ['install', '--silent', '--offline', '--no-audit', '--no-fund', '--install-links', KORELOGGER];
  execFileSync('npm', install, { cwd: folder, stdio: ['ignore', 'ignore', 'inherit'] });
  fs.writeFileSync(path.join(folder, 'main.mjs'), "import { info } from 'korelogger';\ninfo('installed');\n");
  const out = execFileSync(process.execPath, ['main.mjs'], { cwd: folder, encoding: 'utf8' });
  assert.match(out, /\nINFO :: installed\n$/);
});

test('a child of a run logs into it', async () => {
  const fifo = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'korelogger-')), 'pipe');
  after(() => fs.rmSync(path.dirname(fifo), { recursive: true }));
  execFileSync('mkfifo', [fifo]);
  const cat = spawn('cat', [fifo], { stdio: ['ignore', 'pipe', 'inherit'] });
  const lines = [];
  let text = '';
  cat.stdout.on('data', (chunk) => (text += chunk));
  const environment = { SCRIPTSCOPE_RUN_CONTEXT: JSON.stringify({ ...CONTEXT, pipe: fifo }) };
  const hold = fs.openSync(fifo, 'w');
  const own = printed("korelogger.info('from a child'); korelogger.error('y'.repeat(9000)); console.log('its own')", environment);
  fs.closeSync(hold);
  await new Promise((resolve) => cat.on('close', resolve));
  assert.equal(own, 'its own\n');
  const pieces = new Map();
  for (const line of text.split('\n').slice(0, -1)) {
    assert.ok(line.length < 4096, 'a write is never mixed with another one');
    const id = line.slice(1, 25);
    if (line[1] === '{') lines.push(JSON.parse(line.slice(1)));
    else if (line[0] === '+') pieces.set(id, (pieces.get(id) ?? '') + line.slice(25));
    else lines.push(JSON.parse(pieces.get(id) + line.slice(25)));
  }
  assert.deepEqual(lines.map((s) => s.attributes['log.message']), ['from a child', 'y'.repeat(9000)]);
  assert.equal(lines[0].context.trace_id, '0x4bf92f3577b34da6a3ce929d0e0e4736');
  for (const [name, value] of Object.entries(CONTEXT)) assert.equal(lines[0].attributes[name], value);
});

test('a child whose worker is gone prints the echo', () => {
  const context = JSON.stringify({ ...CONTEXT, pipe: '/proc/0/fd/5' });
  assert.equal(printed("korelogger.info('alone')", { SCRIPTSCOPE_RUN_CONTEXT: context }), 'INFO :: alone\n');
});

test('a trace is passed on, and outside a run there is none', () => {
  const code = 'console.log(JSON.stringify([korelogger.traceparent(), korelogger.tracestate()]))';
  const none = { TRACEPARENT: undefined, TRACESTATE: undefined };
  assert.deepEqual(JSON.parse(printed(code, none)), ['', '']);
  const trace = { TRACEPARENT: CONTEXT.traceparent, TRACESTATE: 'vendor=1' };
  assert.deepEqual(JSON.parse(printed(code, trace)), [CONTEXT.traceparent, 'vendor=1']);
});

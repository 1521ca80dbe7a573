'use strict';
// Where log lines go.
//
// In a worker of the ScriptScope runner each line goes to the runner, which prints it at once; the worker says whose line
// it is, and a mark in the run's standard output says where the echo `LEVEL :: message` belongs: the caller sees it there,
// and it is not stored a second time. A process that a run starts sends its lines to the same pipe, without a mark, since
// its output may be read by the run itself. Anywhere else the span and the echo are printed.

const fs = require('fs');
const { formatWithOptions } = require('util');
const { Template, nextId, textOf } = require('./span.js');
const pipe = require('./pipe.js');

const CONTEXT = 'SCRIPTSCOPE_RUN_CONTEXT';
const LINK = Symbol.for('scriptscope.korelogger');
const FORMAT = { depth: 4, colors: false };
/** Placeholders that take an argument. */
const PLACEHOLDERS = /%[sdifjoOc]|%%/g;

const templates = new WeakMap();
let outside = null;

/** Logs a line; never throws. */
function log(level, message, args) {
  try {
    const [text, attributes] = split(message, args);
    write(level, text, attributes);
  } catch {
    // Logging must not break what it tells of.
  }
}

function write(level, message, attributes) {
  const id = nextId();
  const link = globalThis[LINK];
  if (link) {
    const owner = link.current();
    link.emit(owner, templateOf(owner.context).span(level, message, attributes, id), id);
    return;
  }
  outside ??= findOut();
  const span = outside.template.span(level, message, attributes, id);
  if (outside.fd !== null) pipe.send(outside.fd, 'N', id, span);
  // One write: nothing comes between the two.
  else process.stdout.write(outside.isRun ? `${level} :: ${message}\n` : `${span}\n${level} :: ${message}\n`);
}

function templateOf(context) {
  let template = templates.get(context);
  if (!template) templates.set(context, (template = new Template(context)));
  return template;
}

/** Finds out, once a process, where lines go when no worker has said so. */
function findOut() {
  try {
    const context = JSON.parse(process.env[CONTEXT] ?? '{}');
    const isRun = typeof context.run_id === 'string';
    return { template: new Template(context), fd: context.pipe ? open(context.pipe) : null, isRun };
  } catch {
    return { template: new Template({}), fd: null, isRun: false };
  }
}

/** The pipe of the worker that has started this process; null if there is none any more. */
function open(path) {
  try {
    const fd = fs.openSync(path, fs.constants.O_WRONLY | fs.constants.O_NONBLOCK);
    if (fs.fstatSync(fd).isFIFO()) return fd;
    fs.closeSync(fd);
  } catch {
    // Its worker has ended.
  }
  return null;
}

/** The message with its placeholders filled, and the attributes, if the last argument is some. */
function split(message, args) {
  const last = args.at(-1);
  const wanted = typeof message === 'string' && args.length > 0 ? placeholders(message) : 0;
  const attributes = args.length > wanted && isPlain(last) ? last : null;
  const rest = attributes ? args.slice(0, -1) : args;
  if (rest.length === 0 && typeof message === 'string') return [message, attributes];
  try {
    return [formatWithOptions(FORMAT, message, ...rest), attributes];
  } catch {
    return [[message, ...rest].map(textOf).join(' '), attributes];
  }
}

function placeholders(message) {
  return (message.match(PLACEHOLDERS) ?? []).filter((found) => found !== '%%').length;
}

function isPlain(value) {
  if (value === null || typeof value !== 'object') return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/** A member of the trace that the calling code's run belongs to; empty where there is none. */
function trace(key) {
  const link = globalThis[LINK];
  return String((link ? link.current().context[key] : process.env[key.toUpperCase()]) ?? '');
}

/** Whether lines go to a runner, from this process or the one that has started it. */
function isInRun() {
  return globalThis[LINK] !== undefined || process.env[CONTEXT] !== undefined;
}

module.exports = { isInRun, log, trace, write };

'use strict';
// What a script throws, as the runner takes it.

const fs = require('fs');
const path = require('path');
const { isNativeError } = require('util').types;

const MAX_MESSAGE = 16 * 1024;
const MAX_TRACEBACK = 64 * 1024;
const MAX_CAUSES = 8;
const OURS = path.dirname(__dirname) + path.sep;

/** The error of a run: reason, type, message, traceback. Never throws. */
function failure(error, { app }) {
  const described = { reason: 'Exception', type: typeOf(error), message: messageOf(error) };
  const traceback = tracebackOf(error, app);
  if (traceback) described.traceback = cut(traceback, MAX_TRACEBACK);
  for (const [key, text] of Object.entries(described)) described[key] = text.toWellFormed();
  return described;
}

function isError(value) {
  return isNativeError(value) || value instanceof Error;
}

/** The name of an error; of a class that has set none, the class's. */
function typeOf(error) {
  return quietly(() => {
    if (!isError(error)) return error === null ? 'null' : typeof error;
    const own = String(error.constructor?.name ?? '');
    const name = String(error.name ?? '');
    return (name === '' || name === 'Error' ? own : name) || 'Error';
  }, 'Error');
}

function messageOf(error) {
  return cut(textOf(isError(error) ? quietly(() => error.message, '') || typeOf(error) : error), MAX_MESSAGE);
}

/** Stack traces of an error and of what has caused it, without frames of Node's own and of the worker's. */
function tracebackOf(error, app) {
  const parts = [];
  const add = (value, title) => {
    if (parts.length >= MAX_CAUSES || !isError(value)) return;
    const stack = quietly(() => value.stack, '');
    if (typeof stack === 'string' && stack) parts.push(title + clean(stack, app));
    const cause = quietly(() => value.cause, undefined);
    if (cause !== value) add(cause, 'Caused by: ');
    const inner = quietly(() => value.errors, undefined);
    if (Array.isArray(inner)) inner.forEach((one) => add(one, 'One of its errors: '));
  };
  add(error, '');
  return parts.join('\n');
}

/** A stack trace with paths as the script's author knows them. */
function clean(stack, app) {
  const frames = stack.split('\n').filter((line) => !/^ +at /.test(line) || !isOurs(line));
  // What is left of calls from Node's own code and from ours.
  while (/^ +at .*\(<anonymous>\)$/.test(frames.at(-1))) frames.pop();
  let text = frames.join('\n');
  // A ConfigMap's files are links into a folder whose name changes with every version.
  for (const folder of new Set([realFolder(app), app])) {
    text = text.replaceAll(`file://${folder}/`, `${app}/`).replaceAll(`${folder}/`, `${app}/`);
  }
  return text;
}

function isOurs(line) {
  return line.includes('node:') || line.includes(OURS);
}

function realFolder(app) {
  return quietly(() => path.dirname(fs.realpathSync(path.join(app, 'main.js'))), app);
}

/** `String` that can not fail; objects as JSON. */
function textOf(value) {
  return quietly(() => {
    const plain = value !== null && typeof value === 'object' && !isError(value);
    return String((plain && JSON.stringify(value)) || value);
  }, `<${typeof value} that has no text>`);
}

function quietly(work, otherwise) {
  try {
    return work();
  } catch {
    return otherwise;
  }
}

/** Keeps the beginning, where the error is. */
function cut(text, limit) {
  return text.length <= limit ? text : `${text.slice(0, limit)}\n[cut]`;
}

module.exports = { clean, failure, isError, realFolder, textOf };

'use strict';
// The console as a way to korelogger.

const { formatWithOptions } = require('util');
const { isInRun, write } = require('./log.js');

const LEVELS = { debug: 'DEBUG', log: 'INFO', info: 'INFO', warn: 'WARNING', error: 'ERROR', trace: 'ERROR' };

let undo = null;

/** Makes the console's methods log lines. Returns what undoes it. */
function bridgeConsole() {
  if (undo || !isInRun()) return undo ?? (() => {});
  const originals = {};
  for (const [method, level] of Object.entries(LEVELS)) {
    const original = console[method];
    originals[method] = original;
    console[method] = (...args) => {
      try {
        write(level, method === 'trace' ? trace(args, console[method]) : formatWithOptions({ colors: false }, ...args), null);
      } catch {
        original.apply(console, args);
      }
    };
  }
  undo = () => {
    Object.assign(console, originals);
    undo = null;
  };
  return undo;
}

function trace(args, above) {
  const error = { name: 'Trace', message: formatWithOptions({ colors: false }, ...args) };
  Error.captureStackTrace(error, above);
  return error.stack;
}

module.exports = { bridgeConsole };

'use strict';
// Log lines that show at once, each under the run that wrote it.
//
//   const korelogger = require('korelogger');
//   korelogger.info('balance of %s is %d', account, balance, { shop: 17 });
//
// Nothing here ever throws.

const { log, trace } = require('./lib/log.js');
const { bridgeConsole } = require('./lib/bridge.js');

module.exports = {
  debug: (message, ...args) => log('DEBUG', message, args),
  info: (message, ...args) => log('INFO', message, args),
  warning: (message, ...args) => log('WARNING', message, args),
  error: (message, ...args) => log('ERROR', message, args),
  traceparent: () => trace('traceparent'),
  tracestate: () => trace('tracestate'),
  bridgeConsole,
};

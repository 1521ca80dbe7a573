import korelogger = require('./index.js');

export declare const debug: typeof korelogger.debug;
export declare const info: typeof korelogger.info;
export declare const warning: typeof korelogger.warning;
export declare const error: typeof korelogger.error;
export declare const traceparent: typeof korelogger.traceparent;
export declare const tracestate: typeof korelogger.tracestate;
export declare const bridgeConsole: typeof korelogger.bridgeConsole;
export default korelogger;

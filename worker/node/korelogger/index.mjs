import korelogger from './index.js';

export const { debug, info, warning, error, traceparent, tracestate, bridgeConsole } = korelogger;
export default korelogger;

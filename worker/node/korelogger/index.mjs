import korelogger from './index.js';

export const { debug, info, warning, error, bridgeConsole } = korelogger;
export default korelogger;

/** What a line may carry beside its message: any names, JSON values. What has no JSON becomes its text. */
interface Attributes {
  [name: string]: unknown;
}

/**
 * Logs a line. The arguments fill the message's placeholders as in `console.log` (`%s`, `%d`, `%i`, `%f`, `%j`, `%o`,
 * `%O`, `%c`, `%%`). A plain object beyond them, as the last argument, is the line's attributes; anything else is
 * appended to the message. Never throws.
 */
type Log = (message: unknown, ...args: unknown[]) => void;

interface KoreLogger {
  /** Logs at level DEBUG. */
  debug: Log;
  /** Logs at level INFO. */
  info: Log;
  /** Logs at level WARNING. */
  warning: Log;
  /** Logs at level ERROR. */
  error: Log;
  /** The run's W3C `traceparent`, to be sent with calls of other services; empty outside a run. */
  traceparent: () => string;
  /** The `tracestate` that came with the run's call; empty where there is none. */
  tracestate: () => string;
  /**
   * Makes `console.debug`, `log`, `info`, `warn`, `error` and `trace` log lines instead of printing them: `log` and `info`
   * at INFO, `warn` at WARNING, `error` and `trace` at ERROR. Returns a function that undoes it. Outside a ScriptScope pod
   * it does nothing, so that a program prints there as it always has.
   */
  bridgeConsole: () => () => void;
}

declare const korelogger: KoreLogger;
export = korelogger;

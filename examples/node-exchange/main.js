// Each function that is exported here can be called over HTTP.
import korelogger from 'korelogger';
import { rates } from './rates.js';

// From here on console.warn and its like are log lines that show at once.
korelogger.bridgeConsole();

/**
 * Exchanges an amount of money.
 *
 * @param {number} amount how much, in `from`
 * @param {string} from the currency it is in, such as EUR
 * @param {string} to the currency it shall be in
 */
export async function convert({ amount, from = 'EUR', to }) {
  if (!Number.isFinite(amount)) throw new TypeError(`amount must be a number, not ${JSON.stringify(amount)}`);
  const { date, perEuro } = await rates();
  for (const currency of [from, to]) {
    if (!(currency in perEuro)) throw new RangeError(`no rate for ${currency}`);
  }
  const result = Math.round((amount / perEuro[from]) * perEuro[to] * 100) / 100;
  korelogger.info('%d %s are %d %s', amount, from, result, to, { date });
  return { amount: result, currency: to, date };
}

/** The currencies there are. */
export async function currencies() {
  return Object.keys((await rates()).perEuro).sort();
}

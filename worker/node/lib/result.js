'use strict';
// A function's result as JSON.

/** The result can not be sent. */
class BadResult extends Error {
  constructor(reason, message) {
    super(message);
    this.described = { reason, message: message.toWellFormed() };
  }
}

/** The JSON of a result. What JSON would leave out or change in silence is refused. */
function encode(result, maxBytes) {
  if (result === undefined) return 'null';
  let text;
  try {
    text = JSON.stringify(result, check);
  } catch (error) {
    throw new BadResult('ResultNotJson', `the result, of type ${typeName(result)}, is not JSON: ${reasonOf(error)}`);
  }
  // A function or a symbol, or what toJSON has made of it.
  if (text === undefined) {
    throw new BadResult('ResultNotJson', `the result, of type ${typeName(result)}, is not JSON`);
  }
  const bytes = Buffer.byteLength(text);
  if (bytes > maxBytes) {
    throw new BadResult('ResultTooLarge', `the result has ${bytes} bytes of JSON; ${maxBytes} is the most`);
  }
  return text;
}

function check(key, value) {
  const at = key === '' ? '' : ` (at ${JSON.stringify(key)})`;
  if (typeof value === 'number' && !Number.isFinite(value)) throw new TypeError(`${value} is no JSON number${at}`);
  if ((typeof value === 'string' && !value.isWellFormed()) || !key.isWellFormed()) {
    throw new TypeError(`it holds half of a surrogate pair, which UTF-8 can not hold${at}`);
  }
  if (value instanceof Map || value instanceof Set) {
    const remedy = value instanceof Map ? 'Object.fromEntries' : 'Array.from';
    throw new TypeError(`a ${value.constructor.name} has no JSON; convert it with ${remedy}${at}`);
  }
  return value;
}

/** V8 draws circular structures over several lines. */
function reasonOf(error) {
  return String(error?.message ?? error).replace(/\s*\n\s*/g, ' ').slice(0, 2000);
}

function typeName(value) {
  if (value === null || typeof value !== 'object') return typeof value;
  return String(value.constructor?.name ?? 'Object');
}

module.exports = { BadResult, encode };

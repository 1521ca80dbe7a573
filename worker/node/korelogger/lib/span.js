'use strict';
// A log line as a span, in the shape of OpenTelemetry's console exporter, on one line.
//
// Most of a span is the same for every line of a run, so that part is written once (`Template`).

const { randomBytes } = require('crypto');
const { hostname } = require('os');

const MAX_SPAN = 128 * 1024;
const MAX_MESSAGE = 64 * 1024;
const MAX_ATTRIBUTE = 8 * 1024;
const MAX_ATTRIBUTES = 64;
const CUT = ' [cut]';
const RUN_KEYS = ['traceparent', 'run_id', 'deployment_id', 'source', 'source_type'];

const prefix = randomBytes(8).toString('hex');
let count = 0;
let random = Buffer.alloc(0);
let second = -1;
let secondText = '';
let resource = null;
// The clock that counts on from here has microseconds; the other one does not.
let origin = performance.timeOrigin;

/** 24 hexadecimal digits, unique. */
function nextId() {
  count = (count + 1) >>> 0;
  return prefix + count.toString(16).padStart(8, '0');
}

/** Hexadecimal digits of so many random bytes. */
function randomHex(bytes) {
  if (random.length < bytes) random = randomBytes(1024);
  const hex = random.toString('hex', 0, bytes);
  random = random.subarray(bytes);
  return hex;
}

/** Now, RFC 3339, UTC, to the microsecond. */
function timestamp() {
  let now = origin + performance.now();
  const wall = Date.now();
  // The system's clock has been set.
  if (Math.abs(now - wall) > 50) {
    origin += wall - now;
    now = wall;
  }
  const whole = Math.floor(now / 1000);
  if (whole !== second) {
    second = whole;
    secondText = new Date(whole * 1000).toISOString().slice(0, 19);
  }
  const micros = Math.floor((now - whole * 1000) * 1000);
  return `${secondText}.${String(micros).padStart(6, '0')}Z`;
}

function resourceText() {
  resource ??= JSON.stringify({
    'service.name': process.env.OTEL_SERVICE_NAME ?? 'gvisor-node-normal',
    'service.instance.id': hostname(),
    'deployment.environment': process.env.DEPLOYMENT_ENVIRONMENT ?? 'default',
  });
  return resource;
}

/** What all spans of one run have in common. */
class Template {
  constructor(context) {
    const trace = String(context.traceparent ?? '');
    const parts = trace.split('-');
    const traceId = parts.length === 4 && parts[1].length === 32 ? parts[1] : randomHex(16);
    this.ids = `"context":{"trace_id":"0x${traceId}","span_id":"0x`;
    const known = RUN_KEYS.filter((key) => context[key] !== undefined && context[key] !== null);
    this.attributes = known.map((key) => `"${key}":${encode(String(context[key]))},`).join('');
    this.trace = encode(trace);
    this.tail = `},"events":[],"links":[],"resource":{"attributes":${resourceText()},"schema_url":""}}`;
  }

  /** The span. Bounded: the message is cut before that. */
  span(level, message, attributes, id) {
    let text = encode(message.length <= MAX_MESSAGE ? message : message.slice(0, MAX_MESSAGE) + CUT);
    let extra = attributes ? extraOf(attributes) : '';
    if (text.length + extra.length > MAX_SPAN / 4) [text, extra] = fit(message, text, extra);
    const now = timestamp();
    return (
      `{"name":"gvisor_${level.toLowerCase()}_log",${this.ids}${randomHex(8)}","trace_state":"[]"},` +
      `"kind":"SpanKind.INTERNAL","parent_id":null,"start_time":"${now}","end_time":"${now}",` +
      `"status":{"status_code":"UNSET"},"attributes":{${this.attributes}"log.message":${text},` +
      `"log.level":"${level}","log.trace_id":${this.trace},` +
      `"log.meta.msg":${text.length < 512 ? text : encode(message.slice(0, 256))},` +
      `"log.meta.pid":"${process.pid}","log.meta.logid":"${id}"${extra}${this.tail}`
    );
  }
}

/** Cuts by encoded bytes: control characters take six each, other scripts three. */
function fit(message, text, extra) {
  let length = Math.min(message.length, MAX_MESSAGE);
  while (Buffer.byteLength(text) > MAX_SPAN / 2) {
    length = Math.floor(length / 2);
    text = encode(message.slice(0, length) + CUT);
  }
  return [text, Buffer.byteLength(extra) > MAX_SPAN / 2 ? ',"attributes.cut":true' : extra];
}

/** Attributes of the caller, each as JSON: its own if it has one, else its text. None takes one of ours' place. */
function extraOf(attributes) {
  let text = '';
  for (const key of Object.keys(attributes).slice(0, MAX_ATTRIBUTES)) {
    const short = key.slice(0, 256);
    const name = RUN_KEYS.includes(short) || short.startsWith('log.') ? `user.${short}` : short;
    let value = valueOf(attributes[key]);
    if (value.length > MAX_ATTRIBUTE) value = encode(textOf(attributes[key]).slice(0, MAX_ATTRIBUTE / 8) + CUT);
    text += `,${encode(name)}:${value}`;
  }
  return text;
}

function valueOf(value) {
  try {
    const isError = value instanceof Error;
    return (!isError && wellFormed(JSON.stringify(value))) || encode(textOf(value));
  } catch {
    return encode(textOf(value));
  }
}

/** A string as JSON. Half a character becomes a mark that says so. */
function encode(text) {
  return JSON.stringify(text.toWellFormed());
}

/** JSON with lone halves of characters replaced; they are the only thing that JSON.stringify escapes as `\ud...`. */
function wellFormed(json) {
  return json?.replace(/(?<!\\)((?:\\\\)*)\\ud[89a-f][0-9a-f]{2}/g, '$1\ufffd');
}

/** `String`, which may throw, without the throwing. Objects by their JSON. */
function textOf(value) {
  try {
    if (value instanceof Error) return String(value.stack || value);
    return String((value !== null && typeof value === 'object' && JSON.stringify(value)) || value);
  } catch {
    return `<${typeof value} that has no text>`;
  }
}

module.exports = { Template, nextId, textOf };

'use strict';
// The parameters of a function, read from its source, and a call by their names.
//
//   function check(account, limit = 10)           account is required, limit is not
//   function check({ account, limit = 10 })       the same; the object is the arguments themselves
//   function check(account, { limit = 10 } = {})  the object is what no other parameter takes
//   function check(account, ...others)            takes any argument; others[0] is the object of the rest

const OPEN = '([{';
const CLOSE = ')]}';
const MAX_TEXT = 1024;

/** The parameters: a list of {kind: 'name' | 'object' | 'rest', members: [{name, required, default}], any, optional}. */
function parse(source) {
  const list = parameterList(source);
  if (list === null) return [{ kind: 'rest', members: [], any: true }];
  return splitTop(list).map((text, index) => {
    if (text.startsWith('...')) return { kind: 'rest', members: [], any: true };
    if (text.startsWith('{')) return objectParameter(text);
    const [name, fallback] = splitDefault(text);
    const member = { name: text.startsWith('[') ? `argument${index + 1}` : name, required: fallback === null };
    if (fallback !== null) member.default = valueOf(fallback);
    return { kind: 'name', members: [member] };
  });
}

function objectParameter(text) {
  const end = endOf(text, 0);
  const optional = text.slice(end).trim().startsWith('=');
  const parameter = { kind: 'object', optional, members: [] };
  for (const part of splitTop(text.slice(1, end - 1))) {
    if (part.startsWith('...') || part.startsWith('[')) {
      parameter.any = true;
      continue;
    }
    const [target, fallback] = splitDefault(part);
    const name = target.split(':')[0].trim().replace(/^(['"])(.*)\1$/, '$2');
    const member = { name, required: fallback === null && !optional };
    if (fallback !== null) member.default = valueOf(fallback);
    parameter.members.push(member);
  }
  return parameter;
}

/** What a caller must know of a function. */
function describe(name, parameters, doc) {
  const types = Object.fromEntries([...doc.matchAll(/@param\s+\{([^}]*)\}\s+\[?([\w$.]+)/g)].map((m) => [m[2], m[1]]));
  const members = parameters.flatMap((parameter) => parameter.members);
  for (const member of members) {
    const type = types[member.name] ?? types[Object.keys(types).find((key) => key.endsWith(`.${member.name}`))];
    if (type) member.annotation = type.slice(0, 256);
  }
  return {
    name,
    parameters: members,
    acceptsAnyArgument: parameters.some((parameter) => parameter.any === true),
    doc,
  };
}

/** Calls a function by argument name. */
function bind({ function: target, holder, parameters }, args) {
  const left = { ...args };
  const list = parameters.map(({ kind, members, optional }) => {
    if (kind === 'name') {
      const { name } = members[0];
      const value = Object.hasOwn(left, name) ? left[name] : undefined;
      delete left[name];
      return value;
    }
    const taken = { ...left };
    for (const key of Object.keys(left)) delete left[key];
    const isEmpty = Object.keys(taken).length === 0;
    return isEmpty && (optional || kind === 'rest') ? undefined : taken;
  });
  if (parameters.at(-1)?.kind === 'rest' && list.at(-1) === undefined) list.pop();
  return target.apply(holder, list);
}

/** The text between the parentheses of a function's source; null if there is none to be read. */
function parameterList(source) {
  const text = withoutComments(source);
  if (/\{\s*\[native code\]\s*\}\s*$/.test(text)) return null;
  const bare = /^\s*(?:async\s+)?([\p{ID_Start}$_][\p{ID_Continue}$]*)\s*=>/u.exec(text);
  if (bare) return bare[1];
  let at = 0;
  while (at < text.length && text[at] !== '(') at = text[at] === '[' ? endOf(text, at) : at + 1;
  return at < text.length ? text.slice(at + 1, endOf(text, at) - 1) : null;
}

/** Comments become a space. Only the head of a function matters, so what its body makes of this does not. */
function withoutComments(text) {
  let out = '';
  for (let at = 0; at < text.length; ) {
    const end = text.startsWith('/*', at) ? after(text, '*/', at) : text.startsWith('//', at) ? after(text, '\n', at) : 0;
    const next = end || skip(text, at);
    out += end ? ' ' : text.slice(at, next);
    at = next;
  }
  return out;
}

function after(text, what, from) {
  const at = text.indexOf(what, from + 2);
  return at < 0 ? text.length : at + what.length;
}

/** Where the token at `at` ends: a string, a template or a regular expression as a whole, else one character. */
function skip(text, at) {
  const quote = text[at];
  const isRegex = quote === '/' && /(?:^|[(,=:[!&|?{};>])\s*$/.test(text.slice(Math.max(0, at - 64), at));
  if (quote !== '"' && quote !== "'" && quote !== '`' && !isRegex) return at + 1;
  let set = false;
  for (let i = at + 1; i < text.length; i++) {
    if (text[i] === '\\') i++;
    else if (quote === '`' && text.startsWith('${', i)) i = endOf(text, i + 1) - 1;
    else if (isRegex && text[i] === '[') set = true;
    else if (isRegex && text[i] === ']') set = false;
    else if (text[i] === quote && !set) return i + 1;
    else if (text[i] === '\n' && quote !== '`') return at + 1;
  }
  return text.length;
}

/** Where the bracket that is open at `at` has been closed. */
function endOf(text, at) {
  let depth = 0;
  for (let i = at; i < text.length; i = skip(text, i)) {
    if (OPEN.includes(text[i])) depth++;
    else if (CLOSE.includes(text[i]) && --depth === 0) return i + 1;
  }
  return text.length;
}

/** Parts between commas outside brackets, none empty. */
function splitTop(text) {
  const parts = [];
  let start = 0;
  for (let at = 0; at < text.length; at = OPEN.includes(text[at]) ? endOf(text, at) : skip(text, at)) {
    if (text[at] === ',') {
      parts.push(text.slice(start, at));
      start = at + 1;
    }
  }
  parts.push(text.slice(start));
  return parts.map((part) => part.trim()).filter(Boolean);
}

/** A parameter and the text of its default, null if it has none. */
function splitDefault(text) {
  for (let at = 0; at < text.length; at = OPEN.includes(text[at]) ? endOf(text, at) : skip(text, at)) {
    if (text[at] === '=' && text[at + 1] !== '>') return [text.slice(0, at).trim(), text.slice(at + 1).trim()];
  }
  return [text.trim(), null];
}

/** A default as JSON if it is some, else its text. */
function valueOf(text) {
  const plain = /^'([^'\\"]*)'$/.exec(text);
  if (plain) return plain[1];
  if (text.length <= MAX_TEXT) {
    try {
      return JSON.parse(text);
    } catch {
      // An expression.
    }
  }
  return text.slice(0, MAX_TEXT);
}

module.exports = { bind, describe, parse };

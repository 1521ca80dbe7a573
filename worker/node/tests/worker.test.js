'use strict';
// The parts of a worker that need no runner.

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { bind, describe, parse } = require('../lib/signature.js');
const { docOf } = require('../lib/load.js');
const { encode } = require('../lib/result.js');
const { failure } = require('../lib/failure.js');

const described = (f) => describe('f', parse(f.toString()), '');
const names = (f) => {
  const { parameters, acceptsAnyArgument } = described(f);
  const list = parameters.map((p) => (p.required ? p.name : 'default' in p ? `${p.name}=${JSON.stringify(p.default)}` : `${p.name}?`));
  return list.join(' ') + (acceptsAnyArgument ? ' **' : '');
};

test('parameters are read from every form of a function', () => {
  const object = { method(a, b = 1) {}, async *['comp' + (1)](c) {}, 'quoted name'(d) {} };
  for (const [f, expected] of [
    [function () {}, ''],
    [function named(a, b) {}, 'a b'],
    [async function (a) {}, 'a'],
    [(a) => a, 'a'],
    [a => a, 'a'],
    [async a => a, 'a'],
    [async (a, b = 2) => a, 'a b=2'],
    [object.method, 'a b=1'],
    [object.comp1, 'c'],
    [object['quoted name'], 'd'],
    [function (a /* , hidden */, b // , more
    ) {}, 'a b'],
    [(a = '),{', b = "it's", c = `${[')']}`, d = /[)/]\//) => a, 'a="),{" b="it\'s" c="`${[\')\']}`" d="/[)/]\\\\//"'],
    [(a = { b: [1, (2)] }, c = (x, y) => x) => a, 'a="{ b: [1, (2)] }" c="(x, y) => x"'],
    [(a = null, b = -1.5, c = true) => a, 'a=null b=-1.5 c=true'],
    [({ a, b = 2, c: renamed = 3, 'd-e': e }) => a, 'a b=2 c=3 d-e'],
    [({ a, b = 2 } = {}) => a, 'a? b=2'],
    [({ a, ...others }) => a, 'a **'],
    [(a, { b = 1 } = {}) => a, 'a b=1'],
    [(a, ...others) => a, 'a **'],
    [(...all) => all, ' **'],
    [([a, b], c) => a, 'argument1 c'],
    [Math.max, ' **'],
    [function () {}.bind(null), ' **'],
  ]) {
    assert.equal(names(f), expected, f.toString());
  }
});

test('arguments are passed by name', () => {
  const call = (f, args) => bind({ function: f, holder: undefined, parameters: parse(f.toString()) }, args);
  const all = (...list) => list;
  assert.deepEqual(call((a, b = 2) => all(a, b), { b: 3, a: 1 }), [1, 3]);
  assert.deepEqual(call((a, b = 2) => all(a, b), { a: 1 }), [1, 2]);
  assert.deepEqual(call(({ a, b = 2 }) => all(a, b), { a: 1 }), [1, 2]);
  assert.deepEqual(call(({ a } = { a: 9 }) => all(a), {}), [9]);
  assert.deepEqual(call((a, { b, ...c }) => all(a, b, c), { c: 3, a: 1, b: 2 }), [1, 2, { c: 3 }]);
  assert.deepEqual(call((a, ...rest) => all(a, ...rest), { a: 1, b: 2 }), [1, { b: 2 }]);
  assert.deepEqual(call((a, ...rest) => all(a, ...rest), { a: 1 }), [1]);
  const proto = JSON.parse('{"__proto__": 1, "a": 2}');
  assert.deepEqual(Object.keys(call((all) => all, { all: proto })), ['__proto__', 'a']);
  assert.equal(call((toString = 'default') => toString, {}), 'default');
});

test('the comment before a function is its documentation', () => {
  const source = '/** Not it. */\nlet x = 1;\n\n/**\n * Checks.\n *\n * More.\n */\nexport const check = (a) => a;\n\nconst other = (b) => b;\n';
  assert.equal(docOf(source, '(a) => a'), 'Checks.\n\nMore.');
  assert.equal(docOf(source, '(b) => b'), '');
  assert.equal(docOf(source, 'not there'), '');
});

test('what is no JSON is refused', () => {
  assert.equal(encode(undefined, 100), 'null');
  assert.equal(encode({ a: undefined, b: [undefined, new Date(0)] }, 100), '{"b":[null,"1970-01-01T00:00:00.000Z"]}');
  const loop = [];
  loop.push(loop);
  for (const value of [1n, [1n], loop, NaN, { a: -Infinity }, new Map(), { s: new Set() }, () => 1, Symbol('s'), '\ud800', { '\udc00': 1 }]) {
    assert.throws(() => encode(value, 100), (error) => error.described.reason === 'ResultNotJson');
  }
  assert.throws(() => encode('x'.repeat(100), 100), (error) => error.described.reason === 'ResultTooLarge');
});

test('a failure has only text that is text', () => {
  class Odd extends Error {
    get message() {
      throw new Error();
    }
  }
  const bad = { toString: () => { throw new Error(); }, toJSON: () => { throw new Error(); } };
  for (const [thrown, type] of [
    [new Odd(), 'Odd'],
    [new TypeError('half \ud800'), 'TypeError'],
    [new DOMException('stop', 'AbortError'), 'AbortError'],
    [null, 'null'],
    [undefined, 'undefined'],
    [{ code: 7 }, 'object'],
    [bad, 'object'],
    [Object.assign(new Error('x'), { stack: 7, cause: loop() }), 'Error'],
  ]) {
    const failed = failure(thrown, { app: '/app' });
    assert.equal(failed.type, type);
    assert.ok(Object.values(failed).every((text) => typeof text === 'string' && text.isWellFormed()));
  }
  assert.equal(failure({ code: 7 }, { app: '/app' }).message, '{"code":7}');
});

function loop() {
  const error = new Error('its own cause');
  error.cause = new Error('and back', { cause: error });
  return error;
}

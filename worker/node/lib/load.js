'use strict';
// Loads main.js and finds its functions.

const fs = require('fs');
const path = require('path');
const Module = require('module');
const { spawnSync } = require('child_process');
const { pathToFileURL } = require('url');
const { clean, isError, realFolder, textOf } = require('./failure.js');
const { describe, parse } = require('./signature.js');

const ENTRY = 'main.js';
const PACKAGE = 'korelogger';
const MAX_DOC = 16 * 1024;
const IDENTIFIER = /^[\p{ID_Start}$][\p{ID_Continue}$]*$/u;

/** main.js can not be used; the message is for people. */
class LoadFailed extends Error {}

/** The functions that main.js exports, by name: {function, holder, parameters, described}. */
async function load(app, home) {
  const main = path.join(app, ENTRY);
  if (!fs.existsSync(main)) throw new LoadFailed(missing(app));
  process.chdir(app);
  provide(path.join(home, PACKAGE));
  let exported;
  try {
    exported = await import(pathToFileURL(main).href);
  } catch (error) {
    throw new LoadFailed(problem(app, main, error));
  }
  // What an ES module sees of a CommonJS one is guessed from its text; this is what it has exported.
  const cached = require.cache[fs.realpathSync(main)];
  const found = cached ? fromCommonJs(cached.exports) : fromModule(exported);
  const source = fs.readFileSync(main, 'utf8');
  for (const [name, entry] of found) {
    const text = Function.prototype.toString.call(entry.function);
    entry.parameters = parse(text);
    entry.described = describe(name, entry.parameters, docOf(source, text));
  }
  return found;
}

/** Makes `korelogger` mean ours, in `import` and in `require`, whatever else is installed. */
function provide(folder) {
  const files = { import: path.join(folder, 'index.mjs'), require: path.join(folder, 'index.js') };
  const resolveFilename = Module._resolveFilename;
  Module._resolveFilename = function (request, ...rest) {
    return request === PACKAGE ? files.require : resolveFilename.call(this, request, ...rest);
  };
  const url = pathToFileURL(files.import).href;
  if (Module.registerHooks) {
    Module.registerHooks({
      resolve: (specifier, context, next) =>
        specifier === PACKAGE && context.conditions.includes('import')
          ? { url, format: 'module', shortCircuit: true }
          : next(specifier, context),
    });
  } else {
    // Before Node 22.15 only a module of its own can do that.
    const hook = `export async function resolve(specifier, context, next) {
      return specifier === ${JSON.stringify(PACKAGE)}
        ? { url: ${JSON.stringify(url)}, format: 'module', shortCircuit: true } : next(specifier, context); }`;
    Module.register?.(`data:text/javascript,${encodeURIComponent(hook)}`);
  }
}

function fromCommonJs(exported) {
  const found = new Map();
  if (isFunction(exported)) add(found, exported.name || 'main', exported, undefined);
  if (exported !== null && ['object', 'function'].includes(typeof exported)) addAll(found, exported);
  return found;
}

/** A function that is exported by default goes by its own name, an object that is by the names of its functions. */
function fromModule(exported) {
  const found = new Map();
  for (const name of Object.keys(exported)) if (name !== 'default') add(found, name, exported[name], undefined);
  const standard = exported.default;
  if (isFunction(standard)) {
    const name = standard.name === 'default' ? 'main' : standard.name;
    if (!found.has(name)) add(found, name, standard, undefined);
  } else if (standard !== null && typeof standard === 'object') {
    addAll(found, standard);
  }
  return found;
}

function addAll(found, holder) {
  for (const name of Object.keys(holder)) if (!found.has(name)) add(found, name, holder[name], holder);
}

function add(found, name, value, holder) {
  if (isFunction(value) && IDENTIFIER.test(name)) found.set(name, { function: value, holder });
}

function isFunction(value) {
  return typeof value === 'function' && !/^class\b/.test(Function.prototype.toString.call(value));
}

/** The comment `/** ... *\/` right before a function, without its stars. */
function docOf(source, text) {
  const at = source.indexOf(text);
  const head = at < 0 ? '' : source.slice(Math.max(0, at - MAX_DOC), at);
  const start = head.lastIndexOf('/**');
  const end = head.indexOf('*/', start);
  // Between them nothing but the beginning of the same statement.
  if (start < 0 || end < 0 || /[;{}]|\n\s*\n/.test(head.slice(end + 2))) return '';
  const lines = head.slice(start + 3, end).split('\n');
  return lines.map((line) => line.replace(/^\s*\* ?/, '').trimEnd()).join('\n').trim().toWellFormed();
}

function missing(app) {
  try {
    const names = fs.readdirSync(app).filter((name) => !name.startsWith('.')).sort();
    return `main.js is missing in ${app}, which holds: ${names.slice(0, 20).join(', ') || 'nothing'}`;
  } catch (error) {
    return `main.js is missing: ${app} can not be read (${error.code ?? error.message})`;
  }
}

/** One paragraph on why main.js could not be loaded. */
function problem(app, main, error) {
  const stack = clean(isError(error) && typeof error.stack === 'string' ? error.stack : '', app);
  const kind = isError(error) ? error.name : typeof error;
  const message = textOf(isError(error) ? error.message : error).trim().split('\n')[0].slice(0, 2000);
  const place = placeIn(app, stack) ?? (error instanceof SyntaxError ? placeIn(app, checked(app, main)) : null);
  if (!place) return clean(`${kind} while main.js was being loaded: ${message}`, app).toWellFormed();
  const text = `${kind} in ${place.file}, line ${place.line}: ${clean(message, app)}${hint(error)}`;
  return (text + quoted(app, place)).toWellFormed();
}

function hint(error) {
  const isModule = error instanceof SyntaxError && /import statement outside|token 'export'/.test(error.message);
  return isModule ? ' (main.js is read as CommonJS: name it an ES module by a package.json with "type": "module")' : '';
}

/** The first place in the project that a text names. */
function placeIn(app, text) {
  const prefix = `${app.replace(/\/$/, '')}/`;
  for (let at = text.indexOf(prefix); at >= 0; at = text.indexOf(prefix, at + 1)) {
    const found = /^([^\n:]+):(\d+)/.exec(text.slice(at + prefix.length));
    if (found) return { file: found[1], line: Number(found[2]) };
  }
  return null;
}

/** What Node itself says of a file that it can not read. */
function checked(app, main) {
  const { stderr } = spawnSync(process.execPath, ['--check', main], { encoding: 'utf8', timeout: 10_000, cwd: app });
  return clean(stderr ?? '', app);
}

function quoted(app, { file, line }) {
  try {
    const text = fs.readFileSync(path.join(realFolder(app), file), 'utf8').split('\n')[line - 1].trim();
    return text ? `: \`${text.slice(0, 200)}\`` : '';
  } catch {
    return '';
  }
}

module.exports = { LoadFailed, docOf, load };

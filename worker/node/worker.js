'use strict';
// A worker of the ScriptScope runner: holds a script's main.js and calls one of its functions at a time.
//
// Descriptor 3 is a Unix stream socket to the runner. A frame is its length (4 bytes, big endian) and that many bytes of
// JSON. The runner speaks first:
//
//   runner: {"app", "home", "socket", "mark", "context", "maxResultBytes"}
//   worker: {"functions": [...]} or {"failed": "why main.js could not be loaded"}
//   runner: two descriptors, on descriptor 4
//   runner: {"function", "context"}, then a frame with the arguments
//   worker: {"result": ...} or {"error": {"reason", "type", "message", "traceback"}}, with {"leftover": "..."} where
//           something of the run lives on
//
// The two descriptors are the next run's own standard output and error. Node takes no descriptors from a socket but over
// its own channel between parent and child, so descriptor 4 is such a channel (NODE_CHANNEL_FD) and the runner speaks its
// protocol, ahead of the call since that takes its time. Descriptor 5 is a pipe for korelogger's lines; korelogger/lib/pipe.js says how they are written.

const fs = require('fs');
const net = require('net');
const { AsyncLocalStorage } = require('async_hooks');
const { Streams, inodeOf } = require('./lib/streams.js');
const { Children } = require('./lib/children.js');
const { BadResult, encode } = require('./lib/result.js');
const { LoadFailed, load } = require('./lib/load.js');
const { failure, textOf } = require('./lib/failure.js');
const { bind } = require('./lib/signature.js');
const pipe = require('./korelogger/lib/pipe.js');

const MINIMUM = 20;
const SOCKET_FD = 3;
const LOG_FD = 5;
const CONTEXT = 'SCRIPTSCOPE_RUN_CONTEXT';
/** As OpenTelemetry passes a trace on in a process's environment. */
const TRACE = { TRACEPARENT: 'traceparent', TRACESTATE: 'tracestate' };
/** Where any copy of korelogger in this process finds its way to the runner. */
const LINK = Symbol.for('scriptscope.korelogger');
/** What a channel's message must begin with for the script's own listeners not to see it. */
const HANDLE = 'NODE_SCRIPTSCOPE';

/** The frames, and the descriptors that come with them. */
class Channel {
  constructor() {
    this.chunks = [];
    this.length = 0;
    this.frames = [];
    this.handles = [];
    this.wake = null;
    this.socket = new net.Socket({ fd: SOCKET_FD });
    this.socket.on('data', (chunk) => this.#take(chunk));
    // Without a runner there is nothing left to do.
    this.socket.on('close', () => process.reallyExit(0));
    this.socket.on('error', () => process.reallyExit(0));
    process.on('internalMessage', (message, handle) => {
      if (message.cmd === HANDLE && handle) {
        this.handles.push(Object.assign(handle, { inode: inodeOf(handle.fd) }));
        this.#ready();
      }
    });
    // For the runner alone.
    process.send = undefined;
  }

  #take(chunk) {
    this.chunks.push(chunk);
    this.length += chunk.length;
    while (this.length >= 4) {
      if (this.chunks[0].length < 4) this.#join();
      const end = 4 + this.chunks[0].readUInt32BE(0);
      if (this.length < end) break;
      this.#join();
      const [bytes] = this.chunks;
      this.frames.push(bytes.toString('utf8', 4, end));
      this.chunks = end < bytes.length ? [bytes.subarray(end)] : [];
      this.length -= end;
    }
    this.#ready();
  }

  #join() {
    if (this.chunks.length > 1) this.chunks = [Buffer.concat(this.chunks)];
  }

  #ready() {
    const wake = this.wake;
    this.wake = null;
    if (wake) wake();
  }

  /** So many frames and descriptors, once they are there. */
  async receive(frames, handles) {
    while (this.frames.length < frames || this.handles.length < handles) {
      await new Promise((resolve) => (this.wake = resolve));
    }
    return [this.frames.splice(0, frames), this.handles.splice(0, handles)];
  }

  /** Sends a frame of JSON; resolves once it is written. */
  send(text) {
    const length = Buffer.byteLength(text);
    const frame = Buffer.allocUnsafe(4 + length);
    frame.writeUInt32BE(length, 0);
    frame.write(text, 4);
    return new Promise((resolve) => this.socket.write(frame, resolve));
  }
}

/** One run after the other. */
class Worker {
  constructor(channel, hello) {
    this.channel = channel;
    this.hello = hello;
    this.runs = new AsyncLocalStorage();
    /** The run that goes on. */
    this.current = null;
    /** What has shown itself of runs that have ended. */
    this.leftover = null;
    this.loading = true;
    this.script = { context: hello.context };
    this.streams = new Streams(() => this.#isOver());
    this.children = new Children(() => this.#isOver(), this.streams);
    this.#link();
    this.#watch();
  }

  /** Whether the code that asks belongs to a run that has ended. Code outside any run is the script's own. */
  #isOver() {
    const run = this.runs.getStore();
    const over = run !== undefined && run !== this.current;
    if (over) this.leftover ??= 'work that goes on';
    return over;
  }

  /** Lets korelogger say whose line it is, and where it goes. */
  #link() {
    const mark = new pipe.Mark(this.hello.mark);
    const link = {
      current: () => this.runs.getStore() ?? this.current ?? this.script,
      emit: (owner, span, id) => {
        if (owner !== this.current) return pipe.send(LOG_FD, 'N', id, span);
        try {
          mark.send(1, LOG_FD, id, span);
        } catch {
          // The script has closed its standard output.
          pipe.send(LOG_FD, 'N', id, span);
        }
      },
    };
    Object.defineProperty(globalThis, LINK, { value: Object.freeze(link) });
  }

  /** What nobody catches fails the run that it belongs to. */
  #watch() {
    const failed = (event) => (error) => {
      // A script with a listener of its own has its own way.
      if (process.listenerCount(event) > 1) return;
      const run = this.runs.getStore() ?? this.current;
      if (this.loading) this.failLoading(error);
      else if (run && run === this.current) run.fail(error);
      else {
        this.leftover ??= 'an error that nobody caught';
        const { traceback, message } = failure(error, this.hello);
        this.streams.complain(`${traceback || message}\n`);
      }
    };
    process.on('uncaughtException', failed('uncaughtException'));
    process.on('unhandledRejection', failed('unhandledRejection'));
  }

  /** Loads main.js. Ends the process if that can not be done. */
  async load() {
    const failed = new Promise((_, reject) => (this.failLoading = reject));
    try {
      this.functions = await Promise.race([load(this.hello.app, this.hello.home), failed]);
    } catch (error) {
      const why = error instanceof LoadFailed ? error.message : `main.js could not be loaded: ${textOf(error)}`;
      await this.channel.send(JSON.stringify({ failed: why.toWellFormed() }));
      process.reallyExit(0);
    }
    this.loading = false;
    this.children.settle();
    const described = [...this.functions.values()].map((f) => f.described);
    await this.channel.send(JSON.stringify({ functions: described }));
  }

  /** Never returns. */
  async serve() {
    for (;;) {
      const [[header, text], handles] = await this.channel.receive(2, 2);
      const { function: name, context } = JSON.parse(header);
      const reply = await this.#run(this.functions.get(name), text, context, handles);
      const sent = this.channel.send(reply);
      // The caller has waited long enough.
      this.streams.rest();
      await sent;
    }
  }

  /** One run; its reply. The run's pipes are closed by then, and descriptors 1 and 2 nobody's. */
  async #run(target, text, context, handles) {
    const run = { context, failure: null, fail: null };
    this.streams.enter(handles);
    process.env[CONTEXT] = JSON.stringify({ ...context, pipe: `/proc/${process.pid}/fd/${LOG_FD}` });
    for (const [name, key] of Object.entries(TRACE)) {
      if (context[key]) process.env[name] = context[key];
    }
    this.current = run;
    let reply;
    try {
      reply = `"result":${await this.#call(run, target, text)}`;
    } catch (error) {
      const what = error instanceof BadResult ? error.described : failure(error, this.hello);
      reply = `"error":${JSON.stringify(what)}`;
    }
    this.current = null;
    // What outlives the run holds this object, and shall not hold its arguments.
    run.fail = null;
    for (const name of [CONTEXT, ...Object.keys(TRACE)]) delete process.env[name];
    const problem = this.streams.leave();
    const left = problem ?? this.children.left(run) ?? this.leftover ?? (run.failure && 'work that goes on');
    return left ? `{${reply},"leftover":${JSON.stringify(left)}}` : `{${reply}}`;
  }

  /** The result as JSON, or an error: what the function throws, or what nobody caught of its work. */
  #call(run, target, text) {
    return new Promise((resolve, reject) => {
      run.fail = (error) => {
        run.failure ??= { error };
        reject(error);
      };
      this.runs.run(run, async () => {
        try {
          const result = await bind(target, JSON.parse(text));
          // A turn of the event loop, in which Node tells of rejections that nobody handles.
          await new Promise(setImmediate);
          if (!run.failure) resolve(encode(result, this.hello.maxResultBytes));
        } catch (error) {
          reject(error);
        }
      });
    });
  }
}

async function main() {
  const channel = new Channel();
  const [[hello]] = await channel.receive(1, 0);
  const version = process.versions.node;
  if (Number(version.split('.')[0]) < MINIMUM) {
    await channel.send(JSON.stringify({ failed: `Node ${version} is too old; the image needs 20 or newer` }));
    process.reallyExit(0);
  }
  const worker = new Worker(channel, JSON.parse(hello));
  await worker.load();
  await worker.serve();
}

if (require.main === module) main();

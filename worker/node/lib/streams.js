'use strict';
// Points descriptors 1 and 2 at a run and back.
//
// Node can not duplicate a descriptor onto another. A pipe can be opened anew under /proc/self/fd, though, and a new
// descriptor is the lowest that is free: so 1 is closed and the run's pipe is opened as 1.

const fs = require('fs');
const { syncBuiltinESMExports } = require('module');
const { Writable } = require('stream');
const pipe = require('../korelogger/lib/pipe.js');

const EXIT_BROKEN = 70;

/** `process.stdout` of a worker: written at once, as a terminal is, so that nothing waits when a run ends. */
class Stream extends Writable {
  constructor(fd, streams) {
    super({ emitClose: false });
    this.fd = fd;
    this._type = 'pipe';
    this._isStdio = true;
    Object.defineProperty(this, 'route', { value: () => streams.route(fd) });
  }

  _write(chunk, _encoding, callback) {
    try {
      pipe.write(this.route(), chunk);
    } catch (error) {
      return callback(error);
    }
    callback();
  }
}

/** The process's standard output and error. `isOver` says whether the code that asks belongs to a run that has ended. */
class Streams {
  constructor(isOver) {
    this.isOver = isOver;
    this.idle = [reopen(1), reopen(2)];
    this.inodes = [0, 0];
    for (const [name, fd] of [['stdout', 1], ['stderr', 2]]) {
      const stream = new Stream(fd, this);
      this[name] = stream;
      Object.defineProperty(process, name, { configurable: true, enumerable: true, get: () => stream });
    }
    this.#routeFs();
  }

  /** Where what is written to descriptor 1 or 2 goes: not into the run that goes on, if it is another one's. */
  route(fd) {
    return (fd === 1 || fd === 2) && this.isOver() ? this.idle[fd - 1] : fd;
  }

  /** `fs.write` and `fs.writeSync` write to the descriptor that they are routed to. */
  #routeFs() {
    for (const name of ['write', 'writeSync']) {
      const original = fs[name];
      const streams = this;
      const routed = function (fd, ...rest) {
        return original.call(this, streams.route(fd), ...rest);
      };
      fs[name] = Object.defineProperties(routed, Object.getOwnPropertyDescriptors(original));
    }
    syncBuiltinESMExports();
  }

  /** Prints go to the run whose pipes these are. */
  enter(handles) {
    handles.forEach((handle, index) => {
      this.inodes[index] = handle.inode;
      close(index + 1);
      point(index + 1, handle.fd);
      handle.close();
    });
  }

  /** Prints go nowhere; says what is wrong with the streams, if anything. */
  leave() {
    let closed = this.stdout.writableEnded || this.stderr.writableEnded || this.stdout.destroyed || this.stderr.destroyed;
    for (const fd of [1, 2]) {
      closed ||= inodeOf(fd) !== this.inodes[fd - 1];
      close(fd);
    }
    return closed ? 'a closed standard output' : null;
  }

  /** Prints go to no run. */
  rest() {
    this.idle.forEach((idle, index) => point(index + 1, idle));
  }

  /** Writes text for people, of no run. */
  complain(text) {
    pipe.write(this.idle[1], Buffer.from(text));
  }
}

function reopen(fd) {
  return fs.openSync(`/proc/self/fd/${fd}`, fs.constants.O_WRONLY);
}

function close(fd) {
  try {
    fs.closeSync(fd);
  } catch {
    // The script has closed it.
  }
}

/** Makes descriptor `target`, which is free, one of the pipe that `source` is one of. */
function point(target, source) {
  for (;;) {
    const opened = reopen(source);
    if (opened === target) return;
    fs.closeSync(opened);
    // Another thread was faster, and nothing can be done about that. Lower ones the script has closed.
    if (opened > target) process.reallyExit(EXIT_BROKEN);
    fs.openSync('/dev/null', fs.constants.O_RDONLY);
  }
}

function inodeOf(fd) {
  try {
    return fs.fstatSync(fd).ino;
  } catch {
    return null;
  }
}

module.exports = { Streams, inodeOf };

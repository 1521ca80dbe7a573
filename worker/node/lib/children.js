'use strict';
// Knows the processes that runs have started, and where those print.

const fs = require('fs');
const { ChildProcess } = require('child_process');

class Children {
  constructor(isOver, streams) {
    this.isOver = isOver;
    this.streams = streams;
    this.running = new Set();
    this.#watch();
  }

  #watch() {
    const children = this;
    const { spawn } = ChildProcess.prototype;
    ChildProcess.prototype.spawn = function (options) {
      const over = children.isOver();
      const routed = over ? { ...options, stdio: children.#stdio(options.stdio) } : options;
      const result = spawn.call(this, routed);
      if (!over && this.pid !== undefined) children.#add(this);
      return result;
    };
  }

  #add(child) {
    this.running.add(child);
    child.once('exit', () => this.running.delete(child));
  }

  /** A process of a run that is over does not print into the one that goes on. */
  #stdio(stdio = 'pipe') {
    const list = typeof stdio === 'string' ? [stdio, stdio, stdio] : stdio;
    return list.map((item, index) => {
      const fd = item === 'inherit' ? index : (item?.fd ?? item);
      return fd === 1 || fd === 2 ? this.streams.idle[fd - 1] : item;
    });
  }

  /** What main.js has started while being loaded is the script's. */
  settle() {
    this.running.clear();
  }

  /** Whether a process of the run that ends still runs. */
  left() {
    const left = [...this.running].some((child) => isRunning(child.pid));
    this.running.clear();
    return left ? 'a process' : null;
  }
}

/** One whose end this process has not heard of yet does no harm. */
function isRunning(pid) {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The name, in parentheses, may hold anything.
    return !'ZX'.includes(stat.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3));
  } catch {
    return false;
  }
}

module.exports = { Children };

'use strict';
// Lines on their way to the runner, over a pipe that a worker and the processes it starts may share.
//
// A write of up to 4096 bytes into a pipe is never mixed with another one. So a line is one write of `E{span}` or `N{span}`
// and a line end (E: a mark in standard output says where its echo belongs, N: none does). A longer span comes in pieces,
// each a write of `+`, the line's id and the piece; the last one has the letter instead of `+`.

const fs = require('fs');

const ATOMIC = 4096;
const ID_LENGTH = 24;
const PIECE = ATOMIC - 2 - ID_LENGTH;
/** Milliseconds after which a full pipe is tried again. */
const PAUSE = 1;
const NEWLINE = Buffer.from('\n');

// As they were when this file was loaded: a worker routes what the script writes.
const { writeSync } = fs;
let waiting = null;

/** Writes all of it, waiting while the pipe is full: a process that shares it may have made it non-blocking. */
function write(fd, bytes) {
  for (let at = 0; at < bytes.length; ) {
    try {
      at += writeSync(fd, bytes, at);
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
      waiting ??= new Int32Array(new SharedArrayBuffer(4));
      Atomics.wait(waiting, 0, 0, PAUSE);
    }
  }
}

/** Sends a span. */
function send(fd, kind, id, span) {
  const whole = Buffer.from(`${kind}${span}\n`);
  if (whole.length <= ATOMIC) return write(fd, whole);
  const bytes = whole.subarray(1, whole.length - 1);
  for (let at = 0; at < bytes.length; at += PIECE) {
    const letter = at + PIECE < bytes.length ? '+' : kind;
    write(fd, Buffer.concat([Buffer.from(letter + id), bytes.subarray(at, at + PIECE), NEWLINE]));
  }
}

/**
 * The mark that says where in a run's standard output the echo of a line belongs. It holds the span, if one write does:
 * behind `=` and its length in four hexadecimal digits. Otherwise it names the line, whose span goes ahead of it.
 */
class Mark {
  constructor(prefix) {
    this.prefix = prefix;
    this.head = `${prefix.slice(0, -1)}=0000`;
    this.overhead = Buffer.byteLength(this.head) + 1;
  }

  send(stdout, fd, id, span) {
    const whole = Buffer.from(`${this.head}${span}\0`);
    if (whole.length <= ATOMIC) {
      const length = (whole.length - this.overhead).toString(16).padStart(4, '0');
      whole.write(length, this.overhead - 5, 'latin1');
      return write(stdout, whole);
    }
    send(fd, 'E', id, span);
    write(stdout, Buffer.from(`${this.prefix}${id}\0`));
  }
}

module.exports = { Mark, send, write };

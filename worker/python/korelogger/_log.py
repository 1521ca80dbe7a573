"""Where log lines go.

In a worker of the ScriptScope runner a mark in the run's standard output holds each line, which the runner prints at once.
It also says where the echo ``LEVEL :: message`` belongs: the caller sees it there, and it is not stored a second time. A
line that is too long for one write goes ahead as a datagram, and the mark names it. A process that a run starts sends
datagrams without a mark, since its output may be read by the run itself. Anywhere else the span and the echo are printed.
"""

import json
import os
import select
import socket
import sys
import threading

from . import _span

_CONTEXT = "SCRIPTSCOPE_RUN_CONTEXT"
# As OpenTelemetry passes a trace on in a process's environment.
_TRACE = {"TRACEPARENT": "traceparent", "TRACESTATE": "tracestate"}
_PAUSE_MS = 1
# A write of so many bytes into a pipe is never mixed with another one.
_ATOMIC = 4096


class _Sink:
    """The way to the runner. ``mark`` and ``mark_fd`` only within a run of the worker itself."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        # The leading NUL makes it an abstract name, which needs no writable folder.
        self.socket.connect("\0" + address)
        self.room = select.poll()
        self.room.register(self.socket, select.POLLOUT)
        self.mark = b""
        self.mark_fd = -1

    def send(self, datagram: bytes) -> None:
        """Sends a datagram; waits while the runner has too many to read."""
        while True:
            try:
                self.socket.send(datagram, socket.MSG_DONTWAIT)
                return
            except BlockingIOError:
                # gVisor wakes nobody who waits for room in a socket that is bound and not connected: ask again soon.
                self.room.poll(_PAUSE_MS)


_lock = threading.Lock()
_sink = None
_template = None
_outside = None
_opened = False


def debug(msg: object, *args: object, **attributes: object) -> None:
    """Logs at level DEBUG."""
    log("DEBUG", msg, args, attributes)


def info(msg: object, *args: object, **attributes: object) -> None:
    """Logs at level INFO."""
    log("INFO", msg, args, attributes)


def warning(msg: object, *args: object, **attributes: object) -> None:
    """Logs at level WARNING."""
    log("WARNING", msg, args, attributes)


def error(msg: object, *args: object, **attributes: object) -> None:
    """Logs at level ERROR."""
    log("ERROR", msg, args, attributes)


def log(level: str, msg: object, args: tuple, attributes: dict) -> None:
    """Logs a line; never raises."""
    try:
        message = _message(msg, args)
        with _lock:
            _open()
            log_id = _span.next_id()
            text = _template.span(level, message, attributes, log_id)
            if _sink is None:
                _print(f"{text}\n{level} :: {message}\n")
            else:
                _send(_sink, text, log_id)
    except Exception:
        # Logging must not break what it tells of.
        pass


def traceparent() -> str:
    """The run's W3C `traceparent`, to be sent with calls of other services; empty outside a run."""
    return os.environ.get("TRACEPARENT", "")


def tracestate() -> str:
    """The `tracestate` that came with the run's call; empty where there is none."""
    return os.environ.get("TRACESTATE", "")


def _message(msg: object, args: tuple) -> str:
    message = msg if isinstance(msg, str) else _span.text_of(msg)
    if not args:
        return message
    try:
        # As `logging` does: a single mapping serves %(name)s.
        return message % (args[0] if len(args) == 1 and isinstance(args[0], dict) and args[0] else args)
    except Exception:
        return f"{message} {_span.text_of(args)}"


def _open() -> None:
    """Finds out, once a process, where lines go when no worker has said so."""
    global _sink, _template, _opened
    if _opened:
        return
    _opened = True
    try:
        context = json.loads(os.environ.get(_CONTEXT, "{}"))
        if "socket" in context:
            _sink = _Sink(context["socket"])
    except Exception:
        context, _sink = {}, None
    _template = _span.Template(context)


def _send(sink: _Sink, text: str, log_id: str) -> None:
    span = text.encode("utf-8", "replace")
    if sink.mark_fd < 0:
        sink.send(b"N" + span)
        return
    # The mark ends in a colon; a span stands behind an equals sign and its length in four hexadecimal digits.
    whole = b"%b=%04x%b\0" % (sink.mark[:-1], len(span), span)
    try:
        if len(whole) <= _ATOMIC:
            _write(sink.mark_fd, whole)
            return
    except OSError:
        # The script has closed its standard output.
        sink.send(b"N" + span)
        return
    sink.send(b"E" + span)
    _write(sink.mark_fd, sink.mark + log_id.encode() + b"\0")


def _write(fd: int, mark: bytes) -> None:
    """Writes a mark as a whole; waits while the pipe is full, which the script may have made non-blocking."""
    while True:
        try:
            os.write(fd, mark)
            return
        except BlockingIOError:
            select.select((), (fd,), (), _PAUSE_MS / 1000)


def _print(text: str) -> None:
    out = sys.stdout
    try:
        out.write(text)
    except UnicodeError:
        out.write(text.encode("ascii", "backslashreplace").decode())
    out.flush()


# What the worker calls. Not part of the package's interface.


def attach(address: str, mark: bytes, context: dict) -> None:
    """Sends all lines to the runner from here on; `context` is what lines outside a run say."""
    global _sink, _template, _outside, _opened
    with _lock:
        _sink = _Sink(address)
        _sink.mark = mark
        _template = _outside = _span.Template(context)
        _opened = True


def begin_run(context: dict, mark_fd: int) -> None:
    """Lines belong to this run from here on; `mark_fd` is its standard output."""
    global _template
    os.environ[_CONTEXT] = json.dumps(context)
    for variable, key in _TRACE.items():
        if context.get(key):
            os.environ[variable] = context[key]
        else:
            os.environ.pop(variable, None)
    with _lock:
        _template = _span.Template(context)
        _sink.mark_fd = mark_fd


def end_run() -> None:
    """Lines belong to no run from here on. Afterwards nobody uses `mark_fd`."""
    global _template
    for variable in (_CONTEXT, *_TRACE):
        os.environ.pop(variable, None)
    with _lock:
        _sink.mark_fd = -1
        _template = _outside


def _after_fork() -> None:
    """A forked child is a process of its own: another lock, other ids, no mark."""
    global _lock
    _lock = threading.Lock()
    _span.after_fork()
    if _sink is not None:
        _sink.mark_fd = -1


os.register_at_fork(after_in_child=_after_fork)

"""A log line as a span, in the shape of OpenTelemetry's console exporter, on one line.

Most of a span is the same for every line of a run, so that part is written once (``Template``): a call then costs a few
microseconds, which matters where every system call does too.
"""

import functools
import json
import os
import random
import socket
import time

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
# A span is one datagram, and Linux lets one hold about 200 KiB by default.
MAX_SPAN = 128 * 1024
MAX_MESSAGE = 64 * 1024
MAX_ATTRIBUTE = 8 * 1024
MAX_ATTRIBUTES = 64
CUT = " [cut]"

_RUN_KEYS = ("traceparent", "run_id", "deployment_id", "source", "source_type")
_RESERVED = frozenset(_RUN_KEYS)

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=str).encode
# Not the program's own generator: a script that seeds it must not get the same ids twice.
_ids = random.Random(os.urandom(16))
_prefix = os.urandom(8).hex()
_count = 0
_second = -1
_second_text = ""


def after_fork() -> None:
    """Ids of a forked child are its own."""
    global _prefix, _count
    _ids.seed(os.urandom(16))
    _prefix = os.urandom(8).hex()
    _count = 0


def next_id() -> str:
    """24 hexadecimal digits, unique. The caller holds the lock."""
    global _count
    _count += 1
    return f"{_prefix}{_count & 0xFFFFFFFF:08x}"


def timestamp() -> str:
    """Now, RFC 3339, UTC, to the microsecond."""
    global _second, _second_text
    seconds, nanos = divmod(time.time_ns(), 1_000_000_000)
    if seconds != _second:
        _second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        _second = seconds
    return f"{_second_text}.{nanos // 1000:06d}Z"


@functools.cache
def _resource() -> str:
    return _encode(
        {
            "service.name": os.environ.get("OTEL_SERVICE_NAME", "gvisor-py-normal"),
            "service.instance.id": socket.gethostname(),
            "deployment.environment": os.environ.get("DEPLOYMENT_ENVIRONMENT", "default"),
        }
    )


class Template:
    """What all spans of one run have in common."""

    def __init__(self, context: dict) -> None:
        self._context = context
        self._tail = ""

    def _fill(self) -> None:
        """Most runs log nothing, and need none of this."""
        context = self._context
        trace = str(context.get("traceparent") or "")
        parts = trace.split("-")
        trace_id = parts[1] if len(parts) == 4 and len(parts[1]) == 32 else _ids.getrandbits(128).to_bytes(16, "big").hex()
        self._ids = f'"context":{{"trace_id":"0x{trace_id}","span_id":"0x'
        known = {key: str(context[key]) for key in _RUN_KEYS if context.get(key) is not None}
        self._attributes = "".join(f'"{key}":{_encode(value)},' for key, value in known.items())
        self._trace = _encode(trace)
        self._pid = os.getpid()
        self._tail = f'}},"events":[],"links":[],"resource":{{"attributes":{_resource()},"schema_url":""}}}}'

    def span(self, level: str, message: str, attributes: dict, log_id: str) -> str:
        """The span. Never longer than a datagram: the message is cut before that."""
        if not self._tail:
            self._fill()
        text = _encode(message if len(message) <= MAX_MESSAGE else message[:MAX_MESSAGE] + CUT)
        extra = _extra(attributes) if attributes else ""
        if len(text) + len(extra) > MAX_SPAN // 4:
            text, extra = _fit(message, text, extra)
        now = timestamp()
        return (
            f'{{"name":"gvisor_{level.lower()}_log",{self._ids}{_ids.getrandbits(64):016x}","trace_state":"[]"}},'
            f'"kind":"SpanKind.INTERNAL","parent_id":null,"start_time":"{now}","end_time":"{now}",'
            f'"status":{{"status_code":"UNSET"}},"attributes":{{{self._attributes}"log.message":{text},'
            f'"log.level":"{level}","log.trace_id":{self._trace},"log.meta.msg":{text if len(text) < 512 else _encode(message[:256])},'
            f'"log.meta.pid":"{self._pid}","log.meta.logid":"{log_id}"{extra}{self._tail}'
        )


def _fit(message: str, text: str, extra: str) -> tuple:
    """Cuts by encoded bytes: control characters take six each, other scripts three."""
    if len(extra.encode("utf-8", "replace")) > MAX_SPAN // 2:
        extra = ',"attributes.cut":true'
    length = min(len(message), MAX_MESSAGE)
    while len(text.encode("utf-8", "replace")) > MAX_SPAN // 2:
        length //= 2
        text = _encode(message[:length] + CUT)
    return text, extra


def _extra(attributes: dict) -> str:
    """Attributes of the caller, each as JSON: its own if it has one, else its text. None takes one of ours' place."""
    parts = []
    for name, value in list(attributes.items())[:MAX_ATTRIBUTES]:
        name = str(name)[:256]
        if name in _RESERVED or name.startswith("log."):
            name = f"user.{name}"
        try:
            text = _encode(value)
        except Exception:
            text = _encode(text_of(value))
        if len(text) > MAX_ATTRIBUTE:
            text = _encode(text_of(value)[: MAX_ATTRIBUTE // 8] + CUT)
        parts.append(f",{_encode(name)}:{text}")
    return "".join(parts)


def text_of(value: object) -> str:
    """``str``, which may raise, without the raising."""
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__} that has no text>"

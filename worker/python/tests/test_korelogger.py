"""korelogger as its users know it, outside a ScriptScope pod and with a runner that listens."""

import asyncio
import contextlib
import io
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import unittest
import uuid

import korelogger
from korelogger import _log, _span

HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CONTEXT = {
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "run_id": "run_1",
    "deployment_id": "deploy_1",
    "source": "billing",
    "source_type": "Tool",
}


def printed(call, *args, **attributes):
    """The span and the echo that a call prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        call(*args, **attributes)
    span, echo = out.getvalue().split("\n", 1)
    return json.loads(span), echo


class Outside(unittest.TestCase):
    def test_a_line_is_a_span_and_an_echo(self):
        span, echo = printed(korelogger.info, "balance of %s is %d", "a\nb", 7, shop=17)
        self.assertEqual(echo, "INFO :: balance of a\nb is 7\n")
        self.assertEqual(span["name"], "gvisor_info_log")
        self.assertEqual(
            sorted(span),
            sorted("name context kind parent_id start_time end_time status attributes events links resource".split()),
        )
        attributes = span["attributes"]
        self.assertEqual(attributes["log.message"], "balance of a\nb is 7")
        self.assertEqual(attributes["log.level"], "INFO")
        self.assertEqual(attributes["log.meta.pid"], str(os.getpid()))
        self.assertEqual(attributes["shop"], 17)
        self.assertRegex(span["context"]["trace_id"], "^0x[0-9a-f]{32}$")
        self.assertRegex(span["context"]["span_id"], "^0x[0-9a-f]{16}$")
        self.assertRegex(span["start_time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")

    def test_every_level_has_its_name(self):
        for level in ("debug", "info", "warning", "error"):
            span, echo = printed(getattr(korelogger, level), "x")
            self.assertEqual(span["name"], f"gvisor_{level}_log")
            self.assertEqual(echo, f"{level.upper()} :: x\n")

    def test_a_trace_comes_from_the_environment(self):
        self.assertEqual((korelogger.traceparent(), korelogger.tracestate()), ("", ""))
        os.environ["TRACEPARENT"] = CONTEXT["traceparent"]
        self.addCleanup(os.environ.pop, "TRACEPARENT")
        self.assertEqual(korelogger.traceparent(), CONTEXT["traceparent"])

    def test_ids_are_unique(self):
        spans = [printed(korelogger.info, "x")[0] for _ in range(1000)]
        self.assertEqual(len({s["attributes"]["log.meta.logid"] for s in spans}), 1000)
        self.assertEqual(len({s["context"]["span_id"] for s in spans}), 1000)

    def test_logging_can_use_it(self):
        log = logging.getLogger("test")
        log.setLevel(logging.DEBUG)
        log.propagate = False
        log.addHandler(korelogger.KoreHandler())
        span, _ = printed(log.warning, "%s left", 3)
        self.assertEqual(span["attributes"]["log.level"], "WARNING")
        self.assertEqual(span["attributes"]["log.message"], "3 left")
        self.assertEqual(span["attributes"]["logger"], "test")

    def test_it_never_raises_and_stays_json(self):
        class Bad:
            def __str__(self):
                raise RuntimeError

            __repr__ = __str__

        loop = []
        loop.append(loop)
        for args, attributes in [
            ((Bad(),), {}),
            (("%d", "x"), {}),
            (("%(a)s", {"a": 1}), {}),
            (("x",), {"v": Bad()}),
            (("x",), {"v": loop}),
            (("x",), {"v": float("nan")}),
            (("half \udcff",), {"v": "\udcff"}),
            (("x",), {f"a{i}": "y" * 10_000 for i in range(100)}),
            (("x",), {"run_id": "mine", "log.level": "LOUD"}),
        ]:
            span, _ = printed(korelogger.error, *args, **attributes)
            self.assertEqual(span["attributes"]["log.level"], "ERROR")
        with contextlib.redirect_stdout(None):
            korelogger.info("nowhere to go")

    def test_a_span_fits_a_datagram(self):
        for text in ("x", "\0", "\u20ac", "\U0001f600", '"'):
            template = _span.Template({})
            span = template.span("INFO", text * 1_000_000, {"v": text * 1_000_000}, "id")
            self.assertLess(len(span.encode()), 200_000)
            message = json.loads(span)["attributes"]["log.message"]
            self.assertTrue(message.startswith(text) and message.endswith("[cut]"))


class Inside(unittest.TestCase):
    def setUp(self):
        self.name = f"korelogger-{uuid.uuid4()}"
        self.runner = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.runner.bind("\0" + self.name)
        self.runner.settimeout(10)
        self.addCleanup(self.runner.close)

    def receive(self):
        datagram = self.runner.recv(1 << 20)
        return datagram[:1], json.loads(datagram[1:])

    def test_threads_and_tasks_of_a_run_log_into_it(self):
        state = (_log._sink, _log._template, _log._outside, _log._opened)
        self.addCleanup(lambda: _restore(state))
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        _log.attach(self.name, b"\0mark:", {"deployment_id": "deploy_1"})
        _log.begin_run(CONTEXT, write)

        def log(name):
            for i in range(20):
                korelogger.info("%s %d", name, i)

        async def task(name):
            for i in range(20):
                korelogger.info("%s %d", name, i)
                await asyncio.sleep(0)

        async def tasks():
            await asyncio.gather(task("a"), task("b"), asyncio.to_thread(log, "c"))

        output = []
        reader = threading.Thread(target=lambda: output.append(_read_all(read)))
        reader.start()
        other = threading.Thread(target=log, args=("d",))
        other.start()
        asyncio.run(tasks())
        other.join()
        _log.end_run()
        os.close(write)
        reader.join()
        received = _marked(output[0])
        self.assertEqual({span["attributes"]["run_id"] for span in received}, {"run_1"})
        texts = sorted(span["attributes"]["log.message"] for span in received)
        self.assertEqual(texts, sorted(f"{name} {i}" for name in "abcd" for i in range(20)))

    def test_a_line_too_long_for_one_write_goes_ahead_of_its_mark(self):
        state = (_log._sink, _log._template, _log._outside, _log._opened)
        self.addCleanup(lambda: _restore(state))
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        _log.attach(self.name, b"\0mark:", {})
        _log.begin_run(CONTEXT, write)
        korelogger.info("x" * 5000)
        _log.end_run()
        os.close(write)
        kind, span = self.receive()
        self.assertEqual((kind, span["attributes"]["log.message"]), (b"E", "x" * 5000))
        log_id = span["attributes"]["log.meta.logid"]
        self.assertEqual(len(log_id), 24)
        self.assertEqual(_read_all(read), b"\0mark:" + log_id.encode() + b"\0")

    def test_a_full_pipe_that_does_not_block_is_waited_for(self):
        state = (_log._sink, _log._template, _log._outside, _log._opened)
        self.addCleanup(lambda: _restore(state))
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        os.set_blocking(write, False)
        _log.attach(self.name, b"\0mark:", {})
        _log.begin_run(CONTEXT, write)
        output = []
        reader = threading.Thread(target=lambda: output.append(_read_all(read)))
        threading.Timer(0.05, reader.start).start()
        for i in range(200):
            korelogger.info("%d", i)
        _log.end_run()
        os.close(write)
        while not output:
            threading.Event().wait(0.01)
        self.assertEqual([span["attributes"]["log.message"] for span in _marked(output[0])], [str(i) for i in range(200)])

    def test_a_line_is_kept_where_the_output_is_closed(self):
        state = (_log._sink, _log._template, _log._outside, _log._opened)
        self.addCleanup(lambda: _restore(state))
        read, write = os.pipe()
        os.close(read)
        self.addCleanup(os.close, write)
        _log.attach(self.name, b"\0mark:", {})
        _log.begin_run(CONTEXT, write)
        korelogger.info("nobody reads")
        _log.end_run()
        kind, span = self.receive()
        self.assertEqual((kind, span["attributes"]["log.message"]), (b"N", "nobody reads"))

    def test_a_child_of_a_run_logs_into_it(self):
        code = "import korelogger; korelogger.info('from a child'); print('its own')"
        environment = {
            **os.environ,
            "PYTHONPATH": HOME,
            "SCRIPTSCOPE_RUN_CONTEXT": json.dumps({"socket": self.name, **CONTEXT}),
        }
        out = subprocess.run(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, check=True
        ).stdout
        self.assertEqual(out, "its own\n")
        kind, span = self.receive()
        self.assertEqual(kind, b"N")
        self.assertEqual(span["context"]["trace_id"], "0x4bf92f3577b34da6a3ce929d0e0e4736")
        for name, value in CONTEXT.items():
            self.assertEqual(span["attributes"][name], value)

    def test_more_lines_than_the_runner_has_room_for_all_arrive(self):
        code = "import korelogger\nfor i in range(2000): korelogger.info('%d', i)"
        environment = {
            **os.environ,
            "PYTHONPATH": HOME,
            "SCRIPTSCOPE_RUN_CONTEXT": json.dumps({"socket": self.name, **CONTEXT}),
        }
        with subprocess.Popen([sys.executable, "-c", code], env=environment) as child:
            received = [self.receive()[1]["attributes"]["log.message"] for _ in range(2000)]
        self.assertEqual(child.returncode, 0)
        self.assertEqual(received, [str(i) for i in range(2000)])

    def test_within_a_worker_a_mark_says_where_the_echo_belongs(self):
        state = (_log._sink, _log._template, _log._outside, _log._opened)
        self.addCleanup(lambda: _restore(state))
        read, write = os.pipe()
        _log.attach(self.name, b"\0mark:", {"deployment_id": "deploy_1"})
        korelogger.info("before")
        _log.begin_run(CONTEXT, write)
        self.assertIn("SCRIPTSCOPE_RUN_CONTEXT", os.environ)
        korelogger.info("during")
        _log.end_run()
        self.assertNotIn("SCRIPTSCOPE_RUN_CONTEXT", os.environ)
        korelogger.info("after")
        os.close(write)
        spans = [self.receive() for _ in range(2)]
        self.assertEqual([(kind, s["attributes"].get("run_id")) for kind, s in spans], [(b"N", None)] * 2)
        (during,) = _marked(_read_all(read))
        self.assertEqual(during["attributes"]["run_id"], "run_1")
        os.close(read)


def _read_all(fd):
    """What a pipe holds until its end."""
    parts = []
    while part := os.read(fd, 1 << 16):
        parts.append(part)
    return b"".join(parts)


def _marked(output):
    """The spans in marks, of which the output consists."""
    spans = []
    while output:
        head, rest = output[: len(b"\0mark=0000")], output[len(b"\0mark=0000") :]
        assert head.startswith(b"\0mark="), head
        length = int(head[-4:], 16)
        spans.append(json.loads(rest[:length]))
        assert rest[length : length + 1] == b"\0"
        output = rest[length + 1 :]
    return spans


def _restore(state):
    _log._sink.socket.close()
    _log._sink, _log._template, _log._outside, _log._opened = state


if __name__ == "__main__":
    unittest.main()

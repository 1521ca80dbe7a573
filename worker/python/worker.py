"""A worker of the ScriptScope runner: holds a script's main.py and calls one of its functions at a time.

Standard input is a Unix stream socket to the runner. A frame is its length (4 bytes, big endian) and that many bytes of
JSON. The runner speaks first:

    runner: {"app", "home", "socket", "mark", "context", "maxResultBytes"}
    worker: {"functions": [...]} or {"failed": "why main.py could not be loaded"}
    runner: {"function", "context"}, then a frame with the arguments; with them two file descriptors
    worker: {"result": ...} or {"error": {"reason", "type", "message", "traceback"}}, with {"leftover": "..."} where
            something of the run lives on

The two descriptors are the run's own standard output and error: pipes that nobody but the run ever holds, so that their
end says that no process of the run is left, and nothing that is can print into another run. Between runs, descriptors 1
and 2 are the script's own, whose lines belong to no run.
"""

import importlib.util
import inspect
import json
import os
import socket
import struct
import sys

# asyncio, ctypes and traceback are imported when first needed: each file costs much in a sandbox, and a worker should
# be there soon.

MINIMUM = (3, 10)
RECEIVE_BYTES = 64 * 1024
MAX_MESSAGE = 16 * 1024
MAX_TRACEBACK = 64 * 1024
CUT = "\n[cut]"

_LIBRARY = os.path.dirname(os.__file__)
_OUR_FILES = (os.path.abspath(__file__), os.path.join(_LIBRARY, "asyncio") + os.sep)
_POOL_FILE = os.path.join(_LIBRARY, "concurrent", "futures", "thread.py")


class Channel:
    """The socket to the runner."""

    def __init__(self):
        self.socket = socket.socket(fileno=os.dup(0))
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)

        self.received = bytearray()
        self.fds = []

    def receive(self):
        """The next frame. Ends the process when the runner is gone."""
        while len(self.received) < 4:
            self._more()
        (length,) = struct.unpack_from(">I", self.received)
        while len(self.received) < 4 + length:
            self._more()
        frame = bytes(memoryview(self.received)[4 : 4 + length])
        del self.received[: 4 + length]
        return frame

    def _more(self):
        part, fds, _, _ = socket.recv_fds(self.socket, RECEIVE_BYTES, 2, getattr(socket, "MSG_CMSG_CLOEXEC", 0))
        if not part:
            os._exit(0)
        self.received += part
        self.fds += fds

    def take_fds(self):
        """The descriptors that came with the frames received so far."""
        fds, self.fds = self.fds, []
        return fds

    def send(self, payload):
        """Sends a frame."""
        try:
            self.socket.sendall(struct.pack(">I", len(payload)) + payload)
        except OSError:
            os._exit(0)


class Streams:
    """Points descriptors 1 and 2 at a run and back."""

    def __init__(self):
        for stream in (sys.stdout, sys.stderr):
            # Whatever the image's locale is. Text that is no text must not pass on standard output.
            stream.reconfigure(encoding="utf-8", errors="strict" if stream is sys.stdout else "backslashreplace")
        self.idle = (os.dup(1), os.dup(2))
        self.objects = (sys.stdout, sys.stderr)
        self._flush_c = CFlush()

    def settle(self):
        """What main.py has made of sys.stdout while being loaded is how it shall be."""
        self.objects = (sys.stdout, sys.stderr)

    def enter(self, fds):
        """Prints go to the run."""
        os.dup2(fds[0], 1)
        os.dup2(fds[1], 2)

    def leave(self, fds):
        """Prints go to no run; says what is wrong with the streams, if anything."""
        problem = None
        for stream in (sys.stdout, sys.stderr, *self.objects, sys.__stdout__, sys.__stderr__):
            try:
                stream.flush()
            except Exception:
                problem = "a closed standard output"
        self._flush_c()
        sys.stdout, sys.stderr = self.objects
        os.dup2(self.idle[0], 1)
        os.dup2(self.idle[1], 2)
        close(fds)
        return problem


def close(fds):
    """Closes descriptors; with one system call where they follow each other, since each costs much in a sandbox."""
    if fds and fds[-1] - fds[0] == len(fds) - 1:
        os.closerange(fds[0], fds[-1] + 1)
    else:
        for fd in fds:
            os.close(fd)


class CFlush:
    """Flushes what C code has printed and the C library still holds, if there is any C code but Python's own."""

    def __init__(self):
        self.modules = 0
        self.flush = None

    def __call__(self):
        if self.flush is None:
            if len(sys.modules) == self.modules:
                return
            self.modules = len(sys.modules)
            if not any(map(_is_native, list(sys.modules.items()))):
                return
            self.flush = self._find()
        self.flush()

    @staticmethod
    def _find():
        try:
            import ctypes

            library = ctypes.CDLL(None)
            streams = [ctypes.c_void_p.in_dll(library, name) for name in ("stdout", "stderr")]
            return lambda: [library.fflush(stream) for stream in streams]
        except Exception:
            return lambda: None


def _is_native(item):
    name, module = item
    if name == "ctypes":
        return True
    path = getattr(module, "__file__", None)
    return isinstance(path, str) and path.endswith(".so") and "lib-dynload" not in path


class LoadFailed(Exception):
    """main.py can not be used; the message is for people."""


def load(app):
    """Imports main.py."""
    path = os.path.join(app, "main.py")
    if not os.path.isfile(path):
        try:
            names = sorted(name for name in os.listdir(app) if not name.startswith("."))
        except OSError as error:
            raise LoadFailed(f"main.py is missing: {app} can not be read ({error.strerror})") from None
        found = ", ".join(names[:20]) or "nothing"
        raise LoadFailed(f"main.py is missing in {app}, which holds: {found}")
    os.chdir(app)
    spec = importlib.util.spec_from_file_location("main", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["main"] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        raise LoadFailed(load_problem(app, error)) from None
    return module


def load_problem(app, error):
    """One paragraph on why main.py could not be imported."""
    kind = type(error).__name__
    if isinstance(error, SyntaxError):
        where = _relative(app, error.filename or "main.py")
        line = (error.text or "").strip()
        return text_of(f"{kind} in {where}, line {error.lineno}: {error.msg}" + (f": `{line[:200]}`" if line else ""))
    message = text_of(error).strip()[:2000]
    if isinstance(error, SystemExit):
        kind, message = "sys.exit", f"main.py called sys.exit({error.code!r}) while it was being loaded"
    import traceback

    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(app.rstrip("/") + "/")]
    if not frames:
        return text_of(f"{kind} while main.py was being loaded: {message}")
    frame = frames[-1]
    line = f": `{frame.line[:200]}`" if frame.line else ""
    return text_of(f"{kind} in {_relative(app, frame.filename)}, line {frame.lineno}: {message}{line}")


def _relative(app, path):
    prefix = app.rstrip("/") + "/"
    return path[len(prefix) :] if path.startswith(prefix) else path


def functions_of(module):
    """Public functions that main.py itself defines, by name."""
    found = {}
    for name, value in vars(module).items():
        if name.startswith("_") or inspect.isclass(value) or not callable(value):
            continue
        # Wrappers such as functools.lru_cache make are no functions but speak for one.
        if not inspect.isfunction(value) and not hasattr(value, "__wrapped__"):
            continue
        if getattr(value, "__module__", None) == module.__name__:
            found[name] = value
    return found


def describe(name, function):
    """What a caller must know of a function."""
    parameters, any_argument = [], False
    for parameter in _signature(function):
        if parameter.kind is parameter.VAR_KEYWORD:
            any_argument = True
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            parameters.append(_describe_parameter(parameter))
    return {
        "name": name,
        "parameters": parameters,
        "acceptsAnyArgument": any_argument,
        "doc": text_of(inspect.getdoc(function) or "")[:MAX_MESSAGE],
    }


def _signature(function):
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return [inspect.Parameter("arguments", inspect.Parameter.VAR_KEYWORD)]


def _describe_parameter(parameter):
    described = {"name": parameter.name, "required": parameter.default is parameter.empty}
    if parameter.default is not parameter.empty:
        try:
            text = json.dumps(parameter.default, allow_nan=False)
            described["default"] = parameter.default if len(text) <= 1024 else text_of(text)[:1024] + CUT
        except Exception:
            described["default"] = text_of(repr_of(parameter.default))[:1024]
    if parameter.annotation is not parameter.empty:
        annotation = parameter.annotation
        text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
        described["annotation"] = text_of(text)[:256]
    return described


def call(function, arguments):
    """Calls a function by argument name; awaits what needs awaiting."""
    positional = []
    for parameter in _signature(function) if arguments else ():
        if parameter.kind is not parameter.POSITIONAL_ONLY or parameter.name not in arguments:
            break
        positional.append(arguments.pop(parameter.name))
    result = function(*positional, **arguments)
    if not inspect.isawaitable(result):
        return result
    import asyncio

    return asyncio.run(_awaited(result))


async def _awaited(awaitable):
    return await awaitable


def text_of(value):
    """``str`` that can not fail and has no half characters."""
    try:
        text = str(value)
    except Exception:
        text = f"<{type(value).__name__} that has no text>"
    return text.encode("utf-8", "backslashreplace").decode()


def repr_of(value):
    """``repr`` that can not fail."""
    try:
        return repr(value)
    except Exception:
        return f"<{type(value).__name__}>"


def failure(error):
    """An exception of a run, as the runner takes it."""
    if isinstance(error, SystemExit):
        code = 0 if error.code is None else error.code
        return {"reason": "WorkerExited", "message": text_of(f"the function called sys.exit({code!r})")[:MAX_MESSAGE]}
    if isinstance(error, BadResult):
        return {"reason": error.reason, "message": text_of(error)[:MAX_MESSAGE]}
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ in ("builtins", "main") else f"{kind.__module__}.{kind.__qualname__}"
    return {
        "reason": "Exception",
        "type": text_of(name),
        "message": _cut(text_of(error) or text_of(name), MAX_MESSAGE),
        "traceback": _cut(traceback_of(error), MAX_TRACEBACK),
    }


def traceback_of(error):
    """The traceback from the user's first frame on."""
    import traceback

    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_OUR_FILES):
        frames = frames.tb_next
    try:
        return text_of("".join(traceback.format_exception(type(error), error, frames)))
    except Exception:
        return ""


def _cut(text, limit):
    """Keeps the end, where the error is."""
    return text if len(text) <= limit else f"[cut]\n{text[-limit:]}"


class Leftovers:
    """Finds what outlives a run: threads that are busy, processes."""

    def __init__(self):
        self.threads = set(sys._current_frames())
        # What main.py has started while being loaded is the script's.
        self.processes = _children() if _has_children() else set()

    def find(self):
        """What is left, in words, or None."""
        frames = sys._current_frames()
        self.threads.intersection_update(frames)
        for ident, frame in frames.items():
            if ident not in self.threads and not _waits_for_work(frame):
                return "a thread"
        if _has_children() and not _children() <= self.processes:
            return "a process"
        return None


def _has_children():
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return True
    except ChildProcessError:
        return False


def _children():
    """Processes that this one has started and that still run. One whose end nobody has waited for does no harm."""
    found = set()
    me = str(os.getpid())
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    # The name, in parentheses, may hold anything.
                    state, parent = file.read().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if parent == me and state not in "ZX":
                found.add(int(name))
    return found


def _waits_for_work(frame):
    """Whether the thread is one of an executor and has nothing to do."""
    return frame.f_code.co_name == "_worker" and frame.f_code.co_filename == _POOL_FILE


class Worker:
    """One run after the other."""

    def __init__(self, channel, streams, functions, hello, log):
        self.channel, self.streams, self.functions, self.log = channel, streams, functions, log
        self.max_result = hello["maxResultBytes"]
        self.leftovers = Leftovers()
        self.is_child = False
        os.register_at_fork(after_in_child=self._forked)

    def serve(self):
        """Never returns."""
        while True:
            header, arguments = self.channel.receive(), self.channel.receive()
            self.run(json.loads(header), arguments, self.channel.take_fds())

    def run(self, header, arguments, fds):
        """One run. The run's pipes are closed before its result is sent."""
        self.streams.enter(fds)
        self.log.begin_run(header["context"], fds[0])
        try:
            reply = b'"result":' + self.encode(call(self.functions[header["function"]], json.loads(arguments)))
        except BaseException as error:
            reply = b'"error":' + json.dumps(failure(error)).encode()
            # Frames hold the run's objects; they must not outlive it.
            error.__traceback__ = None
        if self.is_child:
            os._exit(0)
        self.log.end_run()
        problem = self.streams.leave(fds)
        left = problem or self.leftovers.find()
        self.channel.send(b"{" + reply + (f',"leftover":"{left}"'.encode() if left else b"") + b"}")

    def _forked(self):
        """The function has forked, and this is the child, which must not answer for its parent."""
        self.is_child = True

    def encode(self, result):
        """The result as JSON."""
        try:
            text = json.dumps(result, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
        except UnicodeEncodeError:
            raise BadResult("ResultNotJson", "the result holds half of a surrogate pair, which UTF-8 can not hold") from None
        except Exception as error:
            kind = type(result).__name__
            raise BadResult("ResultNotJson", f"the result, of type {kind}, is not JSON: {text_of(error)}") from None
        if len(text) > self.max_result:
            message = f"the result has {len(text)} bytes of JSON; {self.max_result} is the most"
            raise BadResult("ResultTooLarge", message)
        return text


class BadResult(Exception):
    """The result can not be sent."""

    def __init__(self, reason, message):
        super().__init__(message)
        self.reason = reason


def main():
    """Loads main.py and serves."""
    channel = Channel()
    if sys.version_info < MINIMUM:
        version = sys.version.split()[0]
        channel.send(json.dumps({"failed": f"Python {version} is too old; the image needs 3.10 or newer"}).encode())
        return
    streams = Streams()
    hello = json.loads(channel.receive())
    app, home = hello["app"], hello["home"]
    # Ours is the korelogger that reaches the runner, whatever else is installed.
    path = [p for p in sys.path if os.path.abspath(p) != home]
    sys.path[:] = [home, *path]
    from korelogger import _log

    # Last, so that no file of the script is hidden by ours.
    sys.path[:] = [app, *path, home]
    _log.attach(hello["socket"], hello["mark"].encode("latin-1"), hello["context"])
    try:
        functions = functions_of(load(app))
    except LoadFailed as error:
        streams.leave(())
        channel.send(json.dumps({"failed": text_of(error)}).encode())
        return
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    streams.settle()
    described = [describe(name, function) for name, function in functions.items()]
    channel.send(json.dumps({"functions": described}).encode())
    Worker(channel, streams, functions, hello, _log).serve()


if __name__ == "__main__":
    main()

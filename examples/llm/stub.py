"""A stand-in for a language model: the chat completions protocol on this machine, with answers that can be foretold.

A prompt with the word ``busy`` is turned away once before it is answered, one with ``broken`` always, one with ``forbidden`` is
refused for good, and ``slow`` takes longer than anybody waits.
"""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

_turned_away = set()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        system, prompt = (message["content"] for message in body["messages"][-2:])
        if "forbidden" in prompt:
            return self._answer(400, {"error": {"message": "this is not answered"}})
        if "broken" in prompt or ("busy" in prompt and prompt not in _turned_away):
            _turned_away.add(prompt)
            return self._answer(503, {"error": {"message": "too busy"}}, {"retry-after": "0.05"})
        _turned_away.discard(prompt)
        if "slow" in prompt:
            time.sleep(0.5)
        text = _summary(system, prompt)
        usage = {"prompt_tokens": len(f"{system} {prompt}".split()), "completion_tokens": len(text.split())}
        message = {"role": "assistant", "content": text}
        self._answer(200, {"model": body["model"], "choices": [{"index": 0, "message": message}], "usage": usage})

    def _answer(self, status, body, headers=None):
        data = json.dumps(body).encode()
        try:
            self.send_response(status)
            for name, value in {"content-length": str(len(data)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            # The caller has not waited.
            pass

    def log_message(self, *_):
        """Says nothing: what this prints would be the run's."""


def _summary(system, prompt):
    numbers = [int(word) for word in system.split() if word.isdigit()]
    words = prompt.split()
    return " ".join(words[: numbers[0]]) if numbers else f"You said: {prompt}"


def start():
    """Serves in the background; the address."""
    server = HTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"

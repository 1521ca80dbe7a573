"""Asks a language model over the chat completions protocol: with a time limit, with retries, and with its tokens counted."""

import json
import os
import random
import time
import urllib.error
import urllib.request

import korelogger

import stub

MODEL = os.environ.get("LLM_MODEL", "stub-1")
KEY = os.environ.get("LLM_API_KEY", "")
TIMEOUT = float(os.environ.get("LLM_TIMEOUT_SECONDS", "2"))
ATTEMPTS = 4
# What may be gone a moment later: too many requests, a server that restarts or is full.
PASSING = {408, 429, 500, 502, 503, 504}
# Where no model is named, a stand-in answers in this process.
URL = os.environ.get("LLM_URL") or stub.start()


class ModelError(Exception):
    """The model gave no answer."""


def ask(prompt, system="You are helpful and brief."):
    """The model's answer to a prompt, and what it cost."""
    messages = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
    began = time.monotonic()
    answer, attempts = _complete(messages)
    usage = answer.get("usage", {})
    tokens = {name: usage.get(f"{name}_tokens", 0) for name in ("prompt", "completion")}
    korelogger.info(
        "the model answered",
        model=answer.get("model", MODEL),
        prompt_tokens=tokens["prompt"],
        completion_tokens=tokens["completion"],
        attempts=attempts,
        milliseconds=round((time.monotonic() - began) * 1000),
    )
    return {"text": answer["choices"][0]["message"]["content"], "tokens": tokens, "attempts": attempts}


def summarize(text, words=8):
    """A summary of a text in at most so many words."""
    return ask(text, system=f"Summarize in at most {words} words.")


def _complete(messages):
    """One answer, tried again for as long as that may help; how many attempts it took."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _post({"model": MODEL, "messages": messages}), attempt
        except urllib.error.HTTPError as error:
            reason, wait = f"status {error.code}", error.headers.get("retry-after")
            if error.code not in PASSING:
                raise ModelError(f"{reason}: {error.read(500).decode(errors='replace')}") from None
        except (OSError, ValueError) as error:
            reason, wait = str(getattr(error, "reason", error)), None
        if attempt == ATTEMPTS:
            break
        # Longer each time, and never all callers at the same moment.
        pause = float(wait) if wait else 0.1 * 2**attempt * random.uniform(0.5, 1)
        korelogger.warning("the model did not answer, once more", reason=reason, attempt=attempt, pause=round(pause, 2))
        time.sleep(min(pause, 5))
    raise ModelError(f"no answer after {ATTEMPTS} attempts: {reason}")


def _post(body):
    headers = {"content-type": "application/json", "traceparent": korelogger.traceparent()}
    if KEY:
        headers["authorization"] = f"Bearer {KEY}"
    request = urllib.request.Request(f"{URL}/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        return json.load(response)

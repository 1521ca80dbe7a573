"""Takes deliveries of a webhook: only those that are signed, and each only once."""

import fcntl
import hashlib
import hmac
import json
import os
import tempfile
from pathlib import Path

import korelogger

# Deliveries that were taken. All workers of the pod share the folder.
DONE = Path(os.environ.get("WEBHOOK_DIR") or Path(tempfile.gettempdir()) / "webhook-deliveries")


class Rejected(Exception):
    """The delivery is not from whom it says it is."""


def receive(payload, signature, delivery):
    """Takes a delivery.

    payload: the request's body as it came, as text. signature: `sha256=` and the HMAC-SHA256 of the body by the shared secret,
    hexadecimal. delivery: the sender's id of the delivery, the same when it is sent again.
    """
    if not _is_signed(payload, signature):
        korelogger.warning("a delivery with a wrong signature", delivery=delivery)
        raise Rejected("the signature is wrong")
    DONE.mkdir(parents=True, exist_ok=True)
    # The id is the sender's: its hash is a safe file name.
    place = DONE / hashlib.sha256(delivery.encode()).hexdigest()
    with open(place, "a+", encoding="utf-8") as file:
        # Of deliveries that come at the same time, one is handled and the others wait for its result.
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        known = file.read()
        if known:
            korelogger.info("a delivery that was taken before", delivery=delivery)
            return {**json.loads(known), "repeated": True}
        result = _handle(json.loads(payload))
        file.write(json.dumps(result))
        file.flush()
        os.fsync(file.fileno())
    korelogger.info("delivery taken", delivery=delivery, event=result["event"])
    return {**result, "repeated": False}


def _handle(event):
    """What is to be done for an event. Here: a line about it."""
    summary = f"{event['event']} of order {event['order']}"
    print(summary)
    return {"event": event["event"], "summary": summary}


def _is_signed(payload, signature):
    secret = os.environ.get("WEBHOOK_SECRET", "only-for-trying").encode()
    expected = "sha256=" + hmac.new(secret, payload.encode(), hashlib.sha256).hexdigest()
    # In the same time whatever it is, so that it can not be guessed digit by digit.
    return hmac.compare_digest(expected.encode(), signature.encode())

"""Plain checks: each prints a line, and the first that fails ends the program."""

import json
import os
import sys
import time
import urllib.request

URL = os.environ["TW_URL"]
KEY = os.environ["TW_KEY"]
SIM = os.environ["TW_SIM"]
MODEL = os.environ.get("TW_MODEL", "gpt-6.1-sol")
# One pixel, PNG.
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PICTURE = f"data:image/png;base64,{PIXEL}"
# What the simulated model makes of these words: one call of a tool `weather`, or two.
CALL = 'please call [tool:weather {"city":"Oslo"}]'
TWO = 'go [tool:weather {"city":"Oslo"}] [tool:weather {"city":"Rome"}]'
# What it thinks when its thoughts are asked for.
THOUGHTS = ["**Reading the request**\n\nThe user wants an answer.", "**Answering** – naïvely"]


def check(what, holds, seen=None):
    if not holds:
        sys.exit(f"FAILED {what}: {seen!r}")
    print(f"ok {what}", flush=True)


def equal(what, seen, wanted):
    check(what, seen == wanted, seen)


def raises(kind, call):
    """The exception of this kind that `call` raises."""
    try:
        answer = call()
    except kind as error:
        return error
    sys.exit(f"FAILED: no {kind.__name__}, but {answer!r}")


async def raises_later(kind, call):
    """The exception of this kind that awaiting `call()` raises."""
    try:
        answer = await call()
    except kind as error:
        return error
    sys.exit(f"FAILED: no {kind.__name__}, but {answer!r}")


def sim(method, path, body=None):
    """The simulator's control (docs/simulator.md)."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{SIM}/sim/{path}", data=data, method=method, headers={"content-type": "application/json"}
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        return json.loads(answer.read() or "null")


def fault(kind, **more):
    """The next answer meets this fault."""
    sim("POST", "faults", {"scope": "*", "where": "responses", "kind": kind, "times": 1} | more)


def bodies():
    """What the backend was asked, oldest first."""
    requests = sim("GET", "requests?limit=200")["requests"]
    return [request["body"] for request in requests if request["path"].endswith("/codex/responses")]


def billed():
    """The tokens that the backend has counted so far."""
    return sim("GET", "stats")["totals"]["tokens"]


class Bill:
    """What the backend counts inside a `with`."""

    def __enter__(self):
        self.before = billed()
        return self

    def __exit__(self, *_):
        after = billed()
        for name in after:
            setattr(self, name, after[name] - self.before[name])


def eventually(what, holds):
    """Waits until `holds` does."""
    deadline = time.monotonic() + 20
    while not holds():
        if time.monotonic() > deadline:
            sys.exit(f"FAILED: never: {what}")
        time.sleep(0.02)
    print(f"ok {what}", flush=True)

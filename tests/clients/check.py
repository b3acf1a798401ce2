"""Plain checks: each prints a line, and the first that fails ends the program."""

import os
import sys

URL = os.environ["TW_URL"]
KEY = os.environ["TW_KEY"]
MODEL = os.environ.get("TW_MODEL", "gpt-6.1-sol")
# One pixel, PNG.
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def check(what, holds, seen=None):
    if not holds:
        sys.exit(f"FAILED {what}: {seen!r}")
    print(f"ok {what}", flush=True)


def raises(kind, call):
    """The exception of this kind that `call` raises."""
    try:
        answer = call()
    except kind as error:
        return error
    sys.exit(f"FAILED: no {kind.__name__}, but {answer!r}")

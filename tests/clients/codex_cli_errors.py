"""The Codex CLI, unmodified, when nobody can answer it: how often it calls before it gives up.

A 500 that were passed on would make it call thirty times."""

import http.server
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request

from check import KEY, URL, check, equal, fault, sim

CODEX = sys.argv[1]
answers = []


class Counter(http.server.BaseHTTPRequestHandler):
    """Stands between the CLI and the gateway, and notes what its calls for a response get."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.pass_on(None)

    def do_POST(self):
        self.pass_on(self.rfile.read(int(self.headers.get("content-length", 0))))

    def pass_on(self, body):
        left_out = ("host", "connection", "content-length", "accept-encoding")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in left_out}
        request = urllib.request.Request(URL + self.path, data=body, method=self.command, headers=headers)
        try:
            answer = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request)
        except urllib.error.HTTPError as error:
            answer = error
        said = answer.read()
        if self.path.endswith("/responses") and body is not None:
            answers.append((answer.status, said))
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counter)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()

CONFIG = f"""
model = "gpt-5.5"
model_provider = "tollway"

[model_providers.tollway]
name = "Tollway"
base_url = "http://127.0.0.1:{server.server_address[1]}/v1"
env_key = "TW_KEY"
wire_api = "responses"
"""


def gives_up(what, calls, status, word):
    """The CLI fails after so many calls, each with this status, and says why."""
    answers.clear()
    home, work = pathlib.Path(tempfile.mkdtemp()), pathlib.Path(tempfile.mkdtemp())
    (home / "config.toml").write_text(CONFIG)
    command = [CODEX, "exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "hi"]
    environment = os.environ | {"CODEX_HOME": str(home), "TW_KEY": KEY}
    done = subprocess.run(
        command, cwd=work, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )
    check(f"{what}: it fails", done.returncode != 0, done.stdout)
    equal(f"{what}: each time with the same status", {answer for answer, _ in answers}, {status})
    check(f"{what}: {calls} calls at most", 1 <= len(answers) <= calls, (len(answers), done.stdout))
    failures = [event for event in map(json.loads, filter(lambda line: line.startswith("{"), done.stdout.splitlines()))
                if event["type"] in ("error", "turn.failed")]
    check(f"{what}: it says why", any(word in json.dumps(event) for event in failures), failures)
    sim("DELETE", "faults")


fault("server_error", times=None)
gives_up("a backend that fails", 5, 503, "capacity")
fault("overloaded", times=None)
gives_up("a backend at capacity", 5, 503, "capacity")
fault("failed_event", code="context_length_exceeded", message="Your input exceeds the context window.", times=None)
gives_up("a conversation that is too long", 1, 400, "context window")
# Last: it puts the account aside.
fault("usage_limit", resets_in_seconds=3600)
gives_up("a limit that is used up", 1, 429, "usage limit")
gives_up("and while nobody is there to ask", 1, 429, "usage limit")
print("all checks passed")

"""The Codex CLI, unmodified, over the WebSocket transport: `supports_websockets` in its provider."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from check import KEY, URL, check, equal, sim

CODEX = sys.argv[1]

CONFIG = f"""
model = "{{model}}"
model_provider = "tollway"

[model_providers.tollway]
name = "Tollway"
base_url = "{URL}/v1"
env_key = "TW_KEY"
wire_api = "responses"
supports_websockets = true
"""


def run(model, marker):
    """Asks the model to call a tool that writes a file; gives the directory and the events."""
    home, work = pathlib.Path(tempfile.mkdtemp()), pathlib.Path(tempfile.mkdtemp())
    (home / "config.toml").write_text(CONFIG.format(model=model))
    command = [CODEX, "exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", marker]
    environment = os.environ | {"CODEX_HOME": str(home), "TW_KEY": KEY}
    done = subprocess.run(
        command, cwd=work, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )
    check(f"{model}: exit code", done.returncode == 0, done.stdout + done.stderr)
    return work, [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def seen():
    """What reached the backend's endpoint, oldest first."""
    there = [request for request in sim("GET", "requests")["requests"] if request["path"].endswith("/codex/responses")]
    return sorted(there, key=lambda request: request["number"])


def judge(model, marker):
    before = len(seen())
    work, events = run(model, marker)
    check(f"{model}: the tool ran", (work / "made.txt").exists(), events)
    equal(f"{model}: with its argument", (work / "made.txt").read_text(), "by tollway\n")
    said = [event["item"]["text"] for event in events if event.get("item", {}).get("type") == "agent_message"]
    check(f"{model}: the tool's answer went back", any("Tool said" in text for text in said), events)
    usage = next(event["usage"] for event in events if event["type"] == "turn.completed")
    check(f"{model}: usage", usage["input_tokens"] > 0 and usage["output_tokens"] > 0, usage)
    troubles = [event for event in events if event["type"] == "error" or event.get("item", {}).get("type") == "error"]
    equal(f"{model}: no trouble and no fall back", troubles, [])
    requests = seen()[before:]
    # Only a request that came over a WebSocket goes to the backend over one.
    equal(f"{model}: nothing went over HTTP", [r["method"] for r in requests if r["method"] == "POST"], [])
    equal(f"{model}: one connection", len([r for r in requests if r["method"] == "GET"]), 1)
    frames = [r["body"] for r in requests if r["method"] == "WS"]
    equal(f"{model}: two requests", len(frames), 2)
    check(f"{model}: the first is whole", "previous_response_id" not in frames[0], frames[0].keys())
    check(f"{model}: the second brings what is new", "previous_response_id" in frames[1], frames[1].keys())
    kinds = [item["type"] for item in frames[1]["input"]]
    check(f"{model}: and nothing else", len(kinds) == 1 and kinds[0].endswith("_call_output"), kinds)


WRITE = "echo by tollway > made.txt"
judge("gpt-5.5", f"""run it [tool:exec_command {json.dumps({"cmd": WRITE})}]""")
# The newer models get one tool that runs a script, which calls the others.
SCRIPT = f"text(await tools.exec_command({json.dumps({'cmd': WRITE})}))"
judge("gpt-6.1-sol", f"run it [tool:exec {json.dumps(SCRIPT)}]")
print("all checks passed")

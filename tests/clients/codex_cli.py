"""The Codex CLI, unmodified: one prompt with a tool call, the way `codex exec` is used in scripts."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from check import KEY, URL, check

CODEX = sys.argv[1]

CONFIG = f"""
model = "{{model}}"
model_provider = "tollway"

[model_providers.tollway]
name = "Tollway"
base_url = "{URL}/v1"
env_key = "TW_KEY"
wire_api = "responses"
supports_websockets = {os.environ.get("TW_WEBSOCKETS", "false")}
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


def judge(model, marker):
    work, events = run(model, marker)
    check(f"{model}: the tool ran", (work / "made.txt").exists(), events)
    check(f"{model}: with its argument", (work / "made.txt").read_text() == "by tollway\n")
    said = [event["item"]["text"] for event in events if event.get("item", {}).get("type") == "agent_message"]
    check(f"{model}: the tool's answer went back", any("Tool said" in text for text in said), events)
    usage = next(event["usage"] for event in events if event["type"] == "turn.completed")
    check(f"{model}: usage", usage["input_tokens"] > 0 and usage["output_tokens"] > 0, usage)


WRITE = "echo by tollway > made.txt"
judge("gpt-5.5", f"""run it [tool:exec_command {json.dumps({"cmd": WRITE})}]""")
# The newer models get one tool that runs a script, which calls the others.
SCRIPT = f"text(await tools.exec_command({json.dumps({'cmd': WRITE})}))"
judge("gpt-6.1-sol", f"run it [tool:exec {json.dumps(SCRIPT)}]")
print("all checks passed")

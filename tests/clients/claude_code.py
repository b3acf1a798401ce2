"""Claude Code, unmodified: one prompt with a tool call, printed as JSON."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from check import KEY, URL, check

CLAUDE = sys.argv[1]


def run(prompt):
    home, work = tempfile.mkdtemp(), pathlib.Path(tempfile.mkdtemp())
    environment = os.environ | {
        "HOME": home,
        "ANTHROPIC_BASE_URL": URL,
        "ANTHROPIC_AUTH_TOKEN": KEY,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": "0",
        "DISABLE_AUTOUPDATER": "1",
    }
    environment.pop("ANTHROPIC_API_KEY", None)
    command = [CLAUDE, "-p", prompt, "--output-format", "json", "--allowed-tools", "Bash"]
    done = subprocess.run(
        command, cwd=work, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )
    check("exit code", done.returncode == 0, done.stdout + done.stderr)
    answer = json.loads(done.stdout)
    # Newer versions print every message, the result last.
    return work, answer[-1] if isinstance(answer, list) else answer


call = {"command": "echo by tollway > made.txt && echo written", "description": "Write a file"}
work, answer = run(f"run it [tool:Bash {json.dumps(call)}]")
check("no error", answer["is_error"] is False, answer)
check("the tool ran", (work / "made.txt").exists(), answer)
check("with its argument", (work / "made.txt").read_text() == "by tollway\n")
check("the tool's answer went back", "Tool said: written" in answer["result"], answer)
check("usage", answer["usage"]["input_tokens"] > 0 and answer["usage"]["output_tokens"] > 0, answer)
print("all checks passed")

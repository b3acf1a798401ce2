"""Claude Code, unmodified, at work: several steps, thinking that goes back, sub-agents on a small model,
token counts, a conversation taken up again, compaction of one that is too long, and errors."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from check import KEY, THOUGHTS, URL, Bill, bodies, check, equal, fault

CLAUDE = sys.argv[1]
SMALL, LARGE = "gpt-6-luna", "gpt-6.1-sol"


class Home:
    """A user's home and a directory to work in."""

    def __init__(self):
        self.home, self.work = tempfile.mkdtemp(), pathlib.Path(tempfile.mkdtemp()).resolve()

    def run(self, *arguments, code=0):
        """The messages of `claude -p` with these arguments."""
        environment = os.environ | {
            "HOME": self.home,
            "ANTHROPIC_BASE_URL": URL,
            "ANTHROPIC_AUTH_TOKEN": KEY,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_MAX_RETRIES": "0",
            "DISABLE_AUTOUPDATER": "1",
        }
        environment.pop("ANTHROPIC_API_KEY", None)
        command = [CLAUDE, "-p", *arguments, "--output-format", "stream-json", "--verbose"]
        command += ["--allowed-tools", "Bash,Read,Write,Edit,Agent"]
        done = subprocess.run(
            command, cwd=self.work, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90
        )
        if done.returncode != code:
            sys.exit(f"FAILED claude {arguments}: {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr}")
        # Every line is one message, and the last the result.
        messages = [json.loads(line) for line in done.stdout.splitlines()]
        if messages[-1]["type"] != "result":
            sys.exit(f"FAILED claude {arguments}: no result but {messages[-1]}")
        return messages


def call(name, **arguments):
    return f"[tool:{name} {json.dumps(arguments)}]"


def blocks(messages, kind, sub=False):
    """The content blocks of this type that assistant and user said; a sub-agent's on demand."""
    said = [
        message["message"]
        for message in messages
        if message["type"] in ("assistant", "user") and bool(message.get("parent_tool_use_id")) == sub
    ]
    content = [block for message in said if isinstance(message["content"], list) for block in message["content"]]
    return [block for block in content if block["type"] == kind]


def kinds(body):
    return [item["type"] for item in body["input"] if item["type"] != "message"]


def steps():
    home = Home()
    path = str(home.work / "made.txt")
    script = [
        call("Write", file_path=path, content="by tollway\n"),
        call("Read", file_path=path) + call("Bash", command="echo beside", description="Say a word"),
        call("Edit", file_path=path, old_string="tollway", new_string="an edit"),
        call("Bash", command="cat made.txt; exit 3", description="Fail"),
    ]
    with Bill() as bill:
        messages = home.run("go " + " [then] ".join(script))
    result = messages[-1]
    equal("steps: the file was written and changed", (home.work / "made.txt").read_text(), "by an edit\n")
    made = [block["name"] for block in blocks(messages, "tool_use")]
    equal("steps: calls in order", made, ["Write", "Read", "Bash", "Edit", "Bash"])
    results = blocks(messages, "tool_result")
    equal("steps: each has its result", len(results), 5)
    equal("steps: one failed", [bool(block.get("is_error")) for block in results], [False] * 4 + [True])
    check("steps: the last result went back", "by an edit" in result["result"], result)
    check("steps: no error", (result["subtype"], result["is_error"]) == ("success", False), result)
    equal("steps: turns", result["num_turns"], 6)

    thoughts = blocks(messages, "thinking")
    check("steps: thinking is shown", all(block["thinking"] == "\n\n".join(THOUGHTS) for block in thoughts), thoughts)
    check("steps: and signed", len(thoughts) == 5 and all(block["signature"] for block in thoughts), thoughts)
    one = ["reasoning", "function_call", "function_call_output"]
    two = ["reasoning", *["function_call"] * 2, *["function_call_output"] * 2]
    last = bodies()[-1]
    equal("steps: thinking went back before its calls", kinds(last), [*one, *two, *one, *one])
    sealed = [item["encrypted_content"] for item in last["input"] if item["type"] == "reasoning"]
    equal("steps: each thought its own", len(set(sealed)), 4)
    check("steps: no billing header in the prompt", "x-anthropic-billing" not in json.dumps(last))

    used = result["modelUsage"].values()
    equal("steps: input tokens", sum(use["inputTokens"] + use["cacheReadInputTokens"] for use in used), bill.input)
    equal("steps: cached tokens", sum(use["cacheReadInputTokens"] for use in used), bill.cached)
    equal("steps: output tokens", sum(use["outputTokens"] for use in used), bill.output)
    check("steps: the cache was met", bill.cached > 0)


def agents():
    home = Home()
    before = len(bodies())
    task = {"description": "Look", "subagent_type": "general-purpose", "run_in_background": False}
    inner = call("Bash", command="echo from below", description="Say it")
    first = call("Agent", prompt=f"say it {inner}", model="haiku", **task)
    second = call("Agent", prompt="say nothing", **task)
    messages = home.run(f"delegate {first} {second}")
    equal("agents: two", [block["name"] for block in blocks(messages, "tool_use")], ["Agent", "Agent"])
    equal("agents: one used a tool", [block["name"] for block in blocks(messages, "tool_use", sub=True)], ["Bash"])
    answer = messages[-1]["result"]
    check("agents: their reports", "Tool said: from below" in answer and "say nothing" in answer, answer)
    asked = bodies()[before:]
    equal("agents: the models asked", {body["model"] for body in asked}, {SMALL, LARGE})
    small = [body for body in asked if body["model"] == SMALL]
    check("agents: haiku is the small model", all("say it" in json.dumps(body["input"]) for body in small), small)
    keys = {body["model"]: body["prompt_cache_key"] for body in asked}
    check("agents: all under the session", all(keys.values()), keys)


def counted():
    """A long file is measured by the token counter before it is read. Claude Code's own estimate, four
    characters a token, would let this one through."""
    home = Home()
    lines = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(1500)]
    (home.work / "long.txt").write_text("\n".join(lines))
    messages = home.run("read " + call("Read", file_path=str(home.work / "long.txt"), offset=1, limit=1400))
    [result] = blocks(messages, "tool_result")
    words = json.dumps(result["content"])
    check("counted: the file is too long, by our count", "exceeds maximum allowed tokens" in words, words[-1500:])


def session():
    home = Home()
    first = home.run("remember the heron " + call("Bash", command="seq 1 2000", description="Count"))
    second = home.run("--continue", "and now?")
    equal("session: the same", second[-1]["session_id"], first[-1]["session_id"])
    check("session: goes on", "and now?" in second[-1]["result"], second[-1])
    check("session: with its history", "remember the heron" in json.dumps(bodies()[-1]["input"]))

    before = len(bodies())
    fault("failed_event", code="context_length_exceeded", message="The maximum is 272000 tokens, you sent 300123.")
    third = home.run("--continue", "and then?")
    check("too long: the conversation is compacted", any(m.get("subtype") == "compact_boundary" for m in third), third)
    check("too long: and goes on", third[-1]["is_error"] is False, third[-1])
    asked = [json.dumps(body["input"]) for body in bodies()[before:]]
    check("too long: a summary was asked for", any("summary of the conversation" in words for words in asked[1:]), asked)
    check("too long: what the tool said is gone", "function_call_output" not in asked[-1], asked[-1])


def errors():
    home = Home()
    stranger = Home()
    missing = stranger.run("hello", "--model", "no-such-model", code=1)[-1]
    check("errors: an unknown model", missing["is_error"] and "no-such-model" in missing["result"], missing)

    # Last, for the account is used up from here on.
    fault("usage_limit", resets_in_seconds=3600)
    before = len(bodies())
    limited = home.run("hello", code=1)[-1]
    check("limit: told", limited["is_error"] and limited["api_error_status"] == 429, limited)
    equal("limit: asked once", len(bodies()) - before, 1)


steps()
agents()
counted()
session()
errors()
print("all checks passed")

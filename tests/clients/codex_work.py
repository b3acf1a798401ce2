"""The Codex CLI, unmodified, at work: several steps, patches, parallel calls, a session taken up again,
compaction, a stream that breaks, and a used-up limit."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from check import KEY, URL, Bill, bodies, check, equal, fault

CODEX = sys.argv[1]
PATCH = "*** Begin Patch\n*** Add File: made.txt\n+by tollway\n*** End Patch"
CHANGE = "*** Begin Patch\n*** Update File: made.txt\n@@\n-by tollway\n+by a patch\n*** End Patch"


class Home:
    """A user's home and a directory to work in."""

    def __init__(self, model, provider="Tollway"):
        self.home, self.work = pathlib.Path(tempfile.mkdtemp()), pathlib.Path(tempfile.mkdtemp())
        lines = [
            f'model = "{model}"',
            'model_provider = "tollway"',
            "[model_providers.tollway]",
            f'name = "{provider}"',
            f'base_url = "{URL}/v1"',
            'env_key = "TW_KEY"',
            'wire_api = "responses"',
            # Waits between its own tries are its affair.
            "request_max_retries = 2",
        ]
        (self.home / "config.toml").write_text("\n".join(lines))

    def run(self, *arguments, code=0):
        """The events of `codex exec` with these arguments."""
        command = [CODEX, "exec", *arguments, "--json", "--skip-git-repo-check"]
        command.append("--dangerously-bypass-approvals-and-sandbox")
        environment = os.environ | {"CODEX_HOME": str(self.home), "TW_KEY": KEY}
        done = subprocess.run(
            command, cwd=self.work, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90
        )
        if done.returncode != code:
            sys.exit(f"FAILED codex {arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return [json.loads(line) for line in done.stdout.splitlines()]


def items(events, kind):
    done = [event["item"] for event in events if event["type"] == "item.completed"]
    return [item for item in done if item["type"] == kind]


def said(events):
    return items(events, "agent_message")[-1]["text"]


def usage(events):
    return next(event["usage"] for event in events if event["type"] == "turn.completed")


def kinds(body):
    """The types of the items behind the last user message."""
    last = max(index for index, item in enumerate(body["input"]) if item.get("role") == "user")
    return [item["type"] for item in body["input"][last + 1 :]]


def call(name, **arguments):
    return f"[tool:{name} {json.dumps(arguments)}]"


def steps():
    home = Home("gpt-5.5")
    script = [
        f"[tool:apply_patch {json.dumps(PATCH)}]",
        call("exec_command", cmd="cat made.txt") + call("exec_command", cmd="echo beside"),
        f"[reason] [tool:apply_patch {json.dumps(CHANGE)}]",
        call("exec_command", cmd="cat made.txt"),
    ]
    with Bill() as bill:
        events = home.run(" [then] ".join(script))
    equal("steps: the patches were applied", (home.work / "made.txt").read_text(), "by a patch\n")
    changes = [item["changes"][0]["kind"] for item in items(events, "file_change")]
    equal("steps: and told", changes, ["add", "update"])
    outputs = [item["aggregated_output"] for item in items(events, "command_execution")]
    equal("steps: commands", sorted(outputs[:2]) + outputs[2:], ["beside\n", "by tollway\n", "by a patch\n"])
    check("steps: the last result", said(events).endswith("by a patch\n"), said(events))
    turn = ["custom_tool_call", "custom_tool_call_output"]
    both = ["function_call"] * 2 + ["function_call_output"] * 2
    one = ["function_call", "function_call_output"]
    equal("steps: in order at the backend", kinds(bodies()[-1]), [*turn, *both, "reasoning", *turn, *one])
    totals = usage(events)
    equal("steps: input tokens", totals["input_tokens"], bill.input)
    equal("steps: cached tokens", totals["cached_input_tokens"], bill.cached)
    equal("steps: output tokens", totals["output_tokens"], bill.output)
    equal("steps: reasoning tokens", totals["reasoning_output_tokens"], bill.reasoning)
    check("steps: the cache was met", bill.cached > 0)


def scripted():
    """Newer models get one tool that runs a script, which calls the others."""
    home = Home("gpt-6.1-sol")
    patch = f"text(await tools.apply_patch({json.dumps(PATCH)}))"
    read = f"text(await tools.exec_command({json.dumps({'cmd': 'cat made.txt'})}))"
    events = home.run(f"[tool:exec {json.dumps(patch)}] [then] [tool:exec {json.dumps(read)}]")
    equal("scripted: the patch was applied", (home.work / "made.txt").read_text(), "by tollway\n")
    check("scripted: the file was read", "by tollway" in said(events), said(events))


def session():
    home = Home("gpt-5.5")
    first = home.run(f"remember the heron {call('exec_command', cmd='seq 1 3000')}")
    key = bodies()[-1]["prompt_cache_key"]
    second = home.run("resume", "--last", "and now?")
    equal("session: the same thread", second[0]["thread_id"], first[0]["thread_id"])
    equal("session: goes on", said(second), "You said: and now?")
    check("session: with its history", "remember the heron" in json.dumps(bodies()[-1]["input"]))
    equal("session: under its cache key", bodies()[-1]["prompt_cache_key"], key)

    before = len(bodies())
    third = home.run("resume", "--last", "-c", "model_auto_compact_token_limit=9000", "and then?")
    equal("compaction: the turn goes on", said(third), "You said: and then?")
    summary, turn = bodies()[before:]
    check("compaction: a summary was asked for", "COMPACTION" in json.dumps(summary["input"][-1]), summary["input"][-1])
    words = json.dumps(turn["input"])
    check("compaction: what the tool said is gone", "function_call_output" not in words, words)
    check("compaction: the user's words are not", "remember the heron" in words, words)
    check("compaction: the summary is there", "produced a summary" in words, words)


def remote_compaction():
    """A provider of OpenAI's name is trusted to compact by itself."""
    home = Home("gpt-5.5", provider="OpenAI")
    home.run(f"remember the heron {call('exec_command', cmd='seq 1 3000')}")
    before = len(bodies())
    events = home.run("resume", "--last", "-c", "model_auto_compact_token_limit=9000", "and then?")
    equal("remote compaction: the turn goes on", said(events), "You said: and then?")
    asked = bodies()[before:]
    equal("remote compaction: the backend was asked", asked[0]["input"][-1]["type"], "compaction_trigger")
    compacted = [item for item in asked[-1]["input"] if item["type"].startswith("compaction")]
    check("remote compaction: its result goes back", len(compacted) == 1 and compacted[0]["encrypted_content"], asked[-1])


def trouble():
    home = Home("gpt-5.5")
    before = len(bodies())
    fault("cut", after_events=6, clean=True)
    events = home.run("hello")
    equal("cut: the answer comes all the same", said(events), "You said: hello")
    equal("cut: at the second try", len(bodies()) - before, 2)
    fault("failed_event", code="server_error", message="It broke.", at="after_text")
    equal("failure: the answer comes all the same", said(home.run("hello")), "You said: hello")

    fault("failed_event", code="context_length_exceeded", message="Your input exceeds the context window.")
    before = len(bodies())
    failed = home.run("hello", code=1)[-1]
    check("overflow: told as such", "context window" in failed["error"]["message"], failed)
    equal("overflow: not tried again", len(bodies()) - before, 1)

    # Last, for the account is used up from here on.
    fault("usage_limit", resets_in_seconds=3600)
    before = len(bodies())
    failed = home.run("hello", code=1)[-1]
    equal("limit: the turn fails", failed["type"], "turn.failed")
    check("limit: told with its end", "usage limit. Try again at" in failed["error"]["message"], failed)
    equal("limit: not tried again", len(bodies()) - before, 1)
    failed = home.run("hello", code=1)[-1]
    check("limit: told again", "usage limit. Try again at" in failed["error"]["message"], failed)
    equal("limit: without the backend", len(bodies()) - before, 1)


steps()
scripted()
session()
remote_compaction()
trouble()
print("all checks passed")

"""The Anthropic SDK for Python, unmodified: message batches from their making to their end."""

import time

import anthropic

from check import KEY, URL, check, equal, fault, raises, sim

client = anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0)
batches = client.messages.batches
MODEL = "claude-sonnet-4-5"


def request(name, text, **more):
    return {
        "custom_id": name,
        "params": {"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": text}]} | more,
    }


def ended(batch):
    deadline = time.monotonic() + 30
    while batch.processing_status != "ended":
        check("it ends", time.monotonic() < deadline, batch)
        time.sleep(0.05)
        batch = batches.retrieve(batch.id)
    return batch


weather = {"name": "weather", "description": "d", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
made = batches.create(
    requests=[
        request("plain", "hello"),
        request("tool", 'go [tool:weather {"city":"Oslo"}]', tools=[weather]),
        request("wrong", "hello", messages=[]),
        request("unknown", "hello", model="no-such-model"),
    ]
)
equal("a batch", (made.type, made.processing_status, made.request_counts.processing), ("message_batch", "in_progress", 4))
check("it lives for a day", (made.expires_at - made.created_at).total_seconds() == 86400, made)
done = ended(made)
counts = done.request_counts
equal("counts", (counts.processing, counts.succeeded, counts.errored), (0, 2, 2))
results = {result.custom_id: result.result for result in batches.results(made.id)}
equal("each once", list(results), ["plain", "tool", "wrong", "unknown"])
equal("an answer", results["plain"].message.content[0].text, "You said: hello")
check("its usage", results["plain"].message.usage.output_tokens > 0, results["plain"])
equal("a call", (results["tool"].message.stop_reason, results["tool"].message.content[0].input), ("tool_use", {"city": "Oslo"}))
equal("a refusal", (results["wrong"].type, results["wrong"].error.error.type), ("errored", "invalid_request_error"))
equal("an unknown model", results["unknown"].error.error.type, "not_found_error")

fault("hold", at="before", times=None)
second = batches.create(requests=[request("one", "1"), request("two", "2"), request("three", "3"), request("four", "4")])
deadline = time.monotonic() + 20
while sim("GET", "stats")["in_flight"] < 2:
    check("it begins", time.monotonic() < deadline)
    time.sleep(0.02)
cancelled = batches.cancel(second.id)
check("it is on its way out", cancelled.processing_status in ("canceling", "ended") and cancelled.cancel_initiated_at, cancelled)
raises(anthropic.BadRequestError, lambda: batches.delete(second.id))
raises(anthropic.AnthropicError, lambda: batches.results(second.id))
sim("DELETE", "faults")
sim("POST", "release", {"where": "responses"})
kinds = {result.custom_id: result.result.type for result in batches.results(ended(second).id)}
equal("what had begun and what had not", (kinds["one"], kinds["four"]), ("succeeded", "canceled"))

equal("newest first, page by page", [batch.id for batch in batches.list(limit=1)], [second.id, made.id])
equal("deleted", batches.delete(made.id).type, "message_batch_deleted")
raises(anthropic.NotFoundError, lambda: batches.retrieve(made.id))
raises(anthropic.BadRequestError, lambda: batches.create(requests=[request("a b", "x")]))
stranger = client.with_options(api_key="tw-not-a-key")
raises(anthropic.AuthenticationError, lambda: stranger.messages.batches.list())
print("all checks passed")

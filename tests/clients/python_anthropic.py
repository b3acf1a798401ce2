"""The Anthropic SDK for Python, unmodified, synchronous and not: Messages."""

import asyncio

import anthropic
from check import CALL, KEY, MODEL, PIXEL, THOUGHTS, TWO, URL, Bill, bodies, check, equal, eventually, fault, raises, sim
from pydantic import BaseModel

client = anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0)
TOOLS = [
    {
        "name": "weather",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }
]


class Weather(BaseModel):
    temperature: float


def ask(content, **more):
    messages = [{"role": "user", "content": content}]
    return client.messages.create(model=MODEL, max_tokens=500, messages=messages, **more)


answer = ask("hello", system="be brief")
check("plain", answer.content[0].text == "You said: hello", answer)
check("stop reason", answer.stop_reason == "end_turn", answer)
check("usage", answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0, answer.usage)

messages = [{"role": "user", "content": "hello"}]
with client.messages.stream(model=MODEL, max_tokens=500, messages=messages) as stream:
    text = "".join(stream.text_stream)
    final = stream.get_final_message()
check("streamed", text == final.content[0].text == "You said: hello", final)
check("streamed usage", final.usage.output_tokens > 0, final.usage)

picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
check("image", "I see 1 image" in ask([picture, {"type": "text", "text": "look"}]).content[0].text)

parsed = client.messages.parse(model=MODEL, max_tokens=500, messages=messages, output_format=Weather)
check("structured", isinstance(parsed.parsed_output, Weather), parsed)

first = ask(CALL, tools=TOOLS)
check("tool call", first.stop_reason == "tool_use", first)
call = next(block for block in first.content if block.type == "tool_use")
check("arguments", call.input == {"city": "Oslo"}, call)
history = [
    {"role": "user", "content": CALL},
    {"role": "assistant", "content": first.content},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "rain"}]},
]
second = client.messages.create(model=MODEL, max_tokens=500, messages=history, tools=TOOLS)
check("tool result", second.content[0].text == "Tool said: rain", second)

history = [{"role": "user", "content": CALL}]
with client.messages.stream(model=MODEL, max_tokens=500, messages=history, tools=TOOLS) as stream:
    final = stream.get_final_message()
call = next(block for block in final.content if block.type == "tool_use")
check("streamed tool call", call.input == {"city": "Oslo"}, final)

count = client.messages.count_tokens(model=MODEL, messages=messages)
check("count_tokens", count.input_tokens > 0, count)

models = client.models.list(limit=100)
check("models: list", any(model.id == MODEL for model in models), models)
check("models: one", client.models.retrieve(MODEL).display_name)

stranger = anthropic.Anthropic(base_url=URL, api_key="tw-not-a-key", max_retries=0)
error = raises(anthropic.AuthenticationError, stranger.models.list)
check("errors: 401", error.body["error"]["type"] == "authentication_error", error.body)
error = raises(anthropic.NotFoundError, lambda: client.models.retrieve("no-such-model"))
check("errors: 404", error.body["error"]["type"] == "not_found_error", error.body)
error = raises(anthropic.BadRequestError, lambda: ask(7))
check("errors: 400", error.body["error"]["type"] == "invalid_request_error", error.body)
check("errors: request id", bool(error.request_id), error.response.headers)


def in_depth():
    with Bill() as bill:
        answer = ask("hello")
    usage = answer.usage
    equal("the backend's usage", (usage.input_tokens + usage.cache_read_input_tokens, usage.output_tokens), (bill.input, bill.output))

    pdf = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0xLjQK"}
    note = {"type": "text", "media_type": "text/plain", "data": "a note"}
    documents = [{"type": "document", "source": source} for source in (pdf, note)]
    ask([*documents, {"type": "text", "text": "read"}])
    parts = bodies()[-1]["input"][0]["content"]
    equal("documents: a file", len([part for part in parts if part["type"] == "input_file"]), 1)
    check("documents: a text", any("a note" in part.get("text", "") for part in parts), parts)

    answer = ask("one two three", stop_sequences=["two"])
    seen = (answer.content[0].text, answer.stop_reason, answer.stop_sequence)
    equal("stop sequence", seen, ("You said: one ", "stop_sequence", "two"))
    equal("refusal", ask("[refuse]").stop_reason, "refusal")
    equal("max_tokens", ask("[incomplete]").stop_reason, "max_tokens")


def thinking():
    """Two rounds of calls: each round's thinking is sent back with its signature."""
    more = {"model": MODEL, "max_tokens": 5000, "tools": TOOLS, "thinking": {"type": "enabled", "budget_tokens": 2000}}
    history = [{"role": "user", "content": f"{TWO} [then] {CALL}"}]
    for round in [2, 1]:
        with client.messages.stream(messages=history, **more) as stream:
            final = stream.get_final_message()
        equal("thinking: blocks", [block.type for block in final.content], ["thinking"] + ["tool_use"] * round)
        equal("thinking: shown", final.content[0].thinking, "\n\n".join(THOUGHTS))
        calls = final.content[1:]
        equal("thinking: calls", [call.input["city"] for call in calls], ["Oslo", "Rome"][:round])
        results = [{"type": "tool_result", "tool_use_id": call.id, "content": "rain"} for call in calls]
        results[-1]["is_error"] = True
        history += [{"role": "assistant", "content": final.content}, {"role": "user", "content": results}]
    final = client.messages.create(messages=history, **more)
    check("thinking: answer", final.content[-1].text.startswith("Tool said"), final)
    items = [item for item in bodies()[-1]["input"] if item["type"] != "message"]
    one = ["reasoning", "function_call", "function_call_output"]
    two = ["reasoning", "function_call", "function_call", "function_call_output", "function_call_output"]
    equal("thinking: goes back before its calls", [item["type"] for item in items], two + one)
    check("thinking: sealed", all(item["encrypted_content"] for item in items if item["type"] == "reasoning"), items)


@anthropic.beta_tool
def weather(city: str) -> str:
    """Tells the weather.

    Args:
        city: Where.
    """
    return f"rain in {city}"


def runner():
    runner = client.beta.messages.tool_runner(
        model=MODEL, max_tokens=5000, tools=[weather], messages=[{"role": "user", "content": TWO}]
    )
    equal("tool runner", runner.until_done().content[0].text, "Tool said: rain in Oslo | rain in Rome")


async def asynchronous():
    later = anthropic.AsyncAnthropic(base_url=URL, api_key=KEY, max_retries=0)
    body = {"model": MODEL, "max_tokens": 5000}
    hello = [{"role": "user", "content": "hello"}]
    answers = await asyncio.gather(*(later.messages.create(messages=hello, **body) for _ in range(8)))
    equal("async: side by side", {answer.content[0].text for answer in answers}, {"You said: hello"})
    async with later.messages.stream(messages=hello, **body) as stream:
        text = "".join([piece async for piece in stream.text_stream])
    equal("async: streamed", text, "You said: hello")
    count = await later.messages.count_tokens(model=MODEL, messages=hello)
    check("async: count_tokens", count.input_tokens > 0, count)
    left = sim("GET", "stats")["totals"]["cancelled"]
    fault("slow", ms=50)
    async with later.messages.stream(messages=[{"role": "user", "content": "[long 2000]"}], **body) as stream:
        async for _ in stream.text_stream:
            break
    eventually("async: the backend sees a client leave", lambda: sim("GET", "stats")["totals"]["cancelled"] == left + 1)


def errors():
    def kind(error):
        return error.body["error"]["type"]

    fault("failed_event", code="context_length_exceeded", message="The maximum is 272000 tokens, you sent 300123.")
    error = raises(anthropic.BadRequestError, lambda: ask("hello"))
    equal("errors: overflow", error.body["error"]["message"], "prompt is too long: 300123 tokens > 272000 maximum")
    fault("cut", after_events=6, clean=True)
    error = raises(anthropic.APIStatusError, lambda: list(ask("hello", stream=True)))
    equal("errors: a cut stream", kind(error), "api_error")
    # Last, for the account is used up from here on.
    fault("usage_limit", resets_in_seconds=600)
    for _ in range(2):
        error = raises(anthropic.RateLimitError, lambda: ask("hello"))
        equal("errors: 429", kind(error), "rate_limit_error")
        check("errors: 429, when to come back", 500 < int(error.response.headers["retry-after"]) <= 600)


in_depth()
thinking()
runner()
asyncio.run(asynchronous())
errors()
print("all checks passed")

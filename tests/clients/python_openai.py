"""The OpenAI SDK for Python, unmodified, synchronous and not: Chat Completions and Responses."""

import asyncio
import json

import openai
from check import CALL, KEY, MODEL, PICTURE, THOUGHTS, TWO, URL, Bill, bodies, check, equal, eventually, fault, raises
from check import raises_later, sim
from pydantic import BaseModel

client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


class Weather(BaseModel):
    temperature: float


class City(BaseModel):
    city: str


def chat():
    def ask(content, **more):
        return client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": content}], **more)

    answer = ask("hello")
    check("chat: plain", answer.choices[0].message.content == "You said: hello", answer)
    check("chat: finish reason", answer.choices[0].finish_reason == "stop", answer)
    check("chat: usage", answer.usage.prompt_tokens > 0 and answer.usage.completion_tokens > 0, answer.usage)

    chunks = list(ask("hello", stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    check("chat: streamed", text == "You said: hello", chunks)
    check("chat: streamed usage", chunks[-1].usage is not None and chunks[-1].usage.total_tokens > 0, chunks[-1])

    parts = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": PICTURE}}]
    check("chat: image", "I see 1 image" in ask(parts).choices[0].message.content)

    answer = client.chat.completions.parse(
        model=MODEL, messages=[{"role": "user", "content": "how warm?"}], response_format=Weather
    )
    check("chat: structured", isinstance(answer.choices[0].message.parsed, Weather), answer)

    tools = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
    messages = [{"role": "user", "content": CALL}]
    first = client.chat.completions.create(model=MODEL, messages=messages, tools=tools).choices[0]
    check("chat: tool call", first.finish_reason == "tool_calls", first)
    call = first.message.tool_calls[0]
    check("chat: arguments", json.loads(call.function.arguments) == {"city": "Oslo"}, call)
    messages += [first.message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    second = client.chat.completions.create(model=MODEL, messages=messages, tools=tools)
    check("chat: tool result", second.choices[0].message.content == "Tool said: rain", second)

    with client.chat.completions.stream(model=MODEL, messages=[{"role": "user", "content": CALL}], tools=tools) as stream:
        final = stream.get_final_completion()
    call = final.choices[0].message.tool_calls[0]
    check("chat: streamed tool call", json.loads(call.function.arguments) == {"city": "Oslo"}, final)


def responses():
    answer = client.responses.create(model=MODEL, input="hello")
    check("responses: plain", answer.output_text == "You said: hello", answer)
    check("responses: usage", answer.usage.input_tokens > 0 and answer.usage.output_tokens_details is not None, answer)

    with client.responses.stream(model=MODEL, input="hello") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    check("responses: streamed", text == final.output_text == "You said: hello", final)

    parts = [{"type": "input_text", "text": "look"}, {"type": "input_image", "image_url": PICTURE, "detail": "auto"}]
    answer = client.responses.create(model=MODEL, input=[{"role": "user", "content": parts}])
    check("responses: image", "I see 1 image" in answer.output_text, answer)

    answer = client.responses.parse(model=MODEL, input="how warm?", text_format=Weather)
    check("responses: structured", isinstance(answer.output_parsed, Weather), answer)

    tools = [{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}]
    history = [{"role": "user", "content": CALL}]
    first = client.responses.create(model=MODEL, input=history, tools=tools)
    call = next(item for item in first.output if item.type == "function_call")
    check("responses: tool call", json.loads(call.arguments) == {"city": "Oslo"}, first)
    history += [item.model_dump(exclude_none=True) for item in first.output]
    history += [{"type": "function_call_output", "call_id": call.call_id, "output": "rain"}]
    second = client.responses.create(model=MODEL, input=history, tools=tools)
    check("responses: tool result", second.output_text == "Tool said: rain", second)


def the_rest():
    names = [model.id for model in client.models.list()]
    check("models: list", MODEL in names, names)
    check("models: one", client.models.retrieve(MODEL).id == MODEL)
    error = raises(openai.NotFoundError, lambda: client.models.retrieve("no-such-model"))
    check("errors: 404", error.code == "model_not_found", error.body)

    stranger = openai.OpenAI(base_url=f"{URL}/v1", api_key="tw-not-a-key", max_retries=0)
    error = raises(openai.AuthenticationError, stranger.models.list)
    check("errors: 401", error.code == "invalid_api_key", error.body)
    broken = [{"role": "user", "content": 7}]
    error = raises(openai.BadRequestError, lambda: client.chat.completions.create(model=MODEL, messages=broken))
    check("errors: 400", error.type == "invalid_request_error", error.body)
    check("errors: request id", bool(error.request_id), error.response.headers)


TOOL = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}
TWO_CALLS = [{"city": "Oslo"}, {"city": "Rome"}]
OVERFLOW = {"code": "context_length_exceeded", "message": "Your input exceeds the context window of this model."}


def responses_in_depth():
    with Bill() as bill:
        answer = client.responses.create(model=MODEL, input="hello")
    usage = answer.usage
    equal("responses: the backend's usage", (usage.input_tokens, usage.output_tokens), (bill.input, bill.output))

    think = {"summary": "auto"}
    events = list(client.responses.create(model=MODEL, input="hello", reasoning=think, stream=True))
    equal("responses: numbered", [event.sequence_number for event in events], list(range(len(events))))
    kinds = list(dict.fromkeys(event.type.removeprefix("response.") for event in events))
    order = ["created", "in_progress", "output_item.added"]
    order += [f"reasoning_summary_{what}" for what in ["part.added", "text.delta", "text.done", "part.done"]]
    order += ["output_item.done", "content_part.added", "output_text.delta", "output_text.done", "content_part.done"]
    equal("responses: every event in its place", kinds, [*order, "completed"])

    history = [{"role": "user", "content": f"[reason] {TWO}"}]
    first = client.responses.create(model=MODEL, input=history, tools=[TOOL])
    equal("responses: order", [item.type for item in first.output], ["reasoning", "function_call", "function_call"])
    calls = first.output[1:]
    equal("responses: parallel calls", [json.loads(call.arguments) for call in calls], TWO_CALLS)
    history += first.output
    results = enumerate(call.call_id for call in calls)
    history += [{"type": "function_call_output", "call_id": id, "output": f"rain {at}"} for at, id in results]
    second = client.responses.create(model=MODEL, input=history, tools=[TOOL])
    equal("responses: their results", second.output_text, "Tool said: rain 0 | rain 1")
    replayed = next(item for item in bodies()[-1]["input"] if item.get("type") == "reasoning")
    equal("responses: reasoning back", replayed["encrypted_content"], first.output[0].encrypted_content)

    with client.responses.stream(model=MODEL, input="how warm?", text_format=Weather) as stream:
        final = stream.get_final_response()
    equal("responses: structured, streamed", final.output_parsed, Weather(temperature=0))
    tool = openai.pydantic_function_tool(City, name="weather")["function"] | {"type": "function"}
    with client.responses.stream(model=MODEL, input=CALL, tools=[tool]) as stream:
        final = stream.get_final_response()
    equal("responses: parsed arguments", final.output[0].parsed_arguments, {"city": "Oslo"})
    custom = client.responses.create(model=MODEL, input='[tool:shell "ls"]', tools=[{"type": "custom", "name": "shell"}])
    equal("responses: custom tool", (custom.output[0].type, custom.output[0].input), ("custom_tool_call", "ls"))
    cut = client.responses.create(model=MODEL, input="[incomplete]")
    equal("responses: incomplete", (cut.status, cut.incomplete_details.reason), ("incomplete", "max_output_tokens"))
    refused = client.responses.create(model=MODEL, input="[refuse]")
    equal("responses: refusal", refused.output[0].content[0].type, "refusal")


def chat_in_depth():
    tools = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
    messages = [{"role": "user", "content": TWO}]
    with Bill() as bill:
        first = client.chat.completions.create(model=MODEL, messages=messages, tools=tools)
    seen = (first.usage.prompt_tokens, first.usage.completion_tokens)
    equal("chat: the backend's usage", seen, (bill.input, bill.output))
    message = first.choices[0].message
    equal("chat: parallel calls", [json.loads(call.function.arguments) for call in message.tool_calls], TWO_CALLS)
    results = enumerate(call.id for call in message.tool_calls)
    messages += [message, *({"role": "tool", "tool_call_id": id, "content": f"rain {at}"} for at, id in results)]
    second = client.chat.completions.create(model=MODEL, messages=messages, tools=tools)
    equal("chat: their results", second.choices[0].message.content, "Tool said: rain 0 | rain 1")
    answer = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "hello"}], reasoning_effort="low"
    )
    equal("chat: reasoning", answer.choices[0].message.reasoning_content, "\n\n".join(THOUGHTS))
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": "hello"}], seed=1, temperature=0.1
    )
    equal("chat: what is ignored is named", raw.headers["x-tollway-ignored"].replace(" ", ""), "seed,temperature")


async def asynchronous():
    later = openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
    hello = [{"role": "user", "content": "hello"}]
    answers = await asyncio.gather(*(later.responses.create(model=MODEL, input=f"hello {n}") for n in range(8)))
    equal("async: side by side", [answer.output_text for answer in answers], [f"You said: hello {n}" for n in range(8)])
    async with later.responses.stream(model=MODEL, input="hello") as stream:
        text = "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])
        final = await stream.get_final_response()
    check("async: responses streamed", text == final.output_text == "You said: hello", final)
    chunks = [chunk async for chunk in await later.chat.completions.create(model=MODEL, messages=hello, stream=True)]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    equal("async: chat streamed", text, "You said: hello")
    equal("async: one finish reason", [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason], ["stop"])
    check("async: models", MODEL in [model.id async for model in later.models.list()])
    await raises_later(openai.NotFoundError, lambda: later.models.retrieve("no-such-model"))

    left = sim("GET", "stats")["totals"]["cancelled"]
    fault("slow", ms=50)
    async with await later.responses.create(model=MODEL, input="[long 2000]", stream=True) as stream:
        async for event in stream:
            if event.type == "response.output_text.delta":
                break
    eventually("async: the backend sees a client leave", lambda: sim("GET", "stats")["totals"]["cancelled"] == left + 1)


def errors_in_depth():
    hello = [{"role": "user", "content": "hello"}]
    fault("failed_event", **OVERFLOW)
    error = raises(openai.BadRequestError, lambda: client.responses.create(model=MODEL, input="hello"))
    equal("errors: overflow", error.code, "context_length_exceeded")
    fault("cut", after_events=6, clean=True)
    error = raises(openai.APIError, lambda: list(client.chat.completions.create(model=MODEL, messages=hello, stream=True)))
    equal("errors: a cut stream", error.type, "server_error")
    fault("cut", after_events=6, clean=True)
    events = list(client.responses.create(model=MODEL, input="hello", stream=True))
    equal("errors: a cut stream of responses", events[-1].type, "response.failed")
    fault("rate_limit", retry_after=1)
    patient = client.with_options(max_retries=3)
    equal("errors: a retry", patient.responses.create(model=MODEL, input="hello").output_text, "You said: hello")
    # Last, for the account is used up from here on.
    fault("usage_limit", resets_in_seconds=600)
    for _ in range(2):
        error = raises(openai.RateLimitError, lambda: client.responses.create(model=MODEL, input="hello"))
        check("errors: 429", 500 < int(error.response.headers["retry-after"]) <= 600, error.response.headers)


chat()
chat_in_depth()
responses()
responses_in_depth()
asyncio.run(asynchronous())
the_rest()
errors_in_depth()
print("all checks passed")

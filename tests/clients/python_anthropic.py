"""The Anthropic SDK for Python, unmodified: Messages."""

import anthropic
from check import KEY, MODEL, PIXEL, URL, check, raises
from pydantic import BaseModel

client = anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0)
TOOLS = [
    {
        "name": "weather",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }
]
CALL = 'please call [tool:weather {"city":"Oslo"}]'


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
print("all checks passed")

"""The OpenAI SDK for Python, unmodified: Chat Completions and Responses."""

import json

import openai
from check import KEY, MODEL, PIXEL, URL, check, raises
from pydantic import BaseModel

client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CALL = 'please call [tool:weather {"city":"Oslo"}]'
PICTURE = f"data:image/png;base64,{PIXEL}"


class Weather(BaseModel):
    temperature: float


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


chat()
responses()
the_rest()
print("all checks passed")

"""The OpenAI SDK for Python over the WebSocket transport: `client.responses.connect()`."""

import openai
from openai import OpenAI

from check import KEY, MODEL, URL, check, equal

client = OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)


def message(text):
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def response(connection):
    """The events up to the end of one response."""
    events = []
    for event in connection:
        events.append(event)
        if event.type in ("response.completed", "response.failed", "response.incomplete", "error"):
            return events
    raise SystemExit(f"FAILED: the connection ended after {[event.type for event in events]}")


with client.responses.connect() as connection:
    connection.response.create(model=MODEL, input="hello there", store=False)
    events = response(connection)
    equal("the last event", events[-1].type, "response.completed")
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    equal("the text", text, "You said: hello there")
    answer = events[-1].response
    equal("the whole text", answer.output_text, text)
    check("usage", answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0, answer.usage)

    tool = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
    connection.response.create(
        model=MODEL,
        input=[message('what of [tool:weather {"city":"Oslo"}]')],
        previous_response_id=answer.id,
        tools=[tool],
        store=False,
    )
    events = response(connection)
    call = next(item for item in events[-1].response.output if item.type == "function_call")
    equal("the call", (call.name, call.arguments), ("weather", '{"city":"Oslo"}'))
    connection.response.create(
        model=MODEL,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "rain"}],
        previous_response_id=events[-1].response.id,
        tools=[tool],
        store=False,
    )
    events = response(connection)
    text = events[-1].response.output_text
    check("the tool's answer went back", "Tool said: rain" in text, text)

    connection.response.create(model=MODEL, input="go on", previous_response_id="resp_unknown", store=False)
    events = response(connection)
    equal("an error event", events[-1].type, "error")
    check("names the unknown response", "previous_response_not_found" in events[-1].to_json(), events[-1])

try:
    with client.with_options(api_key="tw-wrong").responses.connect(max_retries=0) as connection:
        check("a wrong key opens nothing", False)
except Exception as error:  # the SDK passes on what its WebSocket library raises
    check("a wrong key opens nothing", "401" in str(error), error)

check("the SDK", bool(openai.__version__))
print("all checks passed")

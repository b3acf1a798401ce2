"""LangChain's chat models, unmodified, over Chat Completions, Responses and Messages. The same
expectations for each."""

import asyncio

import anthropic
import openai
from check import KEY, MODEL, PICTURE, PIXEL, TWO, URL, Bill, bodies, check, equal, fault, raises
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

# The models share their connections, which belong to one loop.
LOOP = asyncio.new_event_loop()


class Weather(BaseModel):
    """The weather."""

    temperature: float
    sky: str


@tool
def weather(city: str) -> str:
    """Tells the weather."""
    return f"rain in {city}"


def over_openai(key=KEY, **more):
    return ChatOpenAI(model=MODEL, base_url=f"{URL}/v1", api_key=key, **{"max_retries": 0} | more)


def over_anthropic(key=KEY, **more):
    return ChatAnthropic(model=MODEL, base_url=URL, api_key=key, **{"max_retries": 0} | more)


REASONING = {"effort": "low", "summary": "auto"}
WAYS = {
    "chat": (over_openai, {"stream_usage": True}),
    "responses": (over_openai, {"use_responses_api": True}),
    "messages": (over_anthropic, {"max_tokens": 5000}),
}
# How each is told to think, where it keeps what was thought.
THINKING = {
    "responses": {"reasoning": REASONING, "include": ["reasoning.encrypted_content"], "store": False},
    "messages": {"thinking": {"type": "enabled", "budget_tokens": 2000}},
}
PICTURES = {
    "chat": {"type": "image_url", "image_url": {"url": PICTURE}},
    "responses": {"type": "image_url", "image_url": {"url": PICTURE}},
    "messages": {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
}


def text(message):
    return message.text


def calls(message):
    return [(call["name"], call["args"]) for call in message.tool_calls]


TWO_CALLS = [("weather", {"city": "Oslo"}), ("weather", {"city": "Rome"})]


def loop(name, model):
    """Two calls, their results, and the answer; gives the backend's last input."""
    bound = model.bind_tools([weather])
    history = [HumanMessage(TWO)]
    history.append(bound.invoke(history))
    equal(f"{name}: two calls", calls(history[-1]), TWO_CALLS)
    history += [weather.invoke(call) for call in history[-1].tool_calls]
    check(f"{name}: results", all(isinstance(message, ToolMessage) for message in history[-2:]), history)
    equal(f"{name}: answer", text(bound.invoke(history)), "Tool said: rain in Oslo | rain in Rome")
    return bodies()[-1]["input"]


def judge(name, make, more):
    model = make(**more)
    with Bill() as bill:
        answer = model.invoke([SystemMessage("be brief"), HumanMessage("hello")])
    equal(f"{name}: plain", text(answer), "You said: hello")
    usage = answer.usage_metadata
    equal(
        f"{name}: usage",
        (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]),
        (bill.input, bill.output, bill.input + bill.output),
    )
    equal(f"{name}: cached", usage["input_token_details"]["cache_read"], bill.cached)
    check(f"{name}: model", answer.response_metadata["model_name"] == MODEL, answer.response_metadata)

    with Bill() as bill:
        chunks = list(model.stream("hello"))
    whole = sum(chunks[1:], chunks[0])
    check(f"{name}: in pieces", len([chunk for chunk in chunks if text(chunk)]) > 1, chunks)
    equal(f"{name}: streamed", text(whole), "You said: hello")
    usage = whole.usage_metadata
    equal(f"{name}: streamed usage", (usage["input_tokens"], usage["output_tokens"]), (bill.input, bill.output))
    later = LOOP.run_until_complete(model.ainvoke("hello"))
    equal(f"{name}: async", text(later), "You said: hello")

    loop(name, model)
    chunks = list(model.bind_tools([weather]).stream(TWO))
    equal(f"{name}: streamed calls", calls(sum(chunks[1:], chunks[0])), TWO_CALLS)
    forced = model.bind_tools([weather], tool_choice="weather").invoke("hello")
    equal(f"{name}: a forced call", [call["name"] for call in forced.tool_calls], ["weather"])

    if name in THINKING:
        thinker = make(**more | THINKING[name])
        items = loop(f"{name}: thinking", thinker)
        replayed = [item for item in items if item.get("type") == "reasoning"]
        check(f"{name}: thinking goes back", replayed and replayed[0]["encrypted_content"], items)

    content = [{"type": "text", "text": "look"}, PICTURES[name]]
    seen = text(model.invoke([HumanMessage(content)]))
    equal(f"{name}: image", seen, "I see 1 image (image/png, 70 bytes). You said: look")

    wanted = Weather(temperature=0, sky="text")
    for method in ["json_schema", "function_calling"]:
        structured = model.with_structured_output(Weather, method=method)
        equal(f"{name}: structured, {method}", structured.invoke("how warm?"), wanted)

    history = [HumanMessage("hello"), AIMessage("hi"), HumanMessage("and now?")]
    equal(f"{name}: history", text(model.invoke(history)), "You said: and now?")


def errors(name, make, more, sdk):
    stranger = make(key="tw-not-a-key", **more)
    check(f"{name}: 401", raises(sdk.AuthenticationError, lambda: stranger.invoke("hello")).status_code == 401)
    model = make(**more)
    words = "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 300123 tokens."
    fault("failed_event", code="context_length_exceeded", message=words)
    error = raises(sdk.BadRequestError, lambda: model.invoke("hello"))
    # LangChain has an error of its own for it, which its middleware acts on.
    check(f"{name}: overflow", "ContextOverflow" in type(error).__name__, type(error))
    fault("cut", after_events=6, clean=True)
    raises(Exception, lambda: list(model.stream("hello")))
    check(f"{name}: a cut stream is an error", True)
    fault("rate_limit", retry_after=1)
    raises(sdk.RateLimitError, lambda: model.invoke("hello"))
    check(f"{name}: 429", True)
    patient = make(**more | {"max_retries": 3})
    equal(f"{name}: patience helps", text(patient.invoke("hello")), "You said: hello")


for name, (make, more) in WAYS.items():
    judge(name, make, more)
for name, (make, more) in WAYS.items():
    errors(name, make, more, anthropic if name == "messages" else openai)
print("all checks passed")

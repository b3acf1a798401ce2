"""The OpenAI Agents SDK, unmodified, over Responses and over Chat Completions: tools, a handoff, an
answer with a schema, streamed and not."""

import asyncio

import openai
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from check import KEY, MODEL, TWO, URL, Bill, bodies, check, equal, fault, raises_later
from openai.types.shared import Reasoning
from pydantic import BaseModel

# Traces would go to api.openai.com.
set_tracing_disabled(True)
client = openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
asked = []


class Weather(BaseModel):
    temperature: float
    sky: str


@function_tool
def weather(city: str) -> str:
    """Tells the weather."""
    asked.append(city)
    return f"rain in {city}"


def kinds(result):
    return [item.type for item in result.new_items]


async def judge(name, model):
    agent = Agent(name="ada", instructions="be brief", model=model, tools=[weather])

    with Bill() as bill:
        result = await Runner.run(agent, "hello")
    equal(f"{name}: plain", result.final_output, "You said: hello")
    usage = result.context_wrapper.usage
    equal(f"{name}: usage", (usage.input_tokens, usage.output_tokens), (bill.input, bill.output))

    asked.clear()
    result = await Runner.run(agent, TWO)
    equal(f"{name}: two calls", asked, ["Oslo", "Rome"])
    equal(f"{name}: their results", result.final_output, "Tool said: rain in Oslo | rain in Rome")
    order = ["tool_call_item"] * 2 + ["tool_call_output_item"] * 2 + ["message_output_item"]
    equal(f"{name}: in order", kinds(result), order)
    again = await Runner.run(agent, [*result.to_input_list(), {"role": "user", "content": "and now?"}])
    equal(f"{name}: the conversation goes on", again.final_output, "You said: and now?")

    asked.clear()
    # Over Chat Completions it asks for the usage of a stream only when it is told to.
    agent = Agent(name="ada", model=model, tools=[weather], model_settings=ModelSettings(include_usage=True))
    stream = Runner.run_streamed(agent, TWO)
    deltas = []
    async for event in stream.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            deltas.append(event.data.delta)
    equal(f"{name}: streamed calls", asked, ["Oslo", "Rome"])
    equal(f"{name}: streamed", "".join(deltas), "Tool said: rain in Oslo | rain in Rome")
    equal(f"{name}: streamed in order", kinds(stream), order)
    check(f"{name}: streamed usage", stream.context_wrapper.usage.input_tokens > 0)

    # After the handoff the request's last words are the handoff's result.
    bob = Agent(name="bob", instructions="you are bob", model=model)
    agent = Agent(name="ada", model=model, handoffs=[bob])
    result = await Runner.run(agent, "give it to [tool:transfer_to_bob {}]")
    equal(f"{name}: handoff", result.last_agent.name, "bob")
    check(f"{name}: the other agent answers", result.final_output.startswith("Tool said: {"), result.final_output)
    check(f"{name}: under its own instructions", "you are bob" in str(bodies()[-1]), bodies()[-1])

    agent = Agent(name="ada", model=model, output_type=Weather)
    result = await Runner.run(agent, "how warm?")
    equal(f"{name}: a schema", result.final_output, Weather(temperature=0, sky="text"))

    agent = Agent(name="ada", model=model, tools=[weather], model_settings=ModelSettings(tool_choice="weather"))
    asked.clear()
    result = await Runner.run(agent, "hello")
    equal(f"{name}: a forced call", asked, ["text"])

    fault("failed_event", code="context_length_exceeded", message="Your input exceeds the context window.")
    error = await raises_later(openai.BadRequestError, lambda: Runner.run(agent, "hello"))
    equal(f"{name}: errors", error.code, "context_length_exceeded")


async def reasoning():
    """The Responses model sends reasoning items back; the backend must be able to read them."""
    settings = ModelSettings(
        reasoning=Reasoning(effort="low", summary="auto"), store=False, response_include=["reasoning.encrypted_content"]
    )
    agent = Agent(
        name="ada",
        model=OpenAIResponsesModel(MODEL, openai_client=client),
        tools=[weather],
        model_settings=settings,
    )
    result = await Runner.run(agent, TWO)
    equal("reasoning: answer", result.final_output, "Tool said: rain in Oslo | rain in Rome")
    equal("reasoning: shown", kinds(result)[0], "reasoning_item")
    replayed = next(item for item in bodies()[-1]["input"] if item.get("type") == "reasoning")
    check("reasoning: goes back", bool(replayed["encrypted_content"]), replayed)


async def main():
    await judge("responses", OpenAIResponsesModel(MODEL, openai_client=client))
    await judge("chat", OpenAIChatCompletionsModel(MODEL, openai_client=client))
    await reasoning()


asyncio.run(main())
print("all checks passed")

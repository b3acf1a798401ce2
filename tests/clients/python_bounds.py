"""The OpenAI and Anthropic SDKs for Python, unmodified: answers that the client bounds, and what its stream
helpers add up and send back."""

import anthropic
import openai
from check import CALL, KEY, MODEL, URL, check, equal

client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
chat, responses = client.chat.completions, client.responses
messages = anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0).messages
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WORDS = "word0 word1 word2 word3 word4 word5 word6 "


def said(content):
    return [{"role": "user", "content": content}]


def chat_is_bounded():
    ask = {"model": MODEL, "messages": said("[long 5000]")}
    choice = chat.create(**ask, stop="word7 ").choices[0]
    equal("chat: stop", (choice.message.content, choice.finish_reason), (WORDS, "stop"))
    with chat.stream(**ask, stop=["word7 "], stream_options={"include_usage": True}) as stream:
        final = stream.get_final_completion()
    choice = final.choices[0]
    equal("chat: stop, streamed", (choice.message.content, choice.finish_reason), (WORDS, "stop"))
    check("chat: usage of a cut stream", final.usage.completion_tokens > 0 < final.usage.prompt_tokens, final.usage)
    answer = chat.create(**ask, max_completion_tokens=7)
    equal("chat: limit", answer.choices[0].finish_reason, "length")
    equal("chat: limit, counted", answer.usage.completion_tokens, 7)


def responses_are_bounded():
    ask = {"model": MODEL, "input": "[long 5000]", "max_output_tokens": 20}
    whole = responses.create(**ask)
    with responses.stream(**ask) as stream:
        last = list(stream)[-1]
    # The SDK gives a final response for `response.completed` alone, from whoever it comes.
    equal("responses: the end", last.type, "response.incomplete")
    streamed = last.response
    for kind, answer in (("whole", whole), ("streamed", streamed)):
        equal(f"responses: limit, {kind}", (answer.status, answer.incomplete_details.reason), ("incomplete", "max_output_tokens"))
        equal(f"responses: counted, {kind}", (answer.usage.output_tokens, answer.max_output_tokens), (20, 20))
        equal(f"responses: item, {kind}", answer.output[-1].status, "incomplete")
    equal("responses: the same text", streamed.output_text, whole.output_text)
    equal("responses: enough", responses.create(model=MODEL, input="hi", max_output_tokens=500).status, "completed")


def chat_adds_up():
    tools = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
    ask = said(f"[reason] {CALL}")
    more = {"model": MODEL, "tools": tools, "reasoning_effort": "high"}
    with chat.stream(messages=ask, **more) as stream:
        message = stream.get_final_completion().choices[0].message
    details = message.model_extra["reasoning_details"]
    equal("chat: details", [each["type"] for each in details], ["reasoning.summary", "reasoning.encrypted"])
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "rain"}
    answer = chat.create(messages=[*ask, message.model_dump(exclude_none=True), result], **more)
    equal("chat: reasoning comes back", answer.choices[0].message.content, "Tool said: rain")
    with chat.stream(model=MODEL, messages=said("[search] news"), web_search_options={}) as stream:
        message = stream.get_final_completion().choices[0].message
    check("chat: citations", message.annotations[0].url_citation.url.startswith("https://"), message)
    with chat.stream(model=MODEL, messages=said("[image] a crab"), extra_body={"modalities": ["image"]}) as stream:
        message = stream.get_final_completion().choices[0].message
    check("chat: image", message.model_extra["images"][0]["image_url"]["url"].startswith("data:image/png"), message)


def messages_are_bounded():
    ask = {"model": MODEL, "messages": said("[long 5000]")}
    for stop in (["word7 "], ["nowhere", "word7 "]):
        answer = messages.create(**ask, max_tokens=500, stop_sequences=stop)
        with messages.stream(**ask, max_tokens=500, stop_sequences=stop) as stream:
            streamed = stream.get_final_message()
        for kind, answer in (("whole", answer), ("streamed", streamed)):
            equal(f"messages: stop, {kind}", (answer.content[0].text, answer.stop_reason), (WORDS, "stop_sequence"))
            equal(f"messages: which, {kind}", answer.stop_sequence, "word7 ")
            check(f"messages: usage, {kind}", answer.usage.output_tokens > 0 < answer.usage.input_tokens, answer)
    with messages.stream(**ask, max_tokens=7) as stream:
        final = stream.get_final_message()
    equal("messages: limit", (final.stop_reason, final.usage.output_tokens), ("max_tokens", 7))


def messages_add_up():
    tools = [{"name": "weather", "input_schema": SCHEMA}]
    ask = said(f"[reason] {CALL}")
    more = {"model": MODEL, "max_tokens": 2000, "tools": tools, "thinking": {"type": "adaptive"}}
    with messages.stream(messages=ask, **more) as stream:
        final = stream.get_final_message()
    equal("messages: blocks", [block.type for block in final.content], ["thinking", "tool_use"])
    result = {"type": "tool_result", "tool_use_id": final.content[1].id, "content": "rain"}
    turns = [*ask, {"role": "assistant", "content": final.content}, {"role": "user", "content": [result]}]
    answer = messages.create(messages=turns, **more)
    equal("messages: thinking comes back", answer.content[-1].text, "Tool said: rain")


chat_is_bounded()
responses_are_bounded()
chat_adds_up()
messages_are_bounded()
messages_add_up()
print("all checks passed")

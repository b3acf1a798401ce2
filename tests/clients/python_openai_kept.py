"""The OpenAI SDK for Python, unmodified: responses and conversations that the gateway keeps."""

import time

import openai

from check import KEY, URL, check, equal, raises

client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
MODEL = "gpt-6.1-sol"

first = client.responses.create(model=MODEL, input="one", metadata={"topic": "kept"}, instructions="be brief")
equal("metadata comes back", first.metadata, {"topic": "kept"})
equal("it is kept", first.store, True)
with client.responses.stream(model=MODEL, input="two", previous_response_id=first.id) as stream:
    kinds = [event.type for event in stream]
    second = stream.get_final_response()
equal("the stream begins and ends", (kinds[0], kinds[-1]), ("response.created", "response.completed"))
equal("it follows", second.previous_response_id, first.id)

again = client.responses.retrieve(first.id)
equal("the same object", again.model_dump(exclude={"usage"}), first.model_dump(exclude={"usage"}))
equal("the same text", again.output_text, first.output_text)
items = list(client.responses.input_items.list(second.id))
equal("the items of this request alone", [item.content[0].text for item in items], ["two"])

longer = client.responses.input_tokens.count(model=MODEL, input="two", previous_response_id=first.id)
plain = client.responses.input_tokens.count(model=MODEL, input="two")
equal("a count", plain.object, "response.input_tokens")
check("what it follows counts", longer.input_tokens > plain.input_tokens, (longer, plain))

reference = {"type": "item_reference", "id": first.output[-1].id}
referring = client.responses.create(model=MODEL, input=[reference, {"role": "user", "content": "three"}], store=False)
check("an item by its id", "three" in referring.output_text, referring.output_text)
raises(openai.NotFoundError, lambda: client.responses.retrieve(referring.id))

client.responses.delete(first.id)
raises(openai.NotFoundError, lambda: client.responses.retrieve(first.id))
error = raises(
    openai.BadRequestError, lambda: client.responses.create(model=MODEL, input="x", previous_response_id=first.id)
)
equal("the code", error.code, "previous_response_not_found")

talk = client.conversations.create(metadata={"of": "tests"}, items=[{"role": "user", "content": "My name is Ada."}])
equal("a conversation", (talk.object, talk.metadata), ("conversation", {"of": "tests"}))
said = client.responses.create(model=MODEL, input="Who am I?", conversation=talk.id)
equal("it stands in its conversation", said.conversation.id, talk.id)
listed = list(client.conversations.items.list(talk.id, order="asc", limit=1))
equal("all of it, page by page", [item.role for item in listed], ["user", "user", "assistant"])
one = client.conversations.items.retrieve(listed[0].id, conversation_id=talk.id)
equal("one item", one.content[0].text, "My name is Ada.")
added = client.conversations.items.create(talk.id, items=[{"role": "user", "content": "Bye"}])
equal("one more", len(added.data), 1)
client.conversations.items.delete(listed[0].id, conversation_id=talk.id)
equal("one less", len(list(client.conversations.items.list(talk.id))), 3)
equal("other metadata", client.conversations.update(talk.id, metadata={"a": "b"}).metadata, {"a": "b"})
equal("gone", client.conversations.delete(talk.id).deleted, True)
raises(openai.NotFoundError, lambda: client.conversations.retrieve(talk.id))

def polled(response):
    """The response when it has ended."""
    deadline = time.monotonic() + 30
    while response.status in ("queued", "in_progress"):
        check("it ends", time.monotonic() < deadline, response)
        time.sleep(0.05)
        response = client.responses.retrieve(response.id)
    return response


queued = client.responses.create(model=MODEL, input="later", background=True)
equal("it waits", (queued.status, queued.background, queued.output), ("queued", True, []))
done = polled(queued)
equal("it is done", (done.status, done.output_text, done.id), ("completed", "You said: later", queued.id))
check("usage", done.usage.output_tokens > 0, done.usage)
equal("a cancel comes too late", client.responses.cancel(queued.id).status, "completed")
raises(openai.BadRequestError, lambda: client.responses.cancel(second.id))

events = []
with client.responses.create(model=MODEL, input="[long 30]", background=True, stream=True) as stream:
    for event in stream:
        events.append(event)
        if event.type == "response.output_text.delta":
            break
name = events[0].response.id
for event in client.responses.retrieve(name, stream=True, starting_after=events[-1].sequence_number):
    events.append(event)
equal("each event once", [event.sequence_number for event in events], list(range(len(events))))
equal("to its end", events[-1].type, "response.completed")
text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
equal("all of the text", text, events[-1].response.output_text)
with client.responses.stream(response_id=name) as stream:
    equal("the SDK's own stream", stream.get_final_response().output_text, text)
print("all checks passed")

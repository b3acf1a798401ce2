"""Whether the official SDKs' types take what the dialects write, strictly: no field missing, none of
another type, no value that a type does not know. And whether the lists of fields are the SDKs'.

    strict_types.py ANSWERS.jsonl FIELDS
"""

import functools
import json
import pathlib
import sys
import typing

import anthropic
import openai
from anthropic.types import ErrorResponse, Message, RawMessageStreamEvent, message_create_params
from anthropic.types.beta import message_create_params as beta_message_create_params
from openai.types import ImageEditStreamEvent, ImageGenStreamEvent, ImagesResponse, image_edit_params, image_generate_params
from openai.types.chat import ChatCompletion, ChatCompletionChunk, completion_create_params
from openai.types.responses import Response, ResponseStreamEvent, response_create_params
from pydantic import TypeAdapter, ValidationError

WHOLE = {"chat": ChatCompletion, "messages": Message, "responses": Response, "images": ImagesResponse}
EVENT = {"chat": ChatCompletionChunk, "messages": RawMessageStreamEvent, "responses": ResponseStreamEvent,
         "images": typing.Union[ImageGenStreamEvent, ImageEditStreamEvent]}
# Not of the union that the SDKs stream: they take these out before.
APART = {"messages": {"ping", "error"}, "images": {"error"}}
faults = []


def is_beyond(value):
    """What the vendors' types have no place for: custom calls in a stream of chunks, which OpenAI sends
    all the same, and an image that a request to Messages asked for by name."""
    calls = [call for choice in value.get("choices", ()) for call in choice.get("delta", {}).get("tool_calls", ())]
    blocks = [*value.get("content", ()), value.get("content_block", {})]
    return any(call.get("type") == "custom" for call in calls) or any(block.get("type") == "image" for block in blocks)


@functools.cache
def reader(kind):
    return TypeAdapter(kind)


def take(name, what, kind, value):
    if is_beyond(value):
        return
    try:
        reader(kind).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        faults.append(f"{name}: {what}: {error}\n    {json.dumps(value)[:600]}")


def error_of_openai(value):
    error = value["error"]
    return all(isinstance(error[field], str) for field in ("message", "type")) and {"code", "param"} <= error.keys()


def check(answer):
    name, dialect = f"{answer['dialect']}/{answer['name']}", answer["dialect"]
    if not answer["failed"]:
        take(name, "whole", WHOLE[dialect], answer["whole"])
    elif dialect == "messages":
        take(name, "error", ErrorResponse, answer["whole"]["body"])
    elif not error_of_openai(answer["whole"]["body"]):
        faults.append(f"{name}: no error object: {answer['whole']}")
    for event in answer["events"]:
        if event.get("type") == "error" and dialect == "messages":
            take(name, "error event", ErrorResponse, event)
        elif dialect == "chat" and "error" in event:
            if not error_of_openai(event):
                faults.append(f"{name}: no error object: {event}")
        elif event.get("type") not in APART.get(dialect, ()) and not str(event.get("type")).startswith("codex."):
            take(name, "event", EVENT[dialect], event)


def fields_of(*kinds):
    return {name for kind in kinds for base in kind.__mro__ for name in getattr(base, "__annotations__", {})}


def check_fields(directory):
    listed = lambda name: json.loads((directory / f"{name}.json").read_text())
    sdk = {
        "chat": fields_of(completion_create_params.CompletionCreateParamsBase, completion_create_params.CompletionCreateParamsStreaming),
        "responses": fields_of(response_create_params.ResponseCreateParamsBase, response_create_params.ResponseCreateParamsStreaming),
        # A form's `image` is JSON's `images`.
        "images": fields_of(
            image_generate_params.ImageGenerateParamsBase,
            image_generate_params.ImageGenerateParamsStreaming,
            image_edit_params.ImageEditParamsBase,
            image_edit_params.ImageEditParamsStreaming,
        )
        - {"image"},
        "messages": fields_of(
            message_create_params.MessageCreateParamsBase,
            message_create_params.MessageCreateParamsStreaming,
            beta_message_create_params.MessageCreateParamsBase,
        ),
    }
    for name, fields in sdk.items():
        if missing := fields - listed(name)["fields"].keys():
            faults.append(f"tests/golden/fields/{name}.json lacks {sorted(missing)}")
    union = typing.get_args(ResponseStreamEvent)[0]
    events = {typing.get_args(kind.model_fields["type"].annotation)[0] for kind in typing.get_args(union)}
    if missing := events - set(listed("events")["events"]):
        faults.append(f"tests/golden/fields/events.json lacks {sorted(missing)}")


answers = [json.loads(line) for line in pathlib.Path(sys.argv[1]).read_text().split("\n")]
for answer in answers:
    check(answer)
check_fields(pathlib.Path(sys.argv[2]))
if faults:
    sys.exit("\n".join(faults))
print(f"{len(answers)} answers taken by openai {openai.__version__} and anthropic {anthropic.__version__}")

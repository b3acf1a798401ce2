"""The OpenAI SDK for Python, unmodified: pictures, and what is said where one cannot be had."""

import base64

import openai

from check import KEY, PIXEL, URL, check, equal, raises

client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)

made = client.images.generate(model="gpt-image-2", prompt="a pixel", n=2, size="1024x1024", quality="low")
equal("as many pictures as asked for", [picture.b64_json for picture in made.data], [PIXEL, PIXEL])
equal("in this form", (made.output_format, made.size, made.background), ("png", "1024x1024", "opaque"))
check("usage", made.usage.total_tokens == made.usage.input_tokens + made.usage.output_tokens, made.usage)

raw = client.images.with_raw_response.generate(model="gpt-image-2", prompt="a pixel", user="ada")
equal("what was left out is named", raw.headers["x-tollway-ignored"], "user")

error = raises(openai.BadRequestError, lambda: client.images.generate(prompt="a pixel", response_format="url"))
equal("no addresses", (error.code, error.param), ("unsupported_parameter", "response_format"))
streamed = list(client.images.generate(prompt="a pixel", stream=True, partial_images=2, output_format="webp"))
equal(
    "previews, then the picture",
    [type(event).__name__ for event in streamed],
    ["ImageGenPartialImageEvent", "ImageGenPartialImageEvent", "ImageGenCompletedEvent"],
)
equal("in their order", [event.partial_image_index for event in streamed[:2]], [0, 1])
equal("in the form asked for", [(event.b64_json, event.output_format) for event in streamed], [(PIXEL, "webp")] * 3)
check("usage of a stream", streamed[2].usage.total_tokens > 0, streamed[2].usage)
error = raises(openai.APIError, lambda: list(client.images.generate(prompt="gore [refuse]", stream=True)))
equal("a picture that is declined", error.code, "moderation_blocked")
error = raises(openai.BadRequestError, lambda: client.images.generate(prompt="a pixel", stream=True, n=2))
equal("one at a time", error.param, "n")
error = raises(openai.NotFoundError, lambda: client.images.generate(model="dall-e-3", prompt="a pixel"))
equal("no such model", error.code, "model_not_found")

png = base64.b64decode(PIXEL)
edited = client.images.edit(image=[png, ("b.png", png)], prompt="bluer", n=2, size="1024x1024")
equal("edits, as a form", [picture.b64_json for picture in edited.data], [PIXEL, PIXEL])
masked = client.images.edit(image=png, mask=png, prompt="bluer", output_format="jpeg", input_fidelity="high")
equal("with a mask", (masked.data[0].b64_json, masked.output_format), (PIXEL, "jpeg"))
streamed = list(client.images.edit(image=png, prompt="bluer", stream=True, partial_images=1))
equal(
    "a streamed edit",
    [event.type for event in streamed],
    ["image_edit.partial_image", "image_edit.completed"],
)
error = raises(openai.BadRequestError, lambda: client.images.edit(image=b"text", prompt="bluer"))
equal("no picture", error.param, "image")
raises(openai.NotFoundError, lambda: client.images.create_variation(image=png))
print("all checks passed")

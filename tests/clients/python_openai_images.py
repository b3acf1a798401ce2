"""The OpenAI SDK for Python, unmodified: pictures, and what is said where one cannot be had."""

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
error = raises(openai.BadRequestError, lambda: list(client.images.generate(prompt="a pixel", stream=True)))
equal("no streams", (error.code, error.param), ("unsupported_parameter", "stream"))
error = raises(openai.NotFoundError, lambda: client.images.generate(model="dall-e-3", prompt="a pixel"))
equal("no such model", error.code, "model_not_found")
raises(openai.BadRequestError, lambda: client.images.edit(model="gpt-image-2", image=b"png", prompt="bluer"))
print("all checks passed")

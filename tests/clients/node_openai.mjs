// The OpenAI SDK for TypeScript, unmodified: Responses, Chat Completions, Images, models, and its errors.
import OpenAI, { toFile } from 'openai'
import { zodFunction, zodResponseFormat, zodResponsesFunction, zodTextFormat } from 'openai/helpers/zod'
import { z } from 'zod'
import { CALL, KEY, MODEL, PICTURE, SCHEMA, THOUGHTS, URL, all, assert, billed, eventually, fault, lastBody, raises, sim, step } from './check.mjs'

const client = new OpenAI({ baseURL: `${URL}/v1`, apiKey: KEY, maxRetries: 0 })
const Weather = z.object({ temperature: z.number(), sky: z.enum(['clear', 'grey']) })
const City = z.object({ city: z.string() })
const said = (content) => [{ role: 'user', content }]

async function responses() {
  const tools = [{ type: 'function', name: 'weather', parameters: SCHEMA, strict: true }]

  await step('responses: plain, with the backend\'s usage', async () => {
    const [answer, bill] = await billed(() => client.responses.create({ model: MODEL, input: 'hello', instructions: 'be brief' }))
    assert.equal(answer.output_text, 'You said: hello')
    assert.equal(answer.status, 'completed')
    assert.equal(answer.object, 'response')
    assert.deepEqual(answer.output.map((item) => item.type), ['message'])
    assert.equal(answer.usage.input_tokens, bill.input)
    assert.equal(answer.usage.output_tokens, bill.output)
    assert.equal(answer.usage.total_tokens, bill.input + bill.output)
    assert.equal(answer.usage.input_tokens_details.cached_tokens, bill.cached)
    assert.equal(answer.usage.output_tokens_details.reasoning_tokens, bill.reasoning)
    assert.ok(answer._request_id)
  })

  await step('responses: every event in its place', async () => {
    const stream = await client.responses.create({ model: MODEL, input: 'hello [reason]', reasoning: { summary: 'auto' }, stream: true })
    const events = await all(stream)
    assert.deepEqual(events.map((event) => event.sequence_number), events.map((_, index) => index))
    const kinds = events.map((event) => event.type)
    const order = ['response.created', 'response.in_progress', 'response.output_item.added',
      'response.reasoning_summary_part.added', 'response.reasoning_summary_text.delta',
      'response.reasoning_summary_text.done', 'response.reasoning_summary_part.done', 'response.output_item.done',
      'response.content_part.added', 'response.output_text.delta', 'response.output_text.done',
      'response.content_part.done', 'response.completed']
    assert.deepEqual([...new Set(kinds)], order)
    const text = events.filter((event) => event.type === 'response.output_text.delta').map((event) => event.delta)
    assert.ok(text.length > 1)
    assert.equal(text.join(''), 'You said: hello [reason]')
    const { response } = events.at(-1)
    assert.deepEqual(response.output.map((item) => item.type), ['reasoning', 'message'])
    assert.deepEqual(response.output[0].summary.map((part) => part.text), THOUGHTS)
    assert.ok(response.output[0].encrypted_content)
  })

  await step('responses: stream() and its final response', async () => {
    const stream = client.responses.stream({ model: MODEL, input: 'hello' })
    let text = ''
    stream.on('response.output_text.delta', (event) => {
      text += event.delta
      assert.equal(event.snapshot, text)
    })
    const final = await stream.finalResponse()
    assert.equal(text, 'You said: hello')
    assert.equal(final.output_text, text)
  })

  await step('responses: image and file', async () => {
    const file = { type: 'input_file', filename: 'a.pdf', file_data: 'data:application/pdf;base64,JVBERi0xLjQK' }
    const content = [{ type: 'input_text', text: 'look' }, { type: 'input_image', image_url: PICTURE, detail: 'auto' }, file]
    const answer = await client.responses.create({ model: MODEL, input: said(content) })
    assert.equal(answer.output_text, 'I see 1 image (image/png, 70 bytes). You said: look')
    assert.deepEqual((await lastBody()).input[0].content[2], file)
  })

  await step('responses: parse', async () => {
    const text = { format: zodTextFormat(Weather, 'weather') }
    const answer = await client.responses.parse({ model: MODEL, input: 'how warm?', text })
    assert.deepEqual(answer.output_parsed, { temperature: 0, sky: 'clear' })
    const stream = client.responses.stream({ model: MODEL, input: 'how warm?', text })
    assert.deepEqual((await stream.finalResponse()).output_parsed, answer.output_parsed)
  })

  await step('responses: parallel calls, their results, and the reasoning sent back', async () => {
    const input = said('[reason] go [tool:weather {"city":"Oslo"}] [tool:weather {"city":"Rome"}]')
    const first = await client.responses.create({ model: MODEL, input, tools })
    assert.deepEqual(first.output.map((item) => item.type), ['reasoning', 'function_call', 'function_call'])
    const calls = first.output.slice(1)
    assert.deepEqual(calls.map((call) => JSON.parse(call.arguments)), [{ city: 'Oslo' }, { city: 'Rome' }])
    const outputs = calls.map((call, index) => ({ type: 'function_call_output', call_id: call.call_id, output: `rain ${index}` }))
    const second = await client.responses.create({ model: MODEL, input: [...input, ...first.output, ...outputs], tools })
    assert.equal(second.output_text, 'Tool said: rain 0 | rain 1')
    const replayed = (await lastBody()).input.find((item) => item.type === 'reasoning')
    assert.equal(replayed.encrypted_content, first.output[0].encrypted_content)
  })

  await step('responses: a call streamed with parsed arguments', async () => {
    const stream = client.responses.stream({ model: MODEL, input: CALL, tools: [zodResponsesFunction({ name: 'weather', parameters: City })] })
    let snapshot = ''
    stream.on('response.function_call_arguments.delta', (event) => (snapshot = event.snapshot))
    const final = await stream.finalResponse()
    assert.deepEqual(JSON.parse(snapshot), { city: 'Oslo' })
    assert.deepEqual(final.output[0].parsed_arguments, { city: 'Oslo' })
  })

  await step('responses: a custom tool', async () => {
    const tool = { type: 'custom', name: 'shell', description: 'runs text' }
    const answer = await client.responses.create({ model: MODEL, input: '[tool:shell "ls\\n-l"]', tools: [tool] })
    assert.deepEqual(answer.output.map((item) => [item.type, item.name, item.input]), [['custom_tool_call', 'shell', 'ls\n-l']])
  })

  await step('responses: forced and forbidden tools', async () => {
    const forced = await client.responses.create({ model: MODEL, input: 'hello', tools, tool_choice: { type: 'function', name: 'weather' } })
    assert.equal(forced.output[0].type, 'function_call')
    const none = await client.responses.create({ model: MODEL, input: CALL, tools, tool_choice: 'none' })
    assert.match(none.output_text, /^You said/)
  })

  await step('responses: web search with a citation', async () => {
    const answer = await client.responses.create({ model: MODEL, input: 'find [search]', tools: [{ type: 'web_search' }] })
    assert.deepEqual(answer.output.map((item) => item.type), ['web_search_call', 'message'])
    assert.equal(answer.output[1].content[0].annotations[0].type, 'url_citation')
  })

  await step('responses: refusal and incomplete', async () => {
    const refused = await client.responses.create({ model: MODEL, input: '[refuse]' })
    assert.equal(refused.output[0].content[0].type, 'refusal')
    const cut = await client.responses.create({ model: MODEL, input: '[incomplete]' })
    assert.equal(cut.status, 'incomplete')
    assert.equal(cut.incomplete_details.reason, 'max_output_tokens')
  })
}

async function chat() {
  const tools = [{ type: 'function', function: { name: 'weather', parameters: SCHEMA, strict: true } }]
  const ask = (content, more) => client.chat.completions.create({ model: MODEL, messages: said(content), ...more })

  await step('chat: plain, with the backend\'s usage', async () => {
    const [answer, bill] = await billed(() => ask('hello'))
    assert.equal(answer.object, 'chat.completion')
    assert.deepEqual(answer.choices.map((choice) => [choice.index, choice.finish_reason]), [[0, 'stop']])
    assert.equal(answer.choices[0].message.content, 'You said: hello')
    assert.equal(answer.choices[0].message.role, 'assistant')
    assert.equal(answer.usage.prompt_tokens, bill.input)
    assert.equal(answer.usage.completion_tokens, bill.output)
    assert.equal(answer.usage.total_tokens, bill.input + bill.output)
  })

  await step('chat: streamed', async () => {
    const chunks = await all(await ask('hello', { stream: true, stream_options: { include_usage: true } }))
    assert.equal(new Set(chunks.map((chunk) => chunk.id)).size, 1)
    assert.ok(chunks.every((chunk) => chunk.object === 'chat.completion.chunk'))
    assert.equal(chunks[0].choices[0].delta.role, 'assistant')
    assert.equal(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join(''), 'You said: hello')
    const reasons = chunks.map((chunk) => chunk.choices[0]?.finish_reason).filter(Boolean)
    assert.deepEqual(reasons, ['stop'])
    assert.deepEqual(chunks.at(-1).choices, [])
    assert.ok(chunks.at(-1).usage.total_tokens > 0)
    assert.ok(chunks.slice(0, -1).every((chunk) => chunk.usage == null))
    const without = await all(await ask('hello', { stream: true }))
    assert.ok(without.every((chunk) => chunk.usage == null && chunk.choices.length === 1))
  })

  await step('chat: reasoning is shown to who asks', async () => {
    const answer = await ask('hello', { reasoning_effort: 'low' })
    assert.equal(answer.choices[0].message.reasoning_content, THOUGHTS.join('\n\n'))
    assert.ok(answer.usage.completion_tokens_details.reasoning_tokens > 0)
    const chunks = await all(await ask('hello', { reasoning_effort: 'low', stream: true }))
    const thought = chunks.map((chunk) => chunk.choices[0]?.delta.reasoning_content ?? '').join('')
    assert.equal(thought, THOUGHTS.join('\n\n'))
  })

  await step('chat: image', async () => {
    const answer = await ask([{ type: 'text', text: 'look' }, { type: 'image_url', image_url: { url: PICTURE } }])
    assert.equal(answer.choices[0].message.content, 'I see 1 image (image/png, 70 bytes). You said: look')
  })

  await step('chat: parse', async () => {
    const response_format = zodResponseFormat(Weather, 'weather')
    const answer = await client.chat.completions.parse({ model: MODEL, messages: said('how warm?'), response_format })
    assert.deepEqual(answer.choices[0].message.parsed, { temperature: 0, sky: 'clear' })
    const stream = client.chat.completions.stream({ model: MODEL, messages: said('how warm?'), response_format })
    assert.deepEqual((await stream.finalChatCompletion()).choices[0].message.parsed, { temperature: 0, sky: 'clear' })
    const json = await ask('as JSON', { response_format: { type: 'json_object' } })
    assert.deepEqual(JSON.parse(json.choices[0].message.content), { answer: 'text' })
  })

  await step('chat: parallel calls and their results', async () => {
    const messages = said('[tool:weather {"city":"Oslo"}] [tool:weather {"city":"Rome"}]')
    const first = await client.chat.completions.create({ model: MODEL, messages, tools })
    assert.equal(first.choices[0].finish_reason, 'tool_calls')
    const calls = first.choices[0].message.tool_calls
    assert.deepEqual(calls.map((call) => JSON.parse(call.function.arguments)), [{ city: 'Oslo' }, { city: 'Rome' }])
    messages.push(first.choices[0].message)
    calls.forEach((call, index) => messages.push({ role: 'tool', tool_call_id: call.id, content: `rain ${index}` }))
    const second = await client.chat.completions.create({ model: MODEL, messages, tools })
    assert.equal(second.choices[0].message.content, 'Tool said: rain 0 | rain 1')
    assert.equal(second.choices[0].finish_reason, 'stop')
  })

  await step('chat: calls streamed with stable indexes', async () => {
    const chunks = await all(await ask('[tool:weather {"city":"Oslo"}] [tool:weather {"city":"Rome"}]', { tools, stream: true }))
    const made = []
    for (const { choices: [choice] } of chunks) {
      for (const piece of choice?.delta.tool_calls ?? []) {
        const call = (made[piece.index] ??= { id: piece.id, name: piece.function.name, text: '' })
        assert.ok(piece.id === undefined || piece.id === call.id)
        call.text += piece.function.arguments ?? ''
      }
    }
    assert.deepEqual(made.map((call) => [call.name, JSON.parse(call.text)]), [['weather', { city: 'Oslo' }], ['weather', { city: 'Rome' }]])
    assert.equal(new Set(made.map((call) => call.id)).size, 2)
    assert.equal(chunks.findLast((chunk) => chunk.choices[0]?.finish_reason).choices[0].finish_reason, 'tool_calls')
  })

  await step('chat: runTools, streamed and not', async () => {
    const asked = []
    const tool = zodFunction({ name: 'weather', parameters: City, function: ({ city }) => (asked.push(city), `rain in ${city}`) })
    const body = { model: MODEL, messages: said(CALL), tools: [tool] }
    assert.equal(await client.chat.completions.runTools(body).finalContent(), 'Tool said: rain in Oslo')
    const runner = client.chat.completions.runTools({ ...body, stream: true })
    assert.equal(await runner.finalContent(), 'Tool said: rain in Oslo')
    assert.deepEqual(asked, ['Oslo', 'Oslo'])
    assert.ok((await runner.totalUsage()) !== undefined)
  })

  await step('chat: stop sequences and output limits', async () => {
    const whole = await ask('one two three', { stop: ['two'] })
    assert.deepEqual([whole.choices[0].message.content, whole.choices[0].finish_reason], ['You said: one ', 'stop'])
    const chunks = await all(await ask('one two three', { stop: 'two', stream: true }))
    assert.equal(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join(''), 'You said: one ')
    const short = await ask('[long 2000]', { max_completion_tokens: 20 })
    assert.equal(short.choices[0].finish_reason, 'length')
    assert.ok(short.choices[0].message.content.length < 400)
  })

  await step('chat: refusal, incomplete', async () => {
    assert.ok((await ask('[refuse]')).choices[0].message.refusal)
    assert.equal((await ask('[incomplete]')).choices[0].finish_reason, 'length')
  })

  await step('chat: what is ignored is named', async () => {
    const { response } = await ask('hello', { temperature: 0.5, seed: 1 }).withResponse()
    const ignored = response.headers.get('x-tollway-ignored').split(',').map((name) => name.trim())
    assert.deepEqual(ignored.sort(), ['seed', 'temperature'])
  })
}

async function models() {
  await step('models: list and retrieve', async () => {
    const ids = (await all(client.models.list())).map((model) => model.id)
    assert.ok(ids.includes(MODEL), ids)
    const one = await client.models.retrieve(MODEL)
    assert.deepEqual([one.id, one.object], [MODEL, 'model'])
  })
}

async function errors() {
  const ask = (more) => client.responses.create({ model: MODEL, input: 'hello', ...more })

  await step('errors: 401, 404, 400', async () => {
    const stranger = new OpenAI({ baseURL: `${URL}/v1`, apiKey: 'tw-not-a-key', maxRetries: 0 })
    const unknown = await raises(OpenAI.AuthenticationError, () => stranger.models.list())
    assert.equal(unknown.code, 'invalid_api_key')
    assert.ok(unknown.requestID)
    for (const call of [() => client.models.retrieve('no-such-model'), () => ask({ model: 'no-such-model' }),
      () => client.chat.completions.create({ model: 'no-such-model', messages: said('hello') })]) {
      assert.equal((await raises(OpenAI.NotFoundError, call)).code, 'model_not_found')
    }
    for (const call of [() => client.chat.completions.create({ model: MODEL, messages: said(7) }), () => ask({ input: 7 })]) {
      assert.equal((await raises(OpenAI.BadRequestError, call)).type, 'invalid_request_error')
    }
    const two = () => client.chat.completions.create({ model: MODEL, messages: said('hello'), n: 2 })
    assert.equal((await raises(OpenAI.BadRequestError, two)).code, 'unsupported_parameter')
  })

  await step('errors: endpoints that the backend cannot serve', async () => {
    const refused = [() => client.embeddings.create({ model: MODEL, input: 'hello' }),
      () => client.audio.speech.create({ model: 'tts-1', voice: 'alloy', input: 'hello' }),
      async () => client.files.create({ purpose: 'assistants', file: await toFile(Buffer.from('hello'), 'a.txt') })]
    for (const call of refused) {
      const error = await raises(OpenAI.APIError, call)
      assert.ok(error.status >= 400 && error.status < 500, error)
      assert.equal(error.type, 'invalid_request_error')
    }
  })

  await step('errors: a stream that the backend cuts', async () => {
    await fault('cut', { after_events: 6, clean: true })
    const cut = await raises(OpenAI.APIError, async () => all(await client.chat.completions.create({ model: MODEL, messages: said('hello'), stream: true })))
    assert.equal(cut.type, 'server_error')
    await fault('cut', { after_events: 6, clean: true })
    const events = await all(await ask({ stream: true }))
    assert.equal(events.at(-1).type, 'response.failed')
    assert.equal(events.at(-1).response.error.code, 'server_error')
    await fault('cut', { after_events: 6, clean: true })
    const whole = await raises(OpenAI.InternalServerError, () => ask({}))
    assert.equal(whole.type, 'server_error')
  })

  await step('errors: a failure in the middle of a stream', async () => {
    const overflow = { code: 'context_length_exceeded', message: 'Your input exceeds the context window of this model.' }
    await fault('failed_event', overflow)
    const early = await raises(OpenAI.BadRequestError, () => ask({}))
    assert.equal(early.code, 'context_length_exceeded')
    await fault('failed_event', { code: 'server_error', message: 'It broke.', at: 'after_text' })
    const late = await raises(OpenAI.APIError, async () => all(await client.chat.completions.create({ model: MODEL, messages: said('hello'), stream: true })))
    assert.match(late.message, /It broke/)
  })

  await step('errors: an aborted request ends at the backend too', async () => {
    const broken = async () => (await sim('GET', 'stats')).totals.cancelled
    const before = await broken()
    await fault('slow', { ms: 50 })
    const stream = await ask({ input: '[long 2000]', stream: true })
    for await (const event of stream) if (event.type === 'response.output_text.delta') break
    await eventually('the backend saw the client leave', async () => (await broken()) === before + 1)
    const controller = new AbortController()
    await fault('slow', { ms: 50 })
    const waiting = client.responses.create({ model: MODEL, input: '[long 2000]' }, { signal: controller.signal })
    await eventually('it is at work', async () => (await sim('GET', 'stats')).in_flight > 0)
    controller.abort()
    await raises(OpenAI.APIUserAbortError, () => waiting)
    await eventually('the backend saw that too', async () => (await broken()) === before + 2)
  })

  await step('errors: a retry heals a server error', async () => {
    const patient = new OpenAI({ baseURL: `${URL}/v1`, apiKey: KEY, maxRetries: 3 })
    await fault('rate_limit', { retry_after: 1 })
    assert.equal((await patient.responses.create({ model: MODEL, input: 'hello' })).output_text, 'You said: hello')
  })

  // Last, for the account is used up from here on.
  await step('errors: 429 with the time to come back', async () => {
    await fault('usage_limit', { resets_in_seconds: 600 })
    const calls = [() => ask({}), () => client.chat.completions.create({ model: MODEL, messages: said('hello'), stream: true })]
    for (const call of calls) {
      const error = await raises(OpenAI.RateLimitError, call)
      const wait = Number(error.headers.get('retry-after'))
      assert.ok(wait > 500 && wait <= 600, `retry-after: ${wait}`)
      assert.ok(error.code)
      assert.ok(error.requestID)
    }
  })
}

async function images() {
  const png = () => toFile(Buffer.from(PICTURE.split(',')[1], 'base64'), 'a.png')

  await step('images: a stream of previews, then the picture', async () => {
    const events = await all(await client.images.generate({ prompt: 'a pixel', stream: true, partial_images: 2 }))
    const kinds = ['image_generation.partial_image', 'image_generation.partial_image', 'image_generation.completed']
    assert.deepEqual(events.map((event) => event.type), kinds)
    assert.deepEqual(events.slice(0, 2).map((event) => event.partial_image_index), [0, 1])
    assert.ok(events.every((event) => event.b64_json))
    assert.ok(events[2].usage.total_tokens > 0)
  })

  await step('images: edits of several pictures, and with a mask', async () => {
    const several = await client.images.edit({ image: [await png(), await png()], prompt: 'bluer', n: 2 })
    assert.equal(several.data.length, 2)
    const stream = await client.images.edit({ image: await png(), mask: await png(), prompt: 'bluer', stream: true, partial_images: 1 })
    assert.deepEqual((await all(stream)).map((event) => event.type), ['image_edit.partial_image', 'image_edit.completed'])
  })

  await step('images: a picture that is declined', async () => {
    const error = await raises(OpenAI.APIError, async () => all(await client.images.generate({ prompt: 'gore [refuse]', stream: true })))
    assert.equal(error.code, 'moderation_blocked')
  })
}

await responses()
await chat()
await images()
await models()
await errors()
console.log('all checks passed')

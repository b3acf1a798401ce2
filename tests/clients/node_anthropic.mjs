// The Anthropic SDK for TypeScript, unmodified: Messages, token counts, models, and its errors.
import Anthropic from '@anthropic-ai/sdk'
import { betaZodTool } from '@anthropic-ai/sdk/helpers/beta/zod'
import { zodOutputFormat } from '@anthropic-ai/sdk/helpers/zod'
import { z } from 'zod'
import { CALL, KEY, MODEL, PIXEL, SCHEMA, THOUGHTS, URL, all, assert, billed, eventually, fault, lastBody, raises, sim, step } from './check.mjs'

const client = new Anthropic({ baseURL: URL, apiKey: KEY, maxRetries: 0 })
const tools = [{ name: 'weather', description: 'tells the weather', input_schema: SCHEMA }]
const thinking = { type: 'enabled', budget_tokens: 2000 }
const TWO = 'go [tool:weather {"city":"Oslo"}] [tool:weather {"city":"Rome"}]'
const said = (content) => [{ role: 'user', content }]
const body = (content, more) => ({ model: MODEL, max_tokens: 5000, messages: said(content), ...more })
const ask = (content, more) => client.messages.create(body(content, more))

/** Checks the grammar of a raw stream and puts the blocks together. */
function judge(events) {
  const blocks = []
  let open = null
  let ended = null
  assert.equal(events[0].type, 'message_start')
  assert.equal(events.at(-1).type, 'message_stop')
  for (const event of events.slice(1, -1)) {
    if (event.type === 'ping') continue
    assert.equal(ended, null, 'nothing but the end behind message_delta')
    if (event.type === 'content_block_start') {
      assert.equal(open, null, 'one block at a time')
      assert.equal(event.index, blocks.length)
      open = { ...event.content_block, pieces: '' }
      blocks.push(open)
    } else if (event.type === 'content_block_delta') {
      assert.equal(event.index, blocks.length - 1)
      const { delta } = event
      if (delta.type === 'signature_delta') open.signature = delta.signature
      else open.pieces += delta.text ?? delta.thinking ?? delta.partial_json
    } else if (event.type === 'content_block_stop') {
      assert.ok(open)
      open = null
    } else {
      assert.equal(event.type, 'message_delta')
      assert.equal(open, null)
      ended = event
    }
  }
  return { blocks, ended }
}

async function messages() {
  await step('plain, with the backend\'s usage', async () => {
    const [answer, bill] = await billed(() => ask('hello', { system: 'be brief' }))
    assert.deepEqual([answer.type, answer.role, answer.stop_reason, answer.stop_sequence], ['message', 'assistant', 'end_turn', null])
    assert.deepEqual(answer.content.map((block) => [block.type, block.text]), [['text', 'You said: hello']])
    assert.equal(answer.usage.input_tokens + answer.usage.cache_read_input_tokens, bill.input)
    assert.equal(answer.usage.cache_read_input_tokens, bill.cached)
    assert.equal(answer.usage.output_tokens, bill.output)
    assert.ok(answer._request_id)
  })

  await step('every event in its place', async () => {
    const [events, bill] = await billed(async () => all(await ask('hello', { stream: true, thinking })))
    const { blocks, ended } = judge(events)
    assert.deepEqual(blocks.map((block) => block.type), ['thinking', 'text'])
    assert.equal(blocks[0].pieces, THOUGHTS.join('\n\n'))
    assert.ok(blocks[0].signature)
    assert.equal(blocks[1].pieces, 'You said: hello')
    assert.equal(ended.delta.stop_reason, 'end_turn')
    assert.equal(ended.usage.output_tokens, bill.output)
    assert.equal(ended.usage.input_tokens, bill.input)
    assert.ok(events[0].message.usage.input_tokens > 0)
  })

  await step('stream() and its final message', async () => {
    const stream = client.messages.stream(body('hello'))
    let text = ''
    stream.on('text', (delta, snapshot) => assert.equal((text += delta), snapshot))
    const final = await stream.finalMessage()
    assert.equal(text, 'You said: hello')
    assert.equal(await stream.finalText(), text)
    assert.equal(final.stop_reason, 'end_turn')
    assert.ok(final.usage.output_tokens > 0)
  })

  await step('images and documents', async () => {
    const image = { type: 'image', source: { type: 'base64', media_type: 'image/png', data: PIXEL } }
    const pdf = { type: 'document', source: { type: 'base64', media_type: 'application/pdf', data: 'JVBERi0xLjQK' }, title: 'a.pdf' }
    const note = { type: 'document', source: { type: 'text', media_type: 'text/plain', data: 'a note' } }
    const answer = await ask([image, pdf, note, { type: 'text', text: 'look' }])
    assert.match(answer.content[0].text, /^I see 1 image \(image\/png, 70 bytes\)\./)
    const parts = (await lastBody()).input[0].content
    assert.equal(parts.filter((part) => part.type === 'input_file').length, 1)
    assert.ok(parts.some((part) => part.text?.includes('a note')))
    const url = await ask([{ type: 'image', source: { type: 'url', url: 'https://example.com/a.png' } }])
    assert.match(url.content[0].text, /https:\/\/example.com\/a.png/)
  })

  await step('parse', async () => {
    const Weather = z.object({ temperature: z.number(), sky: z.enum(['clear', 'grey']) })
    const answer = await client.messages.parse(body('how warm?', { output_config: { format: zodOutputFormat(Weather) } }))
    assert.deepEqual(answer.parsed_output, { temperature: 0, sky: 'clear' })
  })

  await step('parallel calls; the thinking goes back to the backend with their results', async () => {
    const first = await ask(TWO, { tools, thinking })
    assert.equal(first.stop_reason, 'tool_use')
    assert.deepEqual(first.content.map((block) => block.type), ['thinking', 'tool_use', 'tool_use'])
    const made = first.content.slice(1)
    assert.deepEqual(made.map((call) => [call.name, call.input]), [['weather', { city: 'Oslo' }], ['weather', { city: 'Rome' }]])
    const results = [
      { type: 'tool_result', tool_use_id: made[0].id, content: 'rain' },
      { type: 'tool_result', tool_use_id: made[1].id, content: [{ type: 'text', text: 'no such city' }], is_error: true },
    ]
    const history = [...said(TWO), { role: 'assistant', content: first.content }, { role: 'user', content: results }]
    const second = await client.messages.create({ model: MODEL, max_tokens: 5000, messages: history, tools, thinking })
    assert.match(second.content.at(-1).text, /^Tool said: rain \| .*no such city/s)
    const { input } = await lastBody()
    assert.deepEqual(input.map((item) => item.type), ['message', 'reasoning', 'function_call', 'function_call', 'function_call_output', 'function_call_output'])
    assert.ok(input[1].encrypted_content)
  })

  await step('calls streamed', async () => {
    const { blocks, ended } = judge(await all(await ask(TWO, { tools, stream: true })))
    assert.deepEqual(blocks.map((block) => [block.type, block.name, JSON.parse(block.pieces)]),
      [['tool_use', 'weather', { city: 'Oslo' }], ['tool_use', 'weather', { city: 'Rome' }]])
    assert.equal(ended.delta.stop_reason, 'tool_use')
    const stream = client.messages.stream(body(TWO, { tools }))
    const snapshots = []
    stream.on('inputJson', (_, snapshot) => snapshots.push(snapshot))
    const final = await stream.finalMessage()
    assert.deepEqual(final.content.map((block) => block.input), [{ city: 'Oslo' }, { city: 'Rome' }])
    assert.ok(snapshots.length > 2)
  })

  await step('tool choice', async () => {
    const chosen = async (tool_choice) => (await ask(TWO, { tools, tool_choice })).content.map((block) => block.type)
    assert.deepEqual(await chosen({ type: 'none' }), ['text'])
    assert.deepEqual(await chosen({ type: 'auto', disable_parallel_tool_use: true }), ['tool_use'])
    const forced = await ask('hello', { tools, tool_choice: { type: 'tool', name: 'weather' } })
    assert.deepEqual(forced.content.map((block) => block.name), ['weather'])
    const any = await ask('hello', { tools, tool_choice: { type: 'any' } })
    assert.equal(any.stop_reason, 'tool_use')
  })

  await step('toolRunner, streamed and not', async () => {
    const asked = []
    const run = ({ city }) => (asked.push(city), `rain in ${city}`)
    const tool = betaZodTool({ name: 'weather', description: 'tells the weather', inputSchema: z.object({ city: z.string() }), run })
    const final = await client.beta.messages.toolRunner(body(TWO, { tools: [tool] }))
    assert.equal(final.content[0].text, 'Tool said: rain in Oslo | rain in Rome')
    const reasons = []
    for await (const stream of client.beta.messages.toolRunner(body(CALL, { tools: [tool], stream: true }))) {
      reasons.push((await stream.finalMessage()).stop_reason)
    }
    assert.deepEqual(reasons, ['tool_use', 'end_turn'])
    assert.deepEqual(asked, ['Oslo', 'Rome', 'Oslo'])
  })

  await step('web search', async () => {
    const answer = await ask('find [search]', { tools: [{ type: 'web_search_20250305', name: 'web_search' }] })
    assert.deepEqual(answer.content.map((block) => block.type), ['server_tool_use', 'web_search_tool_result', 'text'])
    assert.equal(answer.content[1].tool_use_id, answer.content[0].id)
    assert.equal(answer.content[2].citations[0].url, 'https://example.com/simulated')
    assert.equal(answer.stop_reason, 'end_turn')
  })

  await step('stop sequences and output limits', async () => {
    const cut = { stop_sequences: ['never', 'two'] }
    const whole = await ask('one two three', cut)
    assert.deepEqual([whole.content[0].text, whole.stop_reason, whole.stop_sequence], ['You said: one ', 'stop_sequence', 'two'])
    const { blocks, ended } = judge(await all(await ask('one two three', { ...cut, stream: true })))
    assert.deepEqual([blocks[0].pieces, ended.delta.stop_reason, ended.delta.stop_sequence], ['You said: one ', 'stop_sequence', 'two'])
    const short = await ask('[long 2000]', { max_tokens: 20 })
    assert.equal(short.stop_reason, 'max_tokens')
    assert.ok(short.content[0].text.length < 400, short.content[0].text)
  })

  await step('refusal and incomplete', async () => {
    assert.equal((await ask('[refuse]')).stop_reason, 'refusal')
    assert.equal((await ask('[incomplete]')).stop_reason, 'max_tokens')
  })
}

async function theRest() {
  await step('countTokens', async () => {
    const count = async (content, more) => (await client.messages.countTokens({ model: MODEL, messages: said(content), ...more })).input_tokens
    const short = await count('hello')
    assert.ok(short > 0 && short < 20, short)
    assert.ok((await count('hello '.repeat(100))) > short + 90)
    assert.ok((await count('hello', { tools })) > short)
  })

  await step('models: list and retrieve', async () => {
    const models = await all(client.models.list({ limit: 1000 }))
    const one = models.find((model) => model.id === MODEL)
    assert.equal(one.type, 'model')
    assert.deepEqual(await client.models.retrieve(MODEL), one)
  })
}

async function errors() {
  const kind = (error) => error.error?.error?.type

  await step('errors: 401, 404, 400', async () => {
    const stranger = new Anthropic({ baseURL: URL, apiKey: 'tw-not-a-key', maxRetries: 0 })
    const unknown = await raises(Anthropic.AuthenticationError, () => stranger.messages.create(body('hello')))
    assert.equal(kind(unknown), 'authentication_error')
    assert.ok(unknown.requestID)
    for (const call of [() => client.models.retrieve('no-such-model'), () => ask('hello', { model: 'no-such-model' })]) {
      assert.equal(kind(await raises(Anthropic.NotFoundError, call)), 'not_found_error')
    }
    const wrong = await raises(Anthropic.BadRequestError, () => ask(7))
    assert.equal(kind(wrong), 'invalid_request_error')
  })

  await step('errors: too long a prompt', async () => {
    await fault('failed_event', { code: 'context_length_exceeded', message: 'The maximum is 272000 tokens, you sent 300123 tokens.' })
    const long = await raises(Anthropic.BadRequestError, () => ask('hello'))
    assert.equal(long.error.error.message, 'prompt is too long: 300123 tokens > 272000 maximum')
  })

  await step('errors: a stream that the backend cuts', async () => {
    await fault('cut', { after_events: 6, clean: true })
    const cut = await raises(Anthropic.APIError, async () => all(await ask('hello', { stream: true })))
    assert.equal(kind(cut), 'api_error')
    await fault('cut', { after_events: 6, clean: true })
    await raises(Anthropic.InternalServerError, () => ask('hello'))
    await fault('failed_event', { code: 'server_error', message: 'It broke.', at: 'after_text' })
    const late = await raises(Anthropic.APIError, () => client.messages.stream(body('hello')).finalMessage())
    assert.match(late.message, /It broke/)
  })

  await step('errors: an aborted request ends at the backend too', async () => {
    const left = async () => (await sim('GET', 'stats')).totals.cancelled
    const before = await left()
    await fault('slow', { ms: 50 })
    const stream = client.messages.stream(body('[long 2000]'))
    stream.once('text', () => stream.abort())
    await raises(Anthropic.APIUserAbortError, () => stream.finalMessage())
    await eventually('the backend saw the client leave', async () => (await left()) === before + 1)
  })

  // Last, for the account is used up from here on.
  await step('errors: 429 with the time to come back', async () => {
    await fault('usage_limit', { resets_in_seconds: 600 })
    for (const more of [{}, { stream: true }]) {
      const error = await raises(Anthropic.RateLimitError, () => ask('hello', more))
      assert.equal(kind(error), 'rate_limit_error')
      const wait = Number(error.headers.get('retry-after'))
      assert.ok(wait > 500 && wait <= 600, `retry-after: ${wait}`)
    }
  })
}

await messages()
await theRest()
await errors()
console.log('all checks passed')

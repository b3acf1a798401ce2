// The OpenAI and Anthropic SDKs for TypeScript, unmodified: what the gateway keeps for them. Responses,
// conversations, responses in the background, compaction, message batches.
import Anthropic from '@anthropic-ai/sdk'
import OpenAI from 'openai'
import { KEY, MODEL, URL, all, assert, eventually, fault, raises, sim, step } from './check.mjs'

const openai = new OpenAI({ baseURL: `${URL}/v1`, apiKey: KEY, maxRetries: 0 })
const anthropic = new Anthropic({ baseURL: URL, apiKey: KEY, maxRetries: 0 })
const { responses, conversations } = openai
const { batches } = anthropic.messages

let first
await step('responses: kept, continued, looked up, listed, counted', async () => {
  first = await responses.create({ model: MODEL, input: 'one', metadata: { topic: 'kept' } })
  const second = await responses.stream({ model: MODEL, input: 'two', previous_response_id: first.id }).finalResponse()
  assert.equal(second.previous_response_id, first.id)
  assert.deepEqual((await responses.retrieve(first.id)).output, first.output)
  const items = await all(responses.inputItems.list(second.id))
  assert.deepEqual(items.map((item) => item.content[0].text), ['two'])
  const longer = await responses.inputTokens.count({ model: MODEL, input: 'two', previous_response_id: first.id })
  const plain = await responses.inputTokens.count({ model: MODEL, input: 'two' })
  assert.ok(longer.input_tokens > plain.input_tokens)
})

await step('responses: deleted', async () => {
  await responses.delete(first.id)
  await raises(OpenAI.NotFoundError, () => responses.retrieve(first.id))
  const error = await raises(OpenAI.BadRequestError, () => responses.create({ model: MODEL, input: 'x', previous_response_id: first.id }))
  assert.equal(error.code, 'previous_response_not_found')
})

await step('responses: in the background, polled, read on from an event, cancelled', async () => {
  const queued = await responses.create({ model: MODEL, input: 'later', background: true })
  assert.equal(queued.status, 'queued')
  const status = async () => (await responses.retrieve(queued.id)).status
  await eventually('it is done', async () => (await status()) === 'completed')
  assert.equal((await responses.retrieve(queued.id)).output_text, 'You said: later')

  const events = []
  for await (const event of await responses.create({ model: MODEL, input: '[long 20]', background: true, stream: true })) {
    events.push(event)
    if (event.type === 'response.output_text.delta') break
  }
  const { id } = events[0].response
  events.push(...(await all(await responses.retrieve(id, { stream: true, starting_after: events.at(-1).sequence_number }))))
  assert.deepEqual(events.map((event) => event.sequence_number), [...events.keys()])
  assert.equal(events.at(-1).type, 'response.completed')

  await fault('stall', { at: 'mid' })
  const stuck = await responses.create({ model: MODEL, input: '[long 20]', background: true })
  await eventually('it has begun', async () => (await sim('GET', 'stats')).in_flight === 1)
  assert.equal((await responses.cancel(stuck.id)).status, 'cancelled')
  assert.equal((await responses.retrieve(stuck.id)).status, 'cancelled')
})

await step('responses: compacted and gone on from', async () => {
  const input = [{ role: 'user', content: 'hi' }, { role: 'assistant', content: 'ho' }]
  const compacted = await responses.compact({ model: MODEL, input })
  assert.equal(compacted.object, 'response.compaction')
  const next = await responses.create({ model: MODEL, input: [...compacted.output, { role: 'user', content: 'and now?' }] })
  assert.equal(next.output_text, 'You said: and now?')
})

await step('conversations: made, added to, listed, deleted', async () => {
  const talk = await conversations.create({ metadata: { of: 'tests' }, items: [{ role: 'user', content: 'My name is Ada.' }] })
  const said = await responses.create({ model: MODEL, input: 'Who am I?', conversation: talk.id })
  assert.equal(said.conversation.id, talk.id)
  const items = await all(conversations.items.list(talk.id, { order: 'asc', limit: 1 }))
  assert.deepEqual(items.map((item) => item.role), ['user', 'user', 'assistant'])
  await conversations.items.create(talk.id, { items: [{ role: 'user', content: 'Bye' }] })
  await conversations.items.delete(items[0].id, { conversation_id: talk.id })
  assert.equal((await all(conversations.items.list(talk.id))).length, 3)
  assert.deepEqual((await conversations.update(talk.id, { metadata: { a: 'b' } })).metadata, { a: 'b' })
  assert.equal((await conversations.delete(talk.id)).deleted, true)
  await raises(OpenAI.NotFoundError, () => conversations.retrieve(talk.id))
})

await step('batches: handed in, read, cancelled, listed, deleted', async () => {
  const request = (custom_id, text) => ({ custom_id, params: { model: 'claude-sonnet-4-5', max_tokens: 100, messages: text ? [{ role: 'user', content: text }] : [] } })
  const ended = async (id) => {
    await eventually('the batch has ended', async () => (await batches.retrieve(id)).processing_status === 'ended')
    const results = await all(await batches.results(id))
    return Object.fromEntries(results.map(({ custom_id, result }) => [custom_id, result]))
  }
  const made = await batches.create({ requests: [request('good', 'hello'), request('bad', null)] })
  const results = await ended(made.id)
  assert.equal(results.good.message.content[0].text, 'You said: hello')
  assert.equal(results.bad.error.error.type, 'invalid_request_error')

  await fault('hold', { at: 'before', times: null })
  const second = await batches.create({ requests: ['a', 'b', 'c'].map((name) => request(name, name)) })
  await eventually('two have begun', async () => (await sim('GET', 'stats')).in_flight === 2)
  await raises(Anthropic.AnthropicError, () => batches.results(second.id))
  await batches.cancel(second.id)
  await sim('DELETE', 'faults')
  await sim('POST', 'release', { where: 'responses' })
  assert.deepEqual(Object.values(await ended(second.id)).map((result) => result.type), ['succeeded', 'succeeded', 'canceled'])
  assert.deepEqual((await all(batches.list({ limit: 1 }))).map((batch) => batch.id), [second.id, made.id])
  assert.equal((await batches.delete(made.id)).type, 'message_batch_deleted')
  await raises(Anthropic.NotFoundError, () => batches.retrieve(made.id))
})
console.log('all checks passed')

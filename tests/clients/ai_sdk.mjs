// The Vercel AI SDK, unmodified, with its four ways to Tollway: Responses, Chat Completions (twice) and
// Messages. The same expectations for each.
import { createAnthropic } from '@ai-sdk/anthropic'
import { createOpenAI } from '@ai-sdk/openai'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { APICallError, Output, generateObject, generateText, stepCountIs, streamText, tool } from 'ai'
import { z } from 'zod'
import { KEY, MODEL, PIXEL, THOUGHTS, URL, all, assert, billed, eventually, fault, lastBody, raises, sim, step } from './check.mjs'

globalThis.AI_SDK_LOG_WARNINGS = false
const baseURL = `${URL}/v1`
const providers = (apiKey) => ({
  openai: createOpenAI({ baseURL, apiKey }),
  anthropic: createAnthropic({ baseURL, apiKey }),
  compatible: createOpenAICompatible({ name: 'tollway', baseURL, apiKey, includeUsage: true, supportsStructuredOutputs: true }),
})
const { openai, anthropic, compatible } = providers(KEY)
const stranger = providers('tw-not-a-key')
const thinks = {
  responses: { openai: { reasoningEffort: 'low', reasoningSummary: 'auto', store: false, include: ['reasoning.encrypted_content'] } },
  chat: { openai: { reasoningEffort: 'low' } },
  compatible: { tollway: { reasoningEffort: 'low' } },
  messages: { anthropic: { thinking: { type: 'enabled', budgetTokens: 2000 } } },
}
const ways = [
  { name: 'responses', of: (id) => openai.responses(id), strange: stranger.openai.responses(MODEL) },
  { name: 'chat', of: (id) => openai.chat(id), strange: stranger.openai.chat(MODEL) },
  { name: 'compatible', of: (id) => compatible(id), strange: stranger.compatible(MODEL) },
  { name: 'messages', of: (id) => anthropic(id), strange: stranger.anthropic(MODEL) },
]
const TWO = 'go [tool:weather {"city":"Oslo"}] [tool:weather {"city":"Rome"}]'
const tools = {
  weather: tool({
    description: 'tells the weather',
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => ({ city, sky: 'grey' }),
  }),
}

for (const { name, of, strange } of ways) {
  const model = of(MODEL)
  const silent = { maxRetries: 0 }
  const ask = (prompt, more) => generateText({ model, prompt, ...silent, ...more })
  // Errors of a stream are told among its parts.
  const stream = (prompt, more) => streamText({ model, prompt, ...silent, onError: () => {}, ...more })

  await step(`${name}: plain, with the backend's usage`, async () => {
    const [answer, bill] = await billed(() => ask('hello', { instructions: 'be brief' }))
    assert.equal(answer.text, 'You said: hello')
    assert.equal(answer.finishReason, 'stop')
    assert.equal(answer.usage.inputTokens, bill.input)
    assert.equal(answer.usage.outputTokens, bill.output)
    assert.ok(JSON.stringify(await lastBody()).includes('be brief'))
  })

  await step(`${name}: streamed`, async () => {
    // The request leaves as soon as the stream is made, so the bill is taken from before that.
    let result
    const [parts, bill] = await billed(() => all((result = stream('hello')).fullStream))
    // A part of its own tells how a message of Anthropic's began.
    const kinds = parts.map((part) => part.type).filter((kind) => kind !== 'custom')
    assert.deepEqual([...new Set(kinds)], ['start', 'start-step', 'text-start', 'text-delta', 'text-end', 'finish-step', 'finish'])
    assert.ok(kinds.filter((kind) => kind === 'text-delta').length > 1)
    assert.equal(await result.text, 'You said: hello')
    assert.equal(await result.finishReason, 'stop')
    const usage = await result.usage
    assert.deepEqual([usage.inputTokens, usage.outputTokens], [bill.input, bill.output])
  })

  await step(`${name}: two calls, their results, and the answer, streamed and not`, async () => {
    const judge = async (steps, text, reason) => {
      assert.equal(steps.length, 2)
      assert.equal(steps[0].finishReason, 'tool-calls')
      assert.deepEqual(steps[0].toolCalls.map((call) => [call.toolName, call.input]), [['weather', { city: 'Oslo' }], ['weather', { city: 'Rome' }]])
      assert.equal(text, 'Tool said: {"city":"Oslo","sky":"grey"} | {"city":"Rome","sky":"grey"}')
      assert.equal(reason, 'stop')
    }
    const stopWhen = stepCountIs(5)
    const whole = await ask(TWO, { tools, stopWhen })
    await judge(whole.steps, whole.text, whole.finishReason)
    const result = stream(TWO, { tools, stopWhen })
    const parts = await all(result.fullStream)
    const inputs = parts.filter((part) => part.type === 'tool-input-delta').map((part) => part.delta).join('')
    assert.equal(inputs.replaceAll(' ', ''), '{"city":"Oslo"}{"city":"Rome"}')
    await judge(await result.steps, await result.text, await result.finishReason)
  })

  await step(`${name}: reasoning is shown, and goes back to the backend with the results`, async () => {
    const result = stream(TWO, { tools, stopWhen: stepCountIs(5), providerOptions: thinks[name] })
    await result.consumeStream()
    const [first] = await result.steps
    // How its parts are joined is the SDK's affair.
    const words = (text) => text.replaceAll(/\s/g, '')
    // The provider `openai` reads no reasoning from chat completions, only its count.
    if (name === 'chat') assert.ok(first.usage.outputTokenDetails.reasoningTokens > 0)
    else assert.equal(words(first.reasoningText), words(THOUGHTS.join()).replace(',', ''))
    const replayed = (await lastBody()).input.find((item) => item.type === 'reasoning')
    // The other ways have no field for it.
    if (name === 'responses' || name === 'messages') assert.ok(replayed?.encrypted_content, JSON.stringify((await lastBody()).input))
    assert.match(await result.text, /^Tool said/)
  })

  await step(`${name}: an object, streamed and not`, async () => {
    const schema = z.object({ temperature: z.number(), sky: z.enum(['clear', 'grey']) })
    const wanted = { temperature: 0, sky: 'clear' }
    assert.deepEqual((await ask('how warm?', { output: Output.object({ schema }) })).output, wanted)
    const partial = await all(stream('how warm?', { output: Output.object({ schema }) }).partialOutputStream)
    assert.deepEqual(partial.at(-1), wanted)
    assert.deepEqual((await generateObject({ model, ...silent, schema, prompt: 'how warm?' })).object, wanted)
  })

  await step(`${name}: an image`, async () => {
    const content = [{ type: 'text', text: 'look' }, { type: 'file', mediaType: 'image/png', data: PIXEL }]
    const answer = await generateText({ model, ...silent, messages: [{ role: 'user', content }] })
    assert.equal(answer.text, 'I see 1 image (image/png, 70 bytes). You said: look')
  })

  await step(`${name}: the limit ends with length`, async () => {
    assert.equal((await ask('[incomplete]')).finishReason, 'length')
  })

  await step(`${name}: errors`, async () => {
    const unknown = await raises(APICallError, () => ask('hello', { model: strange }))
    assert.deepEqual([unknown.statusCode, unknown.isRetryable], [401, false])
    const missing = await raises(APICallError, () => ask('hello', { model: of('no-such-model') }))
    assert.deepEqual([missing.statusCode, missing.isRetryable], [404, false])
    await fault('rate_limit', { retry_after: 1 })
    const limited = await raises(APICallError, () => ask('hello'))
    assert.deepEqual([limited.statusCode, limited.isRetryable], [429, true])
    assert.equal((await ask('hello', { maxRetries: 3 })).text, 'You said: hello')
  })

  await step(`${name}: a stream that the backend cuts ends with an error`, async () => {
    await fault('cut', { after_events: 6, clean: true })
    const parts = await all(stream('hello').fullStream)
    assert.ok(parts.some((part) => part.type === 'error'), JSON.stringify(parts.at(-1)))
    assert.ok(!parts.some((part) => part.type === 'finish' && part.finishReason === 'stop'))
  })

  await step(`${name}: an aborted stream ends at the backend too`, async () => {
    const left = async () => (await sim('GET', 'stats')).totals.cancelled
    const before = await left()
    const controller = new AbortController()
    await fault('slow', { ms: 50 })
    const result = stream('[long 2000]', { abortSignal: controller.signal })
    for await (const part of result.fullStream) {
      if (part.type === 'text-delta') controller.abort()
    }
    await eventually('the backend saw the client leave', async () => (await left()) === before + 1)
  })
}

await step('responses: by default what was said is kept, and the SDK refers to it', async () => {
  const sent = []
  const watched = (url, init) => (sent.push(JSON.parse(init.body)), fetch(url, init))
  const model = createOpenAI({ baseURL, apiKey: KEY, fetch: watched }).responses(MODEL)
  const thinking = { openai: { reasoningEffort: 'low', reasoningSummary: 'auto' } }
  const first = await generateText({ model, prompt: TWO, tools, stopWhen: stepCountIs(5), maxRetries: 0, providerOptions: thinking })
  assert.match(first.text, /^Tool said/)
  const messages = [{ role: 'user', content: TWO }, ...first.responseMessages, { role: 'user', content: 'and now?' }]
  const second = streamText({ model, messages, tools, maxRetries: 0, providerOptions: thinking })
  assert.equal(await second.text, 'You said: and now?')
  const { input } = await lastBody()
  assert.ok(!input.some((item) => item.type === 'item_reference'), JSON.stringify(input))
  for (const kind of ['reasoning', 'function_call', 'function_call_output']) assert.ok(input.some((item) => item.type === kind), kind)
  assert.ok(input.find((item) => item.type === 'reasoning').encrypted_content)
  const referred = sent.at(-1).input.filter((item) => item.type === 'item_reference')
  assert.ok(referred.length > 1, JSON.stringify(sent.at(-1).input))

  const name = (await second.providerMetadata).openai.responseId
  const third = await generateText({ model, prompt: 'on', maxRetries: 0, providerOptions: { openai: { previousResponseId: name } } })
  assert.equal(third.text, 'You said: on')
  assert.ok((await lastBody()).input.length > 5)
})
console.log('all checks passed')

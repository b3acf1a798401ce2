// What the scripts share: each step prints a line, and the first that fails ends the program.
import assert from 'node:assert/strict'

export const URL = process.env.TW_URL
export const KEY = process.env.TW_KEY
export const MODEL = process.env.TW_MODEL ?? 'gpt-6.1-sol'
/** The call of a tool `weather` that the simulated model makes when a user says this. */
export const CALL = 'please call [tool:weather {"city":"Oslo"}]'
export const SCHEMA = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'], additionalProperties: false }
/** One pixel, PNG. */
export const PIXEL =
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='
export const PICTURE = `data:image/png;base64,${PIXEL}`
/** What the simulated model thinks when its thoughts are asked for. */
export const THOUGHTS = ['**Reading the request**\n\nThe user wants an answer.', '**Answering** – naïvely']

export async function step(name, body) {
  try {
    await body()
    console.log(`ok ${name}`)
  } catch (error) {
    console.error(`FAILED ${name}:`, error)
    process.exit(1)
  }
}

/** The error of this kind that `call` ends with. */
export async function raises(kind, call) {
  let answer
  try {
    answer = await call()
  } catch (error) {
    assert.ok(error instanceof kind, `expected ${kind.name}, not ${error?.stack ?? error}`)
    return error
  }
  assert.fail(`no ${kind.name}, but ${JSON.stringify(answer)}`)
}

export const all = async (stream) => {
  const items = []
  for await (const item of stream) items.push(item)
  return items
}

/** The simulator's control (docs/simulator.md). */
export async function sim(method, path, body) {
  const headers = { 'content-type': 'application/json' }
  const answer = await fetch(`${process.env.TW_SIM}/sim/${path}`, { method, headers, body: body && JSON.stringify(body) })
  const text = await answer.text()
  assert.ok(answer.ok, `${path}: ${answer.status} ${text}`)
  return text ? JSON.parse(text) : null
}

/** The next answer meets this fault. */
export const fault = (kind, more = {}) => sim('POST', 'faults', { scope: '*', where: 'responses', kind, times: 1, ...more })

/** The body of the last request that the backend was sent. */
export async function lastBody() {
  const { requests } = await sim('GET', 'requests?limit=20')
  return requests.findLast((request) => request.path.endsWith('/codex/responses')).body
}

/** What the backend bills for `body`, beside what that gives. */
export async function billed(body) {
  const tokens = async () => (await sim('GET', 'stats')).totals.tokens
  const before = await tokens()
  const result = await body()
  const after = await tokens()
  return [result, Object.fromEntries(Object.keys(after).map((key) => [key, after[key] - before[key]]))]
}

/** Waits until `holds` does. */
export async function eventually(what, holds) {
  for (const deadline = Date.now() + 20_000; Date.now() < deadline; ) {
    if (await holds()) return
    await new Promise((wake) => setTimeout(wake, 20))
  }
  assert.fail(`never: ${what}`)
}

export { assert }

// People sign in with a real browser (Chromium) at a real OpenID Connect provider, use the admin API with
// their session, and sign out.
import { chromium } from 'playwright-core'
import { assert, step } from './check.mjs'

const ADMIN = process.env.TW_ADMIN
const API = `${ADMIN}/admin/v1`
const browser = await chromium.launch({
  executablePath: process.env.TW_CHROMIUM,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
})

/** Somebody's own browser. */
const visitor = async () => {
  const context = await browser.newContext()
  return { context, page: await context.newPage(), api: context.request }
}

/** Goes to the gateway's login and through the provider's pages; gives the answer at the end. */
async function signIn({ page }, login, returnTo) {
  await page.goto(`${API}/auth/login${returnTo ? `?return_to=${encodeURIComponent(returnTo)}` : ''}`)
  await page.fill('[name=login]', login)
  await page.fill('[name=password]', 'any')
  await page.click('button[type=submit]')
  await page.waitForSelector('[name=prompt][value=consent]', { state: 'attached' })
  const [answer] = await Promise.all([
    page.waitForResponse((answer) => answer.url().startsWith(`${API}/auth/callback`)),
    page.click('button[type=submit]'),
  ])
  await page.waitForLoadState()
  return answer
}

const session = async ({ api }) => {
  const answer = await api.get(`${API}/auth/session`)
  return [answer.status(), await answer.json()]
}

const ada = await visitor()
let callback
await step('somebody in a mapped group signs in, and lands where they wanted to', async () => {
  const answer = await signIn(ada, 'ada', '/admin/v1/auth?from=test')
  assert.equal(answer.status(), 303)
  callback = answer.url()
  assert.equal(ada.page.url(), `${API}/auth?from=test`)
  const text = await ada.page.innerText('main')
  for (const said of ['Ada <Lovelace>', 'owner', 'the whole gateway']) assert.ok(text.includes(said), text)
  const cookies = await ada.context.cookies(ADMIN)
  const ours = cookies.filter((cookie) => cookie.name.startsWith('tollway_'))
  assert.deepEqual(ours.map((cookie) => [cookie.name, cookie.httpOnly, cookie.sameSite]), [['tollway_session', true, 'Lax']])
})

let csrf
await step('the session is an owner of the API, who changes things with the token alone', async () => {
  const [status, who] = await session(ada)
  assert.equal(status, 200)
  assert.deepEqual([who.id, who.name, who.role, who.team_id], ['person:ada', 'Ada <Lovelace>', 'owner', null])
  assert.ok(who.expires_at > Date.now() && who.expires_at < Date.now() + 13 * 3_600_000)
  csrf = who.csrf_token
  const make = (headers) => ada.api.post(`${API}/teams`, { headers, data: { name: 'beta' } })
  assert.equal((await make({})).status(), 403)
  assert.equal((await make({ 'x-csrf-token': 'guessed' })).status(), 403)
  const made = await make({ 'x-csrf-token': csrf })
  assert.equal(made.status(), 201, await made.text())
  const log = await (await ada.api.get(`${API}/audit`)).json()
  assert.deepEqual(log.data.slice(0, 2).map((row) => [row.actor, row.action]), [['person:ada', 'team.create'], ['person:ada', 'session.begin']])
  assert.equal(log.data[1].after.role, 'owner')
})

await step('a callback is good once, and only for the browser that began', async () => {
  assert.equal((await ada.api.get(callback, { maxRedirects: 0 })).status(), 400)
  // The first half in one browser, the second in another.
  const [one, other] = [await visitor(), await visitor()]
  const away = await one.api.get(`${API}/auth/login`, { maxRedirects: 0 })
  assert.equal(away.status(), 303)
  const query = new globalThis.URL(away.headers().location).searchParams
  assert.equal(query.get('code_challenge_method'), 'S256')
  assert.ok(query.get('nonce') && query.get('state') && query.get('code_challenge').length === 43)
  const back = `${API}/auth/callback?code=x&state=${query.get('state')}`
  assert.equal((await other.api.get(back, { maxRedirects: 0 })).status(), 400)
  assert.equal((await one.api.get(`${back}tampered`, { maxRedirects: 0 })).status(), 400)
  const wrongIssuer = await one.api.get(`${back}&iss=https://evil.example.com`, { maxRedirects: 0 })
  assert.equal(wrongIssuer.status(), 400)
  // A code that the provider never gave.
  const again = await one.api.get(`${API}/auth/login`, { maxRedirects: 0 })
  const state = new globalThis.URL(again.headers().location).searchParams.get('state')
  const made = `${API}/auth/callback?code=made-up&state=${state}&iss=${encodeURIComponent(process.env.TW_ISSUER)}`
  const refused = await one.api.get(made, { maxRedirects: 0 })
  assert.deepEqual([refused.status(), (await refused.json()).type], [400, 'urn:tollway:problem:invalid_request'])
})

await step('nobody is led to another site', async () => {
  for (const to of ['https://evil.example.com', '//evil.example.com', '/\\evil.example.com']) {
    const answer = await ada.api.get(`${API}/auth/login?return_to=${encodeURIComponent(to)}`, { maxRedirects: 0 })
    assert.equal(answer.status(), 400, to)
  }
})

await step('one team\'s viewer and operator see nothing of another team', async () => {
  const [vera, lena] = [await visitor(), await visitor()]
  await signIn(vera, 'vera')
  assert.equal(vera.page.url(), `${API}/auth`)
  assert.match(await vera.page.innerText('main'), /core/)
  await signIn(lena, 'lena')
  const [, viewer] = await session(vera)
  const [, lead] = await session(lena)
  assert.deepEqual([viewer.role, lead.role], ['viewer', 'operator'])
  assert.ok(viewer.team_id && viewer.team_id === lead.team_id)
  for (const one of [vera, lena]) {
    assert.equal((await one.api.get(`${API}/teams/core`)).status(), 200)
    assert.equal((await one.api.get(`${API}/teams/beta`)).status(), 404)
    assert.equal((await one.api.get(`${API}/audit`)).status(), 403)
  }
  const make = (one, who) => one.api.post(`${API}/users`, { headers: { 'x-csrf-token': who.csrf_token }, data: { name: 'eve' } })
  assert.equal((await make(vera, viewer)).status(), 403)
  const made = await make(lena, lead)
  assert.deepEqual([made.status(), (await made.json()).team], [201, 'core'])
})

await step('who is in no mapped group is told so, and gets no session', async () => {
  const mallory = await visitor()
  const answer = await signIn(mallory, 'mallory')
  assert.equal(answer.status(), 403)
  assert.match(await mallory.page.innerText('main'), /none of your groups/)
  assert.deepEqual((await mallory.context.cookies(ADMIN)).filter((cookie) => cookie.name === 'tollway_session'), [])
  assert.equal((await session(mallory))[0], 401)
  const log = await (await ada.api.get(`${API}/audit?action=session.refuse`)).json()
  assert.deepEqual(log.data.map((row) => row.actor), ['person:mallory'])
})

await step('signing out needs the token, ends the session, and leads to the provider', async () => {
  const before = (await ada.context.cookies(ADMIN)).find((cookie) => cookie.name === 'tollway_session')
  assert.equal((await ada.api.post(`${API}/auth/logout`)).status(), 403)
  await ada.page.goto(`${API}/auth`)
  await ada.page.click('button')
  await ada.page.waitForURL(`${process.env.TW_ISSUER}/**`)
  assert.deepEqual((await ada.context.cookies(ADMIN)).filter((cookie) => cookie.name === 'tollway_session'), [])
  // Not even the cookie itself opens anything any more.
  await ada.context.addCookies([before])
  assert.equal((await session(ada))[0], 401)
})

await step('too many failures have to wait', async () => {
  const stranger = await visitor()
  const statuses = []
  // Each server counts for itself, and connections go to one or another.
  for (let i = 0; i < 12 * Number(process.env.TW_SERVERS) ** 2; i += 1) {
    statuses.push((await stranger.api.get(`${API}/auth/callback?code=x&state=guess${i}`, { maxRedirects: 0 })).status())
  }
  assert.equal(statuses.at(-1), 429, statuses.join())
  const answer = await stranger.api.get(`${API}/auth/login`, { maxRedirects: 0 })
  assert.equal(answer.status(), 429)
  assert.ok(Number(answer.headers()['retry-after']) > 0)
})

await browser.close()
console.log('all checks passed')

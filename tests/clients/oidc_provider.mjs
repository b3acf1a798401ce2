// A real OpenID Connect provider (oidc-provider, certified) with a few people; it prints its issuer.
// Any password opens; what the login says is who it is.
import http from 'node:http'
import Provider from 'oidc-provider'

const PEOPLE = {
  ada: { name: 'Ada <Lovelace>', groups: ['staff', 'admins'] },
  lena: { name: 'Lena Lead', groups: ['core-leads'] },
  vera: { name: 'Vera Viewer', groups: ['core-readers'] },
  mallory: { name: 'Mallory', groups: ['strangers'] },
}

const server = http.createServer()
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`
  // Of a native client any port of this machine will do: the gateway's is not known yet.
  const common = { application_type: 'native', redirect_uris: ['http://127.0.0.1/admin/v1/auth/callback'] }
  const provider = new Provider(issuer, {
    clients: [
      { ...common, client_id: 'tollway', client_secret: 'a+secret with/odd:letters', token_endpoint_auth_method: 'client_secret_basic' },
      { ...common, client_id: 'tollway-public', token_endpoint_auth_method: 'none' },
    ],
    claims: { openid: ['sub'], profile: ['name'], groups: ['groups'] },
    // Claims in the ID token too, or (as by default, and as the specification has it) at userinfo alone.
    conformIdTokenClaims: process.env.TW_CLAIMS_IN_TOKEN !== 'yes',
    cookies: { keys: ['of tests alone'] },
    features: { devInteractions: { enabled: true }, rpInitiatedLogout: { enabled: true } },
    async findAccount(_context, id) {
      return PEOPLE[id] && { accountId: id, claims: async () => ({ sub: id, ...PEOPLE[id] }) }
    },
  })
  server.on('request', provider.callback())
  console.log(`issuer ${issuer}`)
})

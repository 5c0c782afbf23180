// The reference PDS and PLC server of ATProto on loopback. Nothing of it is ours.
//
// Prints one line of JSON when it serves, and answers each line of standard input with one: "account NAME" makes an account
// with an app password, "rotate DID" gives an account another signing key, in the PLC directory and at its PDS, "revoke DID"
// takes the app password back, "stop-pds" ends the PDS alone. It ends with standard input.
import { randomBytes } from 'node:crypto'
import fs from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import readline from 'node:readline'
import { Secp256k1Keypair } from '@atproto/crypto'
import { PDS, envToCfg, envToSecrets } from '@atproto/pds'
import { Database, PlcServer } from '@did-plc/server'

const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'weft-pds-'))
const plc = PlcServer.create({ db: Database.mock(), port: 0 })
const plcListener = await plc.start()
const plcUrl = `http://127.0.0.1:${plcListener.address().port}`

const rotation = await Secp256k1Keypair.create({ exportable: true })
const hex = (bytes) => Buffer.from(bytes).toString('hex')
const env = {
  devMode: true,
  port: 0,
  hostname: 'localhost',
  dataDirectory: folder,
  blobstoreDiskLocation: path.join(folder, 'blobs'),
  didPlcUrl: plcUrl,
  serviceHandleDomains: ['.test'],
  inviteRequired: false,
  rateLimitsEnabled: false,
  disableSsrfProtection: true,
  jwtSecret: hex(randomBytes(16)),
  adminPassword: hex(randomBytes(16)),
  plcRotationKeyK256PrivateKeyHex: hex(await rotation.export()),
  bskyAppViewUrl: 'http://127.0.0.1:1',
  bskyAppViewDid: 'did:web:appview.invalid',
}
// A free port, because the PDS has to know its own before it listens.
const { createServer } = await import('node:net')
env.port = await new Promise((resolve) => {
  const probe = createServer().listen(0, '127.0.0.1', () => {
    const { port } = probe.address()
    probe.close(() => resolve(port))
  })
})
const config = envToCfg(env)
const pds = await PDS.create(config, envToSecrets(env))
await pds.start()
const pdsUrl = `http://127.0.0.1:${env.port}`

const call = async (method, body, token) => {
  const headers = { 'content-type': 'application/json' }
  if (token) headers.authorization = `Bearer ${token}`
  const answer = await fetch(`${pdsUrl}/xrpc/${method}`, { method: 'POST', headers, body: JSON.stringify(body) })
  const text = await answer.text()
  if (!answer.ok) throw new Error(text)
  return text ? JSON.parse(text) : {}
}

const accounts = new Map()
const commands = {
  async account(name) {
    const made = await call('com.atproto.server.createAccount', {
      handle: `${name}.test`,
      email: `${name}@example.invalid`,
      password: hex(randomBytes(16)),
    })
    const app = await call('com.atproto.server.createAppPassword', { name: 'weft' }, made.accessJwt)
    accounts.set(made.did, made.accessJwt)
    return { did: made.did, handle: made.handle, access: made.accessJwt, password: app.password }
  },
  async rotate(did) {
    const next = await Secp256k1Keypair.create({ exportable: true })
    const { keyLocation } = await pds.ctx.actorStore.getLocation(did)
    await fs.writeFile(keyLocation, await next.export())
    await pds.ctx.plcClient.updateAtprotoKey(did, pds.ctx.plcRotationKey, next.did())
    return { rotated: did }
  },
  async revoke(did) {
    await call('com.atproto.server.revokeAppPassword', { name: 'weft' }, accounts.get(did))
    return { revoked: did }
  },
  async 'stop-pds'() {
    await pds.destroy()
    return { stopped: pdsUrl }
  },
}

console.log(JSON.stringify({ plc: plcUrl, pds: pdsUrl }))
for await (const line of readline.createInterface({ input: process.stdin })) {
  const [command, argument] = line.trim().split(' ')
  const answer = await commands[command](argument).catch((error) => ({ failed: String(error) }))
  console.log(JSON.stringify({ answer }))
}
await fs.rm(folder, { recursive: true, force: true })
process.exit(0)

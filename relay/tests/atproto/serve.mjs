// The reference PDS and PLC server of ATProto on loopback, with one account. Nothing of it is ours.
//
// Prints one line of JSON when it serves. "rotate" on standard input gives the account another signing key, in the PLC
// directory and at its PDS, and is answered by a line; it ends with standard input.
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

const answer = await fetch(`${pdsUrl}/xrpc/com.atproto.server.createAccount`, {
  method: 'POST',
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify({ handle: 'alice.test', email: 'alice@example.invalid', password: hex(randomBytes(16)) }),
})
const account = await answer.json()
if (!answer.ok) throw new Error(JSON.stringify(account))
console.log(JSON.stringify({ plc: plcUrl, pds: pdsUrl, did: account.did, access: account.accessJwt }))

for await (const line of readline.createInterface({ input: process.stdin })) {
  if (line.trim() !== 'rotate') continue
  const next = await Secp256k1Keypair.create({ exportable: true })
  const { keyLocation } = await pds.ctx.actorStore.getLocation(account.did)
  await fs.writeFile(keyLocation, await next.export())
  await pds.ctx.plcClient.updateAtprotoKey(account.did, pds.ctx.plcRotationKey, next.did())
  console.log('rotated')
}
await fs.rm(folder, { recursive: true, force: true })
process.exit(0)

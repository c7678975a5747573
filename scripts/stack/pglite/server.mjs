// Serves a PGlite with TimescaleDB on a TCP port, in memory: `node server.mjs PORT [MODULES]`.
//
// PGlite is one PostgreSQL session in WASM. So connections are served one after the other: the next one waits until
// the one before has closed, and after each the session is put back (transaction, prepared statements, settings), so
// that a client finds what a fresh connection would find. There is no TLS and no COPY over the wire; any user and
// password are taken. MODULES is the folder that holds node_modules; by default the one of this file.
import net from 'node:net'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const port = Number(process.argv[2])
const modules = process.argv[3] ?? path.dirname(fileURLToPath(import.meta.url))
if (!Number.isInteger(port)) {
  console.error('usage: node server.mjs PORT [MODULES]')
  process.exit(2)
}
const packageDir = path.join(modules, 'node_modules', '@unni-craftsman', 'pglite')
const load = (file) => import(pathToFileURL(path.join(packageDir, 'dist', file)).href)
const { PGlite } = await load('index.js')
const { timescaledb } = await load('timescaledb/index.js')

const SSL_REQUEST = 80877103
const GSS_REQUEST = 80877104
const CANCEL_REQUEST = 80877102

const db = await PGlite.create({ extensions: { timescaledb } })
await db.exec('CREATE EXTENSION IF NOT EXISTS timescaledb')
await resetSession()

/** Cuts complete frontend messages off the front of `buffer`. A first message has no type byte. */
function takeMessages(buffer, started) {
  let end = 0
  while (true) {
    const lengthAt = started ? end + 1 : end
    if (buffer.length < lengthAt + 4) break
    const next = lengthAt + buffer.readInt32BE(lengthAt)
    if (buffer.length < next) break
    end = next
    if (!started) break
  }
  return [buffer.subarray(0, end), buffer.subarray(end)]
}

/** Answers one connection until it closes. PGlite is ours alone meanwhile. */
async function serve(socket) {
  let pending = Buffer.alloc(0)
  let started = false
  for await (const chunk of socket) {
    pending = Buffer.concat([pending, chunk])
    while (true) {
      const [messages, rest] = takeMessages(pending, started)
      if (messages.length === 0) break
      pending = rest
      if (!started) {
        const code = messages.readInt32BE(4)
        if (code === CANCEL_REQUEST) return
        if (code === SSL_REQUEST || code === GSS_REQUEST) {
          socket.write('N')
          continue
        }
        started = true
      }
      if (started && messages[0] === 0x58 /* Terminate */) return
      const answer = await db.execProtocolRaw(new Uint8Array(messages))
      if (answer.length > 0) socket.write(Buffer.from(answer))
    }
  }
}

/**
 * Puts the one session back to what a new connection expects. DISCARD ALL goes back to what PGlite gives on
 * PostgreSQL's command line, which are not PostgreSQL's own defaults: so these are set again.
 */
async function resetSession() {
  await db.exec('ROLLBACK')
  await db.exec('DISCARD ALL')
  await db.exec('SET search_path TO "$user", public')
  await db.exec('SET client_min_messages TO notice')
}

let turn = Promise.resolve()
const server = net.createServer((socket) => {
  socket.setNoDelay(true)
  socket.on('error', () => socket.destroy())
  turn = turn
    .then(() => serve(socket))
    .catch((error) => console.error(`connection: ${error.message}`))
    .then(() => socket.end())
    .then(resetSession)
    .catch((error) => console.error(`reset: ${error.message}`))
})
server.listen(port, '127.0.0.1', () => console.log(`pglite: ready on 127.0.0.1:${server.address().port}`))

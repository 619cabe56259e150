// A poller as teams write it: takes pending rows of outbox_events, sends them to Kafka, marks them as
// published. SIGTERM lets it end what it is at.
// Arguments: the folder that holds kafkajs and pg, the database's URL, the brokers.
import { createRequire } from 'node:module'
import { join } from 'node:path'

const [, , folder, url, brokers] = process.argv
const require = createRequire(join(folder, 'poller.cjs'))
const { Kafka, Partitioners, logLevel } = require('kafkajs')
const { Client } = require('pg')

let goesOn = true
process.on('SIGTERM', () => (goesOn = false))

const kafka = new Kafka({ clientId: 'poller', brokers: brokers.split(','), logLevel: logLevel.ERROR })
const producer = kafka.producer({ createPartitioner: Partitioners.LegacyPartitioner, idempotent: true })
const database = new Client({ connectionString: url })
await Promise.all([producer.connect(), database.connect()])
console.log('polling')

while (goesOn) {
  await database.query('BEGIN')
  const { rows } = await database.query(
    `SELECT id, aggregate_id, event_type, payload FROM outbox_events WHERE status = 'pending'
     ORDER BY created_at, id LIMIT 100 FOR UPDATE SKIP LOCKED`
  )
  const messages = new Map()
  for (const row of rows) {
    const topic = `${row.event_type.split('.')[0]}.events`
    if (!messages.has(topic)) messages.set(topic, [])
    messages.get(topic).push({ key: row.aggregate_id, value: JSON.stringify(row.payload) })
  }
  for (const [topic, batch] of messages) await producer.send({ topic, messages: batch })
  await database.query(
    `UPDATE outbox_events SET status = 'published', published_at = now() WHERE id = ANY($1)`,
    [rows.map(row => row.id)]
  )
  await database.query('COMMIT')
  if (rows.length === 0) await new Promise(resolve => setTimeout(resolve, 50))
}
await producer.disconnect()
await database.end()

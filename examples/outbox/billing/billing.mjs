// Adds up what each customer ordered. An event may come again, after a crash or by a replay of the
// topic; its id and its effect are committed together, so it counts once.
import kafkajs from 'kafkajs'
import lz4 from 'lz4js'
import pg from 'pg'

const { KAFKA_BROKERS, DATABASE_URL, GROUP = 'billing' } = process.env
const { CompressionCodecs, CompressionTypes, Kafka, logLevel } = kafkajs

// Tailwater's records are compressed by lz4, which kafkajs reads only with a codec.
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async encoder => Buffer.from(lz4.compress(encoder.buffer)),
  decompress: async buffer => Buffer.from(lz4.decompress(buffer)),
})

const kafka = new Kafka({
  clientId: 'billing',
  brokers: KAFKA_BROKERS.split(','),
  logLevel: logLevel.WARN,
})
// read_committed is kafkajs' default: of a transaction's events all are seen or none.
const consumer = kafka.consumer({ groupId: GROUP, readUncommitted: false })
const database = new pg.Client({ connectionString: DATABASE_URL })

const handle = async event => {
  await database.query('BEGIN')
  const { rowCount } = await database.query(
    'INSERT INTO billing.handled_events (id) VALUES ($1) ON CONFLICT DO NOTHING',
    [event.id],
  )
  if (rowCount === 1) {
    await database.query(
      `INSERT INTO billing.revenue (customer, total) VALUES ($1, $2)
       ON CONFLICT (customer) DO UPDATE SET total = revenue.total + excluded.total`,
      [event.data.customer, event.data.total],
    )
  }
  await database.query('COMMIT')
  console.log(rowCount === 1 ? 'handled' : 'seen before', event.type, event.id)
}

await database.connect()
await consumer.connect()
await consumer.subscribe({ topics: ['order.events'], fromBeginning: true })
await consumer.run({
  eachMessage: async ({ message }) => {
    const event = JSON.parse(message.value.toString())
    // Other types may come to the topic at any time.
    if (event.type !== 'order.placed') return
    try {
      await handle(event)
    } catch (error) {
      await database.query('ROLLBACK')
      // kafkajs hands it over again.
      throw error
    }
  },
})

for (const signal of ['SIGTERM', 'SIGINT']) {
  process.once(signal, async () => {
    await consumer.disconnect()
    await database.end()
  })
}

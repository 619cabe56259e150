// kafkajs as a read_committed consumer: all of some topics, each partition to its high watermark.
// Arguments: the folder that holds kafkajs, brokers, and topics as <name>=<high watermark of
// partition 0>,<of partition 1>… Standard output: records as Committed.java writes them, after a 1
// each; a 0 at the end.
import { createRequire } from 'node:module'
import { join } from 'node:path'

const [modules, brokers, ...wanted] = process.argv.slice(2)
const require = createRequire(join(modules, 'committed.cjs'))
const { CompressionCodecs, CompressionTypes, Kafka, logLevel } = require('kafkajs')
const lz4 = require('lz4js')

// kafkajs knows gzip only; whoever reads a producer's lz4 with it adds the codec like this.
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async encoder => Buffer.from(lz4.compress(encoder.buffer)),
  decompress: async buffer => Buffer.from(lz4.decompress(buffer)),
})

const kafka = new Kafka({
  clientId: 'committed',
  brokers: [brokers],
  logLevel: logLevel.ERROR,
  // Standard output is for records.
  logCreator: () => ({ log: { message, error } }) => console.error(message, error ?? ''),
})
const consumer = kafka.consumer({
  groupId: `committed-${process.pid}`,
  readUncommitted: false,
  maxWaitTimeInMs: 100,
  // Heartbeats wait while the reader of standard output takes its time over a batch.
  sessionTimeout: 600_000,
})

const int32 = number => {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(number)
  return bytes
}
const int64 = number => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigInt64BE(BigInt(number))
  return bytes
}
const bytes = content => {
  if (content === null || content === undefined) return int32(-1)
  const buffer = Buffer.from(content)
  return Buffer.concat([int32(buffer.length), buffer])
}
const record = (topic, partition, { offset, timestamp, key, value, headers }) => {
  // A name that comes twice has an array of values.
  const all = Object.entries(headers).flatMap(([name, values]) =>
    [values].flat().map(value => Buffer.concat([bytes(name), bytes(value)])),
  )
  const place = [Buffer.from([1]), bytes(topic), int32(partition), int64(offset), int64(timestamp)]
  return Buffer.concat([...place, bytes(key), bytes(value), int32(all.length), ...all])
}

const write = buffer => new Promise(written => process.stdout.write(buffer, written))

const topics = []
const ends = new Map()
for (const [topic, highs] of wanted.map(text => text.split('='))) {
  topics.push(topic)
  for (const [partition, high] of highs.split(',').entries()) {
    if (BigInt(high) > 0n) ends.set(`${topic}/${partition}`, BigInt(high))
  }
}

let hasWritten = false
// Told of batches that hold nothing but markers and aborted records too.
const finished = new Promise((resolve, reject) => {
  const pass = (place, next) => {
    if (ends.has(place) && next >= ends.get(place)) ends.delete(place)
    if (ends.size === 0) resolve()
  }
  consumer.on(consumer.events.END_BATCH_PROCESS, ({ payload }) =>
    pass(`${payload.topic}/${payload.partition}`, BigInt(payload.lastOffset) + 1n),
  )
  // It starts again by itself where the group's coordinator is still loading. Later than that it
  // would write the same records again.
  consumer.on(consumer.events.CRASH, ({ payload: { error, restart } }) => {
    if (!restart || hasWritten) reject(error)
  })
  if (ends.size === 0) resolve()
})
await consumer.connect()
await consumer.subscribe({ topics, fromBeginning: true })
await consumer.run({
  autoCommit: false,
  eachBatch: async ({ batch: { topic, partition, messages } }) => {
    hasWritten = true
    await write(Buffer.concat(messages.map(message => record(topic, partition, message))))
  },
})
await finished
await write(Buffer.from([0]))
await consumer.disconnect()

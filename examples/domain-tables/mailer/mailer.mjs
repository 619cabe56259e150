// Says what a customer would be told of an order. Each event is one line; a type that it does not
// know is passed over. A consumer whose work must not be done twice remembers the event's id, as
// those of ../../outbox do.
import kafkajs from 'kafkajs'
import lz4 from 'lz4js'

const { KAFKA_BROKERS, GROUP = 'mailer' } = process.env
const { CompressionCodecs, CompressionTypes, Kafka, logLevel } = kafkajs

// Tailwater's records are compressed by lz4, which kafkajs reads only with a codec.
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async encoder => Buffer.from(lz4.compress(encoder.buffer)),
  decompress: async buffer => Buffer.from(lz4.decompress(buffer)),
})

const letters = {
  'order.placed': ({ customer, total }) => `thank you, ${customer}: ${total} to pay`,
  'order.paid': ({ total }) => `we have your ${total}`,
  'order.address_corrected': ({ address }) => `your parcel will go to ${address}`,
  'order.shipped': ({ address }) => `your parcel is on its way to ${address}`,
  'order.cancelled': ({ refund }) =>
    refund === null ? 'your order is cancelled' : `your order is cancelled, ${refund} come back`,
}

const kafka = new Kafka({
  clientId: 'mailer',
  brokers: KAFKA_BROKERS.split(','),
  logLevel: logLevel.WARN,
})
// read_committed is kafkajs' default: of a transaction's events all are seen or none.
const consumer = kafka.consumer({ groupId: GROUP, readUncommitted: false })

await consumer.connect()
await consumer.subscribe({ topics: ['order.events'], fromBeginning: true })
await consumer.run({
  eachMessage: async ({ message }) => {
    const { type, data } = JSON.parse(message.value.toString())
    const letter = letters[type]
    if (letter) console.log(`order ${data.order}: ${letter(data)}`)
  },
})

for (const signal of ['SIGTERM', 'SIGINT']) {
  process.once(signal, () => consumer.disconnect())
}

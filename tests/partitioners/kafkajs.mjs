// Prints the partitions that kafkajs' own partitioners choose. Standard input: a line of JSON,
// {"partitions": number, "keys": [hexadecimal text]}. Standard output: {"default": […], "legacy": […]}.
// The first argument is the folder that holds kafkajs.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'

const require = createRequire(join(process.argv[2], 'partitioners.cjs'))
const { Partitioners } = require('kafkajs')

const { partitions, keys } = JSON.parse(readFileSync(0, 'utf8'))
const partitionMetadata = Array.from({ length: partitions }, (_, partitionId) => ({
  partitionId,
  leader: 0,
}))

const choose = create => {
  const partitioner = create()
  return keys.map(key =>
    partitioner({ topic: 'events', partitionMetadata, message: { key: Buffer.from(key, 'hex') } })
  )
}

console.log(
  JSON.stringify({
    default: choose(Partitioners.DefaultPartitioner),
    legacy: choose(Partitioners.LegacyPartitioner),
  })
)

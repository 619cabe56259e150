/** What happened, as one Kafka record's value. The contract is domain-event.schema.json. */
export interface DomainEvent<Type extends string = string, Data = unknown> {
  /** Names the event for ever: the outbox row's id, or a UUID that is made of it. Remember it to act only once. */
  id: string
  /** What happened, as `order.placed`. */
  type: Type
  /** The version of the data's shape, as `1.0`. */
  version: string
  /** The service that it happened in. */
  source: string
  /** What it belongs to, over all services; the event's own id where nothing else is known. */
  correlationId: string
  /** The event or command that caused it. Absent where that is not known. */
  causationId?: string
  /** When it happened, as `2026-03-01T12:00:00.000000Z`, or as the application wrote it. */
  occurredAt: string
  /** What is to be known of it. */
  data: Data
  /** Large unchanged columns that the database did not send. Not in `data`, and not null. */
  unavailable?: string[]
}

/** The headers of each record, as text. */
export interface DomainEventHeaders {
  'content-type': 'application/json'
  /** The envelope's `version`. */
  'schema-version': string
  'event-id': string
  'event-type': string
  'correlation-id': string
  /** The W3C trace context, where the row, or its transaction's context, carries one. */
  traceparent?: string
  /** The commit record of the event's transaction, as `16/B374D848`; where the stream begins, on a row of a take-over. */
  'pg-lsn': string
  /** The event's place in its transaction, from 0, without gaps. Not on a row of a take-over. */
  'pg-seq'?: string
  /** The transaction, in decimal. Not on a row of a take-over. */
  'pg-xid'?: string
  /** With `payload = "bare"` only: the envelope's other fields. */
  'occurred-at'?: string
  source?: string
  'causation-id'?: string
}

//! Why a row or a message cannot be an event, and why a table cannot be an outbox.

use crate::{
    change::{Oid, Transaction, Xid},
    event::{
        CONTEXT_PREFIX, EXTRA_HEADERS_MAX, Field, HEADER_NAME_BYTES_MAX, TopicNameError,
        table::{TableProblem, rules},
    },
    failure::{Code, Failure, Recovery},
    lsn::{CommitLsn, Lsn},
    value::Malformed,
};

/// A table or a row does not fit the settings.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EventError {
    /// The table lacks a column, or the column can never hold what it is configured for.
    #[error("outbox table \"{table}\": column \"{column}\" {problem}")]
    Column {
        /// `schema.table`.
        table: String,
        /// The column's name.
        column: String,
        /// What is wrong with it.
        problem: ColumnProblem,
    },
    /// The table does not fit its settings.
    #[error("table \"{table}\": {problem}")]
    Table {
        /// `schema.table`.
        table: String,
        /// What does not fit.
        problem: Box<TableProblem>,
    },
    /// The row cannot be an event.
    #[error("cannot map {row} to an event: {reason}")]
    Unmappable {
        /// Which row.
        row: Box<Row>,
        /// Why.
        reason: Reason,
    },
    /// The message cannot be an event, or no context of events.
    #[error("cannot map {message} to an event: {reason}")]
    UnmappableMessage {
        /// Which message.
        message: Box<MessagePlace>,
        /// Why.
        reason: Reason,
    },
}

/// Where a logical message stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MessagePlace {
    /// Its prefix.
    pub prefix: String,
    /// Its place in the log.
    pub message_lsn: Option<Lsn>,
    /// The commit record of its transaction.
    pub commit_lsn: CommitLsn,
    /// Its transaction.
    pub xid: Xid,
}

impl std::fmt::Display for MessagePlace {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { prefix, message_lsn, commit_lsn, xid } = self;
        write!(formatter, "the message of prefix \"{prefix}\"")?;
        if let Some(message_lsn) = message_lsn {
            write!(formatter, " at {message_lsn}")?;
        }
        write!(formatter, " in transaction {xid} committed at {commit_lsn}")
    }
}

/// Where a row stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// `schema.table`.
    pub table: String,
    /// The value of its id column, where it has one.
    pub id: Option<String>,
    /// How it came.
    pub origin: RowOrigin,
}

/// How a row came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RowOrigin {
    /// In the stream.
    Transaction {
        /// The commit record of its transaction.
        commit_lsn: CommitLsn,
        /// Its transaction.
        xid: Xid,
    },
    /// It was read as it was there.
    Snapshot,
}

impl RowOrigin {
    pub(super) fn of(transaction: &Transaction) -> Self {
        let Transaction { commit_lsn, xid, .. } = *transaction;
        Self::Transaction { commit_lsn, xid }
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { table, id, origin } = self;
        write!(formatter, "a row of \"{table}\"")?;
        if let Some(id) = id {
            write!(formatter, " (id \"{id}\")")?;
        }
        match origin {
            RowOrigin::Transaction { commit_lsn, xid } => {
                write!(formatter, " in transaction {xid} committed at {commit_lsn}")
            }
            RowOrigin::Snapshot => formatter.write_str(" that was there before the stream"),
        }
    }
}

/// What is wrong with a table's column.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ColumnProblem {
    /// There is none of that name.
    #[error("does not exist or is not published, but is needed as {role}")]
    Missing {
        /// What it is needed for, as in `columns.payload`.
        role: String,
    },
    /// The table has it, but no change carries it.
    #[error("is not delivered by publication \"{publication}\", but is needed as {role}")]
    NotPublished {
        /// What it is needed for, as in `columns.payload`.
        role: String,
        /// The publication.
        publication: String,
        /// Why, and the SQL after which it is delivered.
        mend: String,
    },
    /// Its type never holds such values.
    #[error("has a type (OID {type_oid}) that cannot be {role}, which is {expected}")]
    Type {
        /// The type.
        type_oid: Oid,
        /// What it is needed for, as in `columns.payload`.
        role: String,
        /// The types that can.
        expected: &'static str,
    },
}

/// Why a row cannot be an event. Names columns and fields, never holds their values.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Reason {
    /// SQL NULL where a value is needed.
    #[error("column \"{column}\" is NULL")]
    Null {
        /// The column.
        column: String,
    },
    /// The empty string where a value is needed.
    #[error("column \"{column}\" is empty")]
    Empty {
        /// The column.
        column: String,
    },
    /// The stream did not carry the value.
    #[error("the stream does not carry column \"{column}\"")]
    NotCarried {
        /// The column.
        column: String,
    },
    /// The server did not send the value, which was large and unchanged, or is no part of what it
    /// sends of an old row.
    #[error("the server did not send the value of column \"{column}\"")]
    NotSent {
        /// The column.
        column: String,
    },
    /// Its type cannot have written the text.
    #[error("column \"{column}\": {problem}")]
    Value {
        /// The column.
        column: String,
        /// What it is not.
        problem: Malformed,
    },
    /// The bytes are no text.
    #[error("column \"{column}\" is not valid UTF-8")]
    NotUtf8 {
        /// The column.
        column: String,
    },
    /// `infinity` or `-infinity`.
    #[error("column \"{column}\" is infinite")]
    Infinite {
        /// The column.
        column: String,
    },
    /// A year that ISO 8601 does not write in four digits.
    #[error("column \"{column}\" has a year outside 0001 to 9999")]
    YearOutOfRange {
        /// The column.
        column: String,
    },
    /// A text that is no timestamp.
    #[error("column \"{column}\" is not a timestamp in UTC")]
    NotTimestamp {
        /// The column.
        column: String,
    },
    /// The server's clock was far off.
    #[error("the commit time has a year outside 0001 to 9999")]
    CommitTimeOutOfRange,
    /// A payload that is no JSON.
    #[error("column \"{column}\" is not valid JSON ({detail})")]
    NotJson {
        /// The column.
        column: String,
        /// What the parser says: a place, not a value.
        detail: String,
    },
    /// An envelope that is no JSON object.
    #[error("column \"{column}\" is not a JSON object, and so no envelope")]
    NotObject {
        /// The column.
        column: String,
    },
    /// What the column of headers holds cannot be headers.
    #[error("column \"{column}\" {problem}")]
    Headers {
        /// The column.
        column: String,
        /// What is wrong with it.
        problem: HeaderProblem,
    },
    /// A field of the payload's envelope.
    #[error("the payload's field \"{}\" {problem}", field.name())]
    Field {
        /// The field.
        field: Field,
        /// What is wrong with it.
        problem: FieldProblem,
    },
    /// The content of a message.
    #[error("its content {problem}")]
    Message {
        /// What is wrong with it.
        problem: MessageProblem,
    },
    /// A field of a message.
    #[error("its field \"{name}\" {problem}")]
    MessageField {
        /// The field.
        name: &'static str,
        /// What is wrong with it.
        problem: FieldProblem,
    },
    /// A rule has no answer for the row.
    #[error("{answer}")]
    Rule {
        /// Which rule, and why.
        answer: Box<rules::NoAnswer>,
    },
    /// The topic template makes no topic name of this event.
    #[error("the name that topic template \"{template}\" makes for it {problem}")]
    Topic {
        /// The template.
        template: String,
        /// What is wrong with the name.
        problem: TopicNameError,
    },
}

/// Why the members of a column of headers cannot be headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderProblem {
    /// It has no members.
    #[error("is not a JSON object, whose members would be headers")]
    NotObject,
    /// Half a surrogate pair in a name or a text.
    #[error("holds an escape that is no character, which no header can hold")]
    NotText,
    /// A name that does not fit a record.
    #[error("holds a header name of more than {HEADER_NAME_BYTES_MAX} bytes")]
    NameTooLong,
    /// More than fit a record.
    #[error("makes more than {EXTRA_HEADERS_MAX} headers, with those of the settings")]
    TooMany,
}

/// What is wrong with a message's content.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MessageProblem {
    /// The bytes are no text.
    #[error("is not valid UTF-8")]
    NotUtf8,
    /// The text is no JSON.
    #[error("is not valid JSON ({detail})")]
    NotJson {
        /// What the parser says: a place, not a value.
        detail: String,
    },
    /// It has no fields.
    #[error("is not a JSON object")]
    NotObject,
}

/// What is wrong with a field of an envelope.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FieldProblem {
    /// It is not there.
    #[error("is missing")]
    Missing,
    /// It is there more than once.
    #[error("is there twice")]
    Twice,
    /// Another JSON type.
    #[error("is not a string")]
    NotString,
    /// Half a surrogate pair.
    #[error("holds an escape that is no character")]
    NotText,
    /// An id that is no UUID.
    #[error("is not a UUID")]
    NotUuid,
    /// The empty string.
    #[error("is empty")]
    Empty,
    /// A key that is none.
    #[error("is neither a string nor a number")]
    NotKey,
    /// An instant that is none.
    #[error("is not an RFC 3339 instant of the years 0001 to 9999")]
    NotInstant,
    /// The column says otherwise.
    #[error("contradicts column \"{column}\"")]
    Contradicts {
        /// The column.
        column: String,
    },
}

impl Failure for EventError {
    fn code(&self) -> Option<Code> {
        Some(match self {
            Self::Column { .. } => Code::ColumnMissing,
            Self::Table { problem, .. } => problem.code(),
            Self::Unmappable { .. } | Self::UnmappableMessage { .. } => Code::EventUnmappable,
        })
    }

    fn recovery(&self) -> Recovery {
        Recovery::Stop
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Column { table, problem: ColumnProblem::Missing { role }, .. } => format!(
                "Add the column to \"{table}\", or say which one it is under {role} of the \
                 [[outbox]] of this table. A publication with a column list must hold it too: \
                 ALTER PUBLICATION … SET TABLE …."
            ),
            Self::Column { problem: ColumnProblem::NotPublished { mend, role, .. }, .. } => {
                format!(
                    "{mend} Or name another column under {role} of the [[outbox]] of this table."
                )
            }
            Self::Column { problem: ColumnProblem::Type { role, .. }, .. } => format!(
                "Name a column of such a type under {role} of the [[outbox]] of this table, or \
                 change the column's type by ALTER TABLE … ALTER COLUMN … TYPE …."
            ),
            Self::Table { table, problem } => problem.hint(table),
            Self::Unmappable { reason, .. } => reason.hint(),
            Self::UnmappableMessage { message, reason } => message_hint(message, reason),
        })
    }
}

/// The way past an event that no setting can mend.
const WAY_PAST: &str = "To go on without it: set on_error = \"dead-letter\" and start again, which \
                        puts it, and whatever else cannot be published, into a topic of its own, \
                        with the reason.";

impl Reason {
    /// Three things: what to mend, what does not help, and the way past the row.
    pub fn hint(&self) -> String {
        let mend = mend(self);
        format!(
            "{mend} A change of the settings holds for this row too; a change of the application only \
         for rows to come. Another UPDATE or DELETE of the row does not help, because what was \
         done to it stands in the WAL as it was written; nor does advancing the slot, which is \
         refused. {WAY_PAST}"
        )
    }
}

fn message_hint(message: &MessagePlace, reason: &Reason) -> String {
    let MessagePlace { prefix, .. } = message;
    let mend = match reason {
        Reason::Topic { .. } => {
            "Set a topic for the [[message]] of this prefix, or the [[route]] of \
                                 its type, that is always a topic name. A change of the settings \
                                 holds for this message too."
        }
        _ if prefix == CONTEXT_PREFIX => {
            "Let the application write a JSON object with correlationId, causationId and \
             traceparent, each a string or left out. That holds for messages to come."
        }
        _ => {
            "Let the application write a JSON object with a type that is not empty, data, and what \
             else of an envelope it knows, under a prefix that holds nothing else. That holds for \
             messages to come."
        }
    };
    format!(
        "{mend} The message stands in the WAL as it was written; advancing the slot is refused. \
         {WAY_PAST}"
    )
}

fn mend(reason: &Reason) -> String {
    let envelope = "If the payload is not the whole envelope, set payload = \"data\" or \"bare\" \
                    for this table; else let the application write";
    match reason {
        Reason::Null { column } | Reason::Empty { column } => format!(
            "Name the column that holds the value under columns of this table's [[outbox]], or \
             let the application always fill \"{column}\" (NOT NULL, CHECK (\"{column}\" <> ''))."
        ),
        Reason::NotCarried { column } => {
            format!("Report this: an INSERT always carries \"{column}\".")
        }
        Reason::NotSent { column } => format!(
            "Set REPLICA IDENTITY FULL for the table, with which the server sends \"{column}\" of \
             changes to come, or take it out of key and topic of this table's [[table]]."
        ),
        Reason::Value { column, .. } => format!(
            "Report this, with the type of \"{column}\" and the server's version and encoding. \
             columns.exclude leaves the column out."
        ),
        Reason::NotUtf8 { column } => format!(
            "Let the application write \"{column}\" in UTF-8; a database with encoding SQL_ASCII \
             checks nothing."
        ),
        Reason::Infinite { column }
        | Reason::YearOutOfRange { column }
        | Reason::NotTimestamp { column } => format!(
            "Name another column under columns.created_at of this table's [[outbox]], or let the \
             application write a time between the years 1 and 9999 to \"{column}\"."
        ),
        Reason::CommitTimeOutOfRange => "Set the clock of the database server right.".to_owned(),
        Reason::NotJson { column, .. } => format!(
            "Name the column that holds JSON under columns.payload of this table's [[outbox]], \
             or make \"{column}\" of type jsonb, which refuses anything else."
        ),
        Reason::NotObject { .. } => format!("{envelope} a JSON object with its data in \"data\"."),
        Reason::Headers { column, .. } => format!(
            "Name another column under columns.headers of this table's [[outbox]], or let the \
             application write an object of a few short names and texts to \"{column}\"."
        ),
        Reason::Field { field, .. } => {
            format!("{envelope} a right \"{}\", once.", field.name())
        }
        Reason::Rule { answer } => rule_mend(answer),
        // Rows have none.
        Reason::Message { .. } | Reason::MessageField { .. } => String::new(),
        Reason::Topic { .. } => "Set a topic for this table's [[outbox]], or for the [[route]] of \
                                 this type, that is made of what is always a topic name: a-z, A-Z, 0-9, '.', '_' and '-', at most \
                                 249 of them."
            .to_owned(),
    }
}

/// What else a rule can ask, or what the server must send for it.
fn rule_mend(answer: &rules::NoAnswer) -> String {
    let rules::NoAnswer { event_type, part, problem, .. } = answer;
    let rule = format!("{part} of the [[table.event]] \"{event_type}\"");
    match problem {
        rules::Problem::NotSent { column } | rules::Problem::OldNotSent { column } => format!(
            "Let {rule} do without \"{column}\", or set REPLICA IDENTITY FULL for the table, with \
             which the server sends it of changes to come."
        ),
        rules::Problem::NotUtf8 { column } => format!(
            "Let the application write \"{column}\" in UTF-8; a database with encoding SQL_ASCII \
             checks nothing."
        ),
        rules::Problem::Malformed { column, .. } => format!(
            "Report this, with the type of \"{column}\" and the server's version; or let {rule} do \
             without it."
        ),
        rules::Problem::Operands { .. }
        | rules::Problem::NotBool { .. }
        | rules::Problem::OutOfRange { .. }
        | rules::Problem::DivisionByZero { .. }
        | rules::Problem::NoMember { .. }
        | rules::Problem::NoElement
        | rules::Problem::NotA { .. }
        | rules::Problem::BeyondCalendar { .. }
        | rules::Problem::DuplicateKey
        | rules::Problem::TooDeep => format!(
            "Let {rule} ask first whether what it does can be done, as in has(new.payload.code) && \
             …, size(new.tags) > 0 && …, or new.count != 0 && …."
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Lsn;

    fn unmappable(reason: Reason) -> EventError {
        let row = Row {
            table: "public.outbox_events".to_owned(),
            id: Some("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11".to_owned()),
            origin: RowOrigin::Transaction {
                commit_lsn: CommitLsn(Lsn::from_wire(0x15A_3F28).expect("a position")),
                xid: Xid(742),
            },
        };
        EventError::Unmappable { row: Box::new(row), reason }
    }

    #[test]
    fn an_unmappable_row_of_no_transaction_is_named_too() {
        let (table, id) = ("public.orders".to_owned(), Some("7".to_owned()));
        let row = Box::new(Row { table, id, origin: RowOrigin::Snapshot });
        let reason = Reason::Null { column: "tenant".to_owned() };
        assert_eq!(
            EventError::Unmappable { row, reason }.to_string(),
            "cannot map a row of \"public.orders\" (id \"7\") that was there before the stream to an \
             event: column \"tenant\" is NULL"
        );
    }

    #[test]
    fn an_unmappable_row_is_named_with_its_place() {
        let error = unmappable(Reason::Null { column: "event_type".to_owned() });
        assert_eq!(
            error.to_string(),
            "cannot map a row of \"public.outbox_events\" (id \
             \"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\") in transaction 742 committed at 0/15A3F28 \
             to an event: column \"event_type\" is NULL"
        );
        assert_eq!(error.code(), Some(Code::EventUnmappable));
        assert_eq!(error.recovery(), Recovery::Stop);
        let hint = error.hint().expect("a hint");
        assert!(hint.contains("set on_error = \"dead-letter\" and start again"), "{hint}");
        assert!(hint.contains("UPDATE or DELETE of the row does not help"), "{hint}");
    }

    #[test]
    fn a_rule_without_an_answer_is_named_with_the_expression_and_the_place_in_it() {
        let answer = |problem| {
            Box::new(rules::NoAnswer {
                event_type: "order.paid".to_owned(),
                part: rules::Part::Data { member: "note".to_owned() },
                place: rules::Place { line: 1, column: 7 },
                problem,
            })
        };
        let not_sent = rules::Problem::NotSent { column: "note".to_owned() };
        let error = unmappable(Reason::Rule { answer: answer(not_sent) });
        let text = error.to_string();
        assert!(
            text.ends_with(
                "to an event: rule \"order.paid\", data.note, line 1, column 7: the server did not \
                 send the value of column \"note\", which is large and unchanged"
            ),
            "{text}"
        );
        assert_eq!(error.code(), Some(Code::EventUnmappable));
        let hint = error.hint().expect("a hint");
        assert!(hint.contains("or set REPLICA IDENTITY FULL for the table"), "{hint}");
        let division = rules::Problem::DivisionByZero { operation: "/" };
        let error = unmappable(Reason::Rule { answer: answer(division) });
        let hint = error.hint().expect("a hint");
        assert!(
            hint.starts_with("Let data.note of the [[table.event]] \"order.paid\" ask"),
            "{hint}"
        );
    }

    #[test]
    fn an_unmappable_message_is_named_with_its_place() {
        let place = |position| Lsn::from_wire(position).expect("a position");
        let message = MessagePlace {
            prefix: "outbox".to_owned(),
            message_lsn: Some(place(0x15A_3E00)),
            commit_lsn: CommitLsn(place(0x15A_3F28)),
            xid: Xid(742),
        };
        let reason = Reason::MessageField { name: "type", problem: FieldProblem::Missing };
        let error = EventError::UnmappableMessage { message: Box::new(message), reason };
        assert_eq!(
            error.to_string(),
            "cannot map the message of prefix \"outbox\" at 0/15A3E00 in transaction 742 committed \
             at 0/15A3F28 to an event: its field \"type\" is missing"
        );
        assert_eq!(error.code(), Some(Code::EventUnmappable));
        assert_eq!(error.recovery(), Recovery::Stop);
        let hint = error.hint().expect("a hint");
        assert!(hint.contains("a type that is not empty"), "{hint}");
        assert!(hint.contains("set on_error = \"dead-letter\""), "{hint}");
    }

    #[test]
    fn a_missing_column_is_named_with_the_setting_that_wants_it() {
        let error = EventError::Column {
            table: "public.outbox".to_owned(),
            column: "payload".to_owned(),
            problem: ColumnProblem::Missing { role: "columns.payload".to_owned() },
        };
        assert_eq!(
            error.to_string(),
            "outbox table \"public.outbox\": column \"payload\" does not exist or is not \
             published, but is needed as columns.payload"
        );
        assert_eq!(error.code(), Some(Code::ColumnMissing));
        assert_eq!(error.recovery(), Recovery::Stop);
        assert!(error.hint().expect("a hint").contains("columns.payload"));
    }

    #[test]
    fn a_column_that_is_not_published_is_named_with_what_mends_it() {
        let error = EventError::Column {
            table: "public.outbox".to_owned(),
            column: "payload".to_owned(),
            problem: ColumnProblem::NotPublished {
                role: "columns.payload".to_owned(),
                publication: "tailwater".to_owned(),
                mend: "Add it: ALTER PUBLICATION ….".to_owned(),
            },
        };
        assert_eq!(
            error.to_string(),
            "outbox table \"public.outbox\": column \"payload\" is not delivered by publication \
             \"tailwater\", but is needed as columns.payload"
        );
        assert_eq!(error.code(), Some(Code::ColumnMissing));
        assert!(error.hint().expect("a hint").starts_with("Add it: ALTER PUBLICATION …. Or "));
    }

    #[test]
    fn a_column_of_another_type_is_named_with_the_types_that_can_do() {
        let error = EventError::Column {
            table: "public.outbox".to_owned(),
            column: "id".to_owned(),
            problem: ColumnProblem::Type {
                type_oid: Oid(20),
                role: "columns.id".to_owned(),
                expected: "uuid or text",
            },
        };
        assert_eq!(
            error.to_string(),
            "outbox table \"public.outbox\": column \"id\" has a type (OID 20) that cannot be \
             columns.id, which is uuid or text"
        );
    }
}

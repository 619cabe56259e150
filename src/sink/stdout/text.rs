//! How a record looks as text.

use std::{collections::HashMap, io::Write as _, sync::Arc};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::sink::{Batch, Headers, Record, TopicId};

/// Ends a colour.
const PLAIN: &str = "\x1b[0m";
const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const CYAN: &str = "\x1b[36m";

/// Stands before an event's data.
const INDENT: &str = "  ";

/// How events are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// The record's value, one a line.
    Envelopes,
    /// Two lines: when, what and where to; then the data.
    Lines {
        /// What is longer is cut to so many columns.
        columns: Option<usize>,
        /// With escape sequences for colours.
        has_colours: bool,
    },
}

/// Makes texts of batches, one after the other; knows the topics that were announced.
#[derive(Debug)]
pub(super) struct Texts {
    style: Style,
    topics: HashMap<TopicId, Arc<str>>,
    text: Vec<u8>,
}

/// The part of an envelope that is shown as it is.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

impl Texts {
    pub(super) fn new(style: Style) -> Self {
        Self { style, topics: HashMap::new(), text: Vec::new() }
    }

    /// The text of a batch's records.
    pub(super) fn of(&mut self, batch: &Batch) -> &[u8] {
        self.topics
            .extend(batch.new_topics().iter().map(|topic| (topic.id, Arc::clone(&topic.name))));
        self.text.clear();
        for record in batch.records() {
            let value = record.value.map_or(&b"null"[..], |value| batch.slice(value));
            match self.style {
                Style::Envelopes => self.envelope(value),
                Style::Lines { columns, has_colours } => {
                    self.head(record, batch, has_colours);
                    self.data(value, columns);
                }
            }
        }
        &self.text
    }

    /// A payload may have been written over several lines. In JSON a line break stands only where
    /// a space can: within a string it is escaped.
    fn envelope(&mut self, value: &[u8]) {
        let is_break = |byte: u8| byte == b'\n' || byte == b'\r';
        self.text.extend(value.iter().map(|byte| if is_break(*byte) { b' ' } else { *byte }));
        self.text.push(b'\n');
    }

    fn head(&mut self, record: &Record, batch: &Batch, has_colours: bool) {
        let header = |wanted: &str| {
            let mut headers = Headers::new(batch.slice(record.headers));
            headers.find(|(name, _)| *name == wanted.as_bytes()).map(|(_, value)| printable(value))
        };
        let time = jiff::Timestamp::from_millisecond(record.timestamp_ms).map_or_else(
            // PostgreSQL's years go further.
            |_| format!("{} ms", record.timestamp_ms),
            |time| time.strftime("%H:%M:%S.%3f").to_string(),
        );
        let key = record.key.map_or("no key".to_owned(), |key| printable(batch.slice(key)));
        let topic = self.topics.get(&record.topic).map_or("", |topic| topic);
        let id = printable(batch.slice(record.event_id));
        let event_type = header("event-type").unwrap_or_default();
        let coloured = |colour: &str, text: &str| match has_colours {
            true => format!("{colour}{text}{PLAIN}"),
            false => text.to_owned(),
        };
        let line = [
            coloured(DIM, &time),
            coloured(GREEN, &event_type),
            key,
            coloured(CYAN, topic),
            coloured(DIM, &id),
        ];
        writeln!(self.text, "{}", line.join("  ")).expect("memory takes everything");
    }

    fn data(&mut self, value: &[u8], columns: Option<usize>) {
        // What has no `data` is shown whole: it is what a consumer gets.
        let data = serde_json::from_slice::<Envelope<'_>>(value);
        let data = data.map_or(value, |envelope| envelope.data.get().as_bytes());
        let text = printable(data);
        let text = match columns {
            Some(columns) => shortened(&text, columns.saturating_sub(INDENT.len())),
            None => text,
        };
        writeln!(self.text, "{INDENT}{text}").expect("memory takes everything");
    }
}

/// On one line, and without what a terminal would obey.
fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for character in String::from_utf8_lossy(bytes).chars() {
        match character {
            '\n' | '\r' | '\t' => text.push(' '),
            control if control.is_control() => text.extend(control.escape_unicode()),
            // They turn the direction of what follows (Unicode Standard Annex 9).
            '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => {
                text.extend(character.escape_unicode());
            }
            other => text.push(other),
        }
    }
    text
}

/// As much as fits into so many columns; an ellipsis tells that there is more.
fn shortened(text: &str, columns: usize) -> String {
    let (mut used, mut cut) = (0, 0);
    for (at, character) in text.char_indices() {
        used += width(character);
        if used > columns {
            return format!("{}…", text.get(..cut).unwrap_or_default());
        }
        if used < columns {
            cut = at + character.len_utf8();
        }
    }
    text.to_owned()
}

/// How many columns of a terminal a character takes, as nearly as a cut needs it (Unicode Standard
/// Annex 11, the large blocks of wide characters).
fn width(character: char) -> usize {
    match character {
        '\u{1100}'..='\u{115F}'
        | '\u{2E80}'..='\u{A4CF}'
        | '\u{AC00}'..='\u{D7A3}'
        | '\u{F900}'..='\u{FAFF}'
        | '\u{FE30}'..='\u{FE6F}'
        | '\u{FF00}'..='\u{FF60}'
        | '\u{FFE0}'..='\u{FFE6}'
        | '\u{1F300}'..='\u{1FAFF}'
        | '\u{20000}'..='\u{3FFFD}' => 2,
        _ => 1,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        lsn::CommitLsn,
        sink::{NewTopic, Span, TopicUse},
    };

    const ID: &str = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";

    /// Records of key and value, all of one topic.
    pub(in crate::sink::stdout) fn batch(records: &[(Option<&str>, &str)]) -> Batch {
        let mut batch = Batch::default();
        batch.announce_topic(NewTopic {
            id: TopicId(0),
            name: "order.events".into(),
            topic_use: TopicUse::Events,
        });
        for (key, value) in records {
            let mut written = |text: &str| {
                let start = batch.bytes();
                batch.arena_mut().extend_from_slice(text.as_bytes());
                batch.span_from(start)
            };
            let (key, value, event_id): (_, _, Span) =
                (key.map(&mut written), written(value), written(ID));
            let start = batch.bytes();
            Headers::write(batch.arena_mut(), "event-type", b"order.placed");
            let headers = batch.span_from(start);
            batch.push(Record {
                topic: TopicId(0),
                key,
                value: Some(value),
                partition: None,
                event_id,
                headers,
                header_count: 1,
                timestamp_ms: 1_772_366_400_123,
                commit_lsn: CommitLsn(crate::lsn::Lsn::from_wire(1).expect("a position")),
            });
        }
        batch
    }

    fn text(style: Style, records: &[(Option<&str>, &str)]) -> String {
        String::from_utf8(Texts::new(style).of(&batch(records)).to_vec()).expect("UTF-8")
    }

    fn lines(columns: Option<usize>, records: &[(Option<&str>, &str)]) -> String {
        text(Style::Lines { columns, has_colours: false }, records)
    }

    #[test]
    fn an_event_is_two_lines_with_its_data_as_it_was_written() {
        let value = "{\"id\":\"…\",\"data\":{\"total\": 12345678901234567890.10}}";
        assert_eq!(
            lines(None, &[(Some("order-42"), value), (None, "{\"data\":null}")]),
            format!(
                "12:00:00.123  order.placed  order-42  order.events  {ID}\n  \
                 {{\"total\": 12345678901234567890.10}}\n\
                 12:00:00.123  order.placed  no key  order.events  {ID}\n  null\n"
            )
        );
    }

    #[test]
    fn an_envelope_is_one_line_however_it_was_written() {
        let value = "{\n  \"data\":\r\n{\"note\": \"a\\nb\"}\n}";
        let written = text(Style::Envelopes, &[(None, value), (None, "{}")]);
        let lines: Vec<&str> = written.lines().collect();
        let [first, "{}"] = lines.as_slice() else { panic!("{written}") };
        let parsed = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        assert_eq!(parsed(first), parsed(value));
    }

    #[test]
    fn data_is_cut_to_the_columns_that_there_are() {
        let cut = |columns, data: &str| {
            let shown = lines(Some(columns), &[(None, &format!("{{\"data\":{data}}}"))]);
            shown.lines().nth(1).expect("the data").to_owned()
        };
        assert_eq!(cut(9, "1234567"), "  1234567");
        assert_eq!(cut(9, "12345678"), "  123456…");
        assert_eq!(cut(9, "\"山田太郎\""), "  \"山田…");
        assert_eq!(cut(1, "1"), "  …");
    }

    #[test]
    fn nothing_that_a_row_holds_commands_the_terminal() {
        let shown = lines(None, &[(Some("a\u{1b}]0;title\u{7}\nb"), "{\"data\":\"\u{202e}x\"}")]);
        assert!(shown.contains("a\\u{1b}]0;title\\u{7} b"), "{shown}");
        assert!(shown.contains("\\u{202e}x"), "{shown}");
        assert!(shown.chars().all(|character| !character.is_control() || character == '\n'));
    }

    #[test]
    fn colours_are_there_where_they_are_wanted() {
        let coloured = Style::Lines { columns: None, has_colours: true };
        let shown = text(coloured, &[(None, "{\"data\":1}")]);
        assert!(shown.contains("\x1b[32morder.placed\x1b[0m"), "{shown:?}");
    }
}

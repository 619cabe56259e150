//! What a transaction says of all its events that follow.
//!
//! `pg_logical_emit_message(true, 'tailwater.context', '{"correlationId": "…"}')` holds until the
//! transaction ends, or until another one takes its place. One that a savepoint rolled back is never
//! sent. A transaction without one costs a comparison; one with it no memory but what is kept, unless
//! names are written with escapes.

use std::ops::Range;

use crate::event::{
    EventError, FieldProblem, MessageProblem, Reason,
    json::{self, Malformed, Members, StringAt, ValueAt},
    outbox::read_json,
};

/// The prefix of such messages.
pub const CONTEXT_PREFIX: &str = "tailwater.context";

/// The fields that it may have, in this order; others say nothing.
const FIELDS: [&str; 3] = ["correlationId", "causationId", "traceparent"];

/// What is kept of the memory for its texts, in bytes. A message may hold 1 GiB; a context fits many
/// times.
const TEXT_BYTES_KEPT: usize = 64 << 10;

/// The context at one place of the stream.
#[derive(Default, Debug)]
pub(super) struct Context {
    /// The texts of its fields, one after the other.
    text: String,
    fields: [Option<Range<usize>>; FIELDS.len()],
    /// It cannot be read: the next event finds out. A transaction without events needs none.
    problem: Option<EventError>,
}

impl Context {
    /// Another transaction begins, or another context replaces this one.
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.text.shrink_to(TEXT_BYTES_KEPT);
        self.fields = [const { None }; FIELDS.len()];
        self.problem = None;
    }

    /// Takes a message's content in the place of what was said before.
    pub(super) fn replace(&mut self, content: &[u8], locate: impl FnOnce(Reason) -> EventError) {
        self.clear();
        if let Err(reason) = self.read(content) {
            self.clear();
            self.problem = Some(locate(reason));
        }
    }

    /// # Errors
    /// Where the events that follow have a context that cannot be read.
    pub(super) fn check(&self) -> Result<(), EventError> {
        match &self.problem {
            None => Ok(()),
            Some(problem) => Err(problem.clone()),
        }
    }

    pub(super) fn correlation_id(&self) -> Option<&str> {
        self.field(0)
    }

    pub(super) fn causation_id(&self) -> Option<&str> {
        self.field(1)
    }

    pub(super) fn traceparent(&self) -> Option<&str> {
        self.field(2)
    }

    fn field(&self, index: usize) -> Option<&str> {
        let range = self.fields.get(index)?.clone()?;
        Some(self.text.get(range).expect("a field lies in the text"))
    }

    fn read(&mut self, content: &[u8]) -> Result<(), Reason> {
        let text = read_json(content)?;
        let not_object = Reason::Message { problem: MessageProblem::NotObject };
        let mut members = Members::of(text).ok_or(not_object.clone())?;
        let mut seen = [false; FIELDS.len()];
        while let Some(member) = members.next().map_err(|Malformed| not_object.clone())? {
            let Some((index, name)) = field_of(text, &member.name) else { continue };
            let refuse = |problem| Err(Reason::MessageField { name, problem });
            if std::mem::replace(&mut seen[index], true) {
                return refuse(FieldProblem::Twice);
            }
            match member.value {
                ValueAt::Null => {}
                ValueAt::Other => return refuse(FieldProblem::NotString),
                ValueAt::String(string) => {
                    let start = self.text.len();
                    if json::unescape(string.written(text), &mut self.text).is_err() {
                        return refuse(FieldProblem::NotText);
                    }
                    self.fields[index] = Some(start..self.text.len());
                }
            }
        }
        Ok(())
    }
}

/// Which field has that name, which escapes may write in another way.
fn field_of(text: &str, name: &StringAt) -> Option<(usize, &'static str)> {
    // A name that is no text is none of ours.
    let name = name.text(text).ok()?;
    FIELDS.into_iter().enumerate().find(|(_, field)| *field == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::fixture::message_error;

    fn read(content: &str) -> Context {
        let mut context = Context::default();
        context.replace(br#"{"correlationId": "before", "traceparent": "t"}"#, message_error);
        context.replace(content.as_bytes(), message_error);
        context
    }

    #[test]
    fn a_context_replaces_the_one_before() {
        let context = read(
            r#"{"mine": [1], "causationId": "c\u00e9", "\u0063orrelationId": "order-7",
                "traceparent": null}"#,
        );
        assert_eq!(context.correlation_id(), Some("order-7"));
        assert_eq!(context.causation_id(), Some("cé"));
        assert_eq!((context.traceparent(), context.check().is_ok()), (None, true));
        let nothing = read("{}");
        assert_eq!((nothing.correlation_id(), nothing.traceparent()), (None, None));
    }

    #[test]
    fn what_is_no_context_is_found_by_the_next_event() {
        for (content, words) in [
            ("", "is not valid JSON"),
            ("{\"correlationId\": ", "is not valid JSON"),
            ("[1]", "is not a JSON object"),
            ("null", "is not a JSON object"),
            ("{\"correlationId\": 7}", "field \"correlationId\" is not a string"),
            ("{\"traceparent\": \"\\ud800\"}", "field \"traceparent\" holds an escape"),
            ("{\"causationId\": null, \"causationId\": \"a\"}", "\"causationId\" is there twice"),
        ] {
            let context = read(content);
            assert_eq!(context.correlation_id(), None, "{content}");
            let error = context.check().expect_err(content).to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
    }
}

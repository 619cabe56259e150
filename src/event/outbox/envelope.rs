//! A payload that is the whole envelope already.
//!
//! Its present, non-null fields win; what is missing is filled; nothing else of it is touched. So
//! one walk over its members finds the texts of the known fields, what to cut and what to add.

use std::ops::Range;

use crate::event::{
    Field, FieldProblem, FieldSet, MessageProblem, Reason,
    id::ID_BYTES,
    json::{self, Member, Members, StringAt, ValueAt},
    timestamp,
};

/// Memory of a walk that is reused by every row.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The texts of strings that were written with escapes, one after the other.
    unescaped: String,
    /// Whose they are.
    fields: Vec<(Field, Range<usize>)>,
    cuts: Vec<Range<usize>>,
}

impl Scratch {
    pub(super) fn shrink(&mut self, bytes_max: usize) {
        if self.unescaped.capacity() > bytes_max {
            self.unescaped = String::new();
        }
    }
}

/// What the walk finds.
#[derive(Debug)]
pub(super) struct Envelope<'a> {
    texts: [Option<&'a str>; Field::ALL.len()],
    /// Null members of known fields and an id without hyphens, each with its comma.
    pub(super) cuts: &'a [Range<usize>],
    pub(super) closing_brace: usize,
    /// Fields that the payload does not have, or that are cut out of it.
    pub(super) missing: FieldSet,
    /// The member `aggregateId` of a message.
    pub(super) aggregate_id: Option<&'a str>,
}

/// Where the text of a message's key lies.
#[derive(Clone, PartialEq, Eq, Debug)]
enum KeyAt {
    /// A row's payload has none: its column is the key.
    Column,
    /// It did not come by.
    Absent,
    Null,
    InText(Range<usize>),
    Unescaped(Range<usize>),
}

/// The member of a message that is the record's key. It stays in the value, as it is no field of the
/// envelope.
const AGGREGATE_ID: &str = "aggregateId";

impl<'a> Envelope<'a> {
    /// The text of a field that stays; none for `data`.
    pub(super) fn text(&self, field: Field) -> Option<&'a str> {
        self.written(field).filter(|_| !self.missing.contains(field))
    }

    /// The text of a field that is there and not null, whether it stays or not.
    pub(super) fn written(&self, field: Field) -> Option<&'a str> {
        self.texts.get(field as usize).copied().flatten()
    }
}

/// Reads the envelope `text` of the column `column`.
pub(super) fn read<'a>(
    text: &'a str,
    column: &str,
    scratch: &'a mut Scratch,
) -> Result<Envelope<'a>, Reason> {
    read_with(KeyAt::Column, text, column, scratch)
}

/// Reads the envelope `text` of a message, which may have a key.
pub(super) fn read_message<'a>(
    text: &'a str,
    scratch: &'a mut Scratch,
) -> Result<Envelope<'a>, Reason> {
    read_with(KeyAt::Absent, text, "", scratch).map_err(|reason| match reason {
        Reason::Field { field, problem } => Reason::MessageField { name: field.name(), problem },
        Reason::NotObject { .. } => Reason::Message { problem: MessageProblem::NotObject },
        Reason::NotJson { detail, .. } => {
            Reason::Message { problem: MessageProblem::NotJson { detail } }
        }
        other => other,
    })
}

fn read_with<'a>(
    key: KeyAt,
    text: &'a str,
    column: &str,
    scratch: &'a mut Scratch,
) -> Result<Envelope<'a>, Reason> {
    let Some(members) = Members::of(text) else {
        return Err(Reason::NotObject { column: column.to_owned() });
    };
    scratch.unescaped.clear();
    scratch.fields.clear();
    scratch.cuts.clear();
    let mut walk = Walk {
        text,
        texts: [None; Field::ALL.len()],
        seen: FieldSet::default(),
        missing: FieldSet::ALL,
        key,
        kept_one: false,
        open_cut: None,
        scratch,
    };
    let closing_brace = walk.run(members, column)?;
    let Walk { mut texts, missing, key, scratch, .. } = walk;
    let Scratch { unescaped, fields, cuts } = scratch;
    for (field, range) in fields.iter() {
        if let Some(text) = texts.get_mut(*field as usize) {
            *text = unescaped.get(range.clone());
        }
    }
    let aggregate_id = match key {
        KeyAt::Column | KeyAt::Absent | KeyAt::Null => None,
        KeyAt::InText(range) => text.get(range),
        KeyAt::Unescaped(range) => unescaped.get(range),
    };
    let envelope = Envelope { texts, cuts, closing_brace, missing, aggregate_id };
    if missing.contains(Field::Data) {
        return Err(Reason::Field { field: Field::Data, problem: FieldProblem::Missing });
    }
    if envelope.text(Field::OccurredAt).is_some_and(|text| !timestamp::is_instant(text)) {
        let problem = FieldProblem::NotInstant;
        return Err(Reason::Field { field: Field::OccurredAt, problem });
    }
    Ok(envelope)
}

struct Walk<'a> {
    text: &'a str,
    texts: [Option<&'a str>; Field::ALL.len()],
    /// Known fields that came by, null or not.
    seen: FieldSet,
    /// Known fields that did not come by, or are cut out.
    missing: FieldSet,
    key: KeyAt,
    /// Some member before this one stays, so a cut takes the comma before its member.
    kept_one: bool,
    /// A cut that takes the comma behind its member, and so ends where the next one starts.
    open_cut: Option<usize>,
    scratch: &'a mut Scratch,
}

impl Walk<'_> {
    /// Walks over all members and returns where the closing brace stands.
    fn run(&mut self, mut members: Members<'_>, column: &str) -> Result<usize, Reason> {
        let malformed = |json::Malformed| Reason::NotJson {
            column: column.to_owned(),
            detail: "its members cannot be told apart".to_owned(),
        };
        while let Some(member) = members.next().map_err(malformed)? {
            if let Some(start) = self.open_cut.take() {
                self.scratch.cuts.push(start..member.start());
            }
            let is_kept = match self.field_of(&member.name) {
                Some(field) => self.observe(field, &member.value)?,
                None => {
                    self.observe_other(&member)?;
                    true
                }
            };
            if is_kept {
                self.kept_one = true;
            } else {
                self.cut(&member);
            }
        }
        Ok(members.closing_brace())
    }

    fn cut(&mut self, member: &Member) {
        if self.kept_one {
            self.scratch.cuts.push(member.before..member.end);
        } else {
            self.open_cut = Some(member.start());
        }
    }

    /// Notes the key of a message.
    fn observe_other(&mut self, member: &Member) -> Result<(), Reason> {
        if self.key == KeyAt::Column || member.name.text(self.text).as_deref() != Ok(AGGREGATE_ID) {
            return Ok(());
        }
        let refuse = |problem| Err(Reason::MessageField { name: AGGREGATE_ID, problem });
        if self.key != KeyAt::Absent {
            return refuse(FieldProblem::Twice);
        }
        self.key = match &member.value {
            ValueAt::Null => KeyAt::Null,
            ValueAt::String(string) if string.has_escapes => {
                let unescaped = &mut self.scratch.unescaped;
                let start = unescaped.len();
                if json::unescape(string.written(self.text), unescaped).is_err() {
                    return refuse(FieldProblem::NotText);
                }
                KeyAt::Unescaped(start..unescaped.len())
            }
            ValueAt::String(string) => KeyAt::InText(string.content.clone()),
            ValueAt::Other => {
                let number = member.written_value(self.text);
                if !number.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
                    return refuse(FieldProblem::NotKey);
                }
                KeyAt::InText(member.end - number.len()..member.end)
            }
        };
        Ok(())
    }

    /// The known field of that name, which escapes may write in another way.
    fn field_of(&self, name: &StringAt) -> Option<Field> {
        // A name that is no text is none of ours.
        Field::named(&name.text(self.text).ok()?)
    }

    /// Notes a known field, and says whether it stays.
    fn observe(&mut self, field: Field, value: &ValueAt) -> Result<bool, Reason> {
        let refuse = |problem| Err(Reason::Field { field, problem });
        if self.seen.contains(field) {
            return refuse(FieldProblem::Twice);
        }
        self.seen = self.seen.with(field);
        match (field, value) {
            (Field::Data, _) => {}
            (_, ValueAt::Null) => return Ok(false),
            (_, ValueAt::Other) => return refuse(FieldProblem::NotString),
            (_, ValueAt::String(string)) => {
                if self.take_text(field, string).is_err() {
                    return refuse(FieldProblem::NotText);
                }
            }
        }
        if field == Field::Id && self.taken(field).len() != ID_BYTES {
            // A UUID, if it is one, in a form that the schema does not know: written anew.
            return Ok(false);
        }
        self.missing = self.missing.without(field);
        Ok(true)
    }

    /// The text that [`Walk::take_text`] took.
    fn taken(&self, field: Field) -> &str {
        let Scratch { unescaped, fields, .. } = &*self.scratch;
        let escaped = fields.iter().find(|(escaped, _)| *escaped == field);
        let text = match escaped {
            Some((_, range)) => unescaped.get(range.clone()),
            None => self.texts.get(field as usize).copied().flatten(),
        };
        text.expect("the field was taken before")
    }

    fn take_text(&mut self, field: Field, string: &StringAt) -> Result<(), json::Malformed> {
        let content = string.written(self.text);
        if string.has_escapes {
            let Scratch { unescaped, fields, .. } = &mut *self.scratch;
            let start = unescaped.len();
            json::unescape(content, unescaped)?;
            fields.push((field, start..unescaped.len()));
        } else if let Some(text) = self.texts.get_mut(field as usize) {
            *text = Some(content);
        }
        Ok(())
    }
}

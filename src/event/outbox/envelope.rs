//! A payload that is the whole envelope already.
//!
//! Its present, non-null fields win; what is missing is filled; nothing else of it is touched. So
//! one walk over its members finds the texts of the known fields, what to cut and what to add.

use std::ops::Range;

use crate::event::{
    Field, FieldProblem, FieldSet, Reason, id,
    json::{self, Members},
    timestamp,
};

/// What the walk finds.
#[derive(Debug)]
pub(super) struct Envelope<'a> {
    pub(super) id: Option<&'a str>,
    pub(super) event_type: Option<&'a str>,
    pub(super) version: Option<&'a str>,
    pub(super) source: Option<&'a str>,
    pub(super) correlation_id: Option<&'a str>,
    pub(super) causation_id: Option<&'a str>,
    pub(super) occurred_at: Option<&'a str>,
    /// Null members of known fields, each with its comma.
    pub(super) cuts: &'a [Range<usize>],
    pub(super) closing_brace: usize,
    /// Fields that the payload does not have.
    pub(super) missing: FieldSet,
}

/// A field's string as it lies in the payload, between the quotes, or unescaped in the scratch.
#[derive(Clone)]
enum Place {
    Payload(Range<usize>),
    Unescaped(Range<usize>),
}

/// The places of the known fields, in the order of [`Field::ALL`].
type Places = [Option<Place>; Field::ALL.len()];

/// Reads the envelope `text` of `column`.
pub(super) fn read<'a>(
    text: &'a str,
    column: &str,
    unescaped: &'a mut String,
    cuts: &'a mut Vec<Range<usize>>,
) -> Result<Envelope<'a>, Reason> {
    let Some(members) = Members::of(text) else {
        return Err(Reason::NotObject { column: column.to_owned() });
    };
    unescaped.clear();
    cuts.clear();
    let mut walk = Walk {
        text,
        column,
        unescaped,
        cuts,
        places: Places::default(),
        seen: FieldSet::default(),
        present: FieldSet::default(),
        kept_one: false,
        open_cut: None,
    };
    let closing_brace = walk.run(members)?;
    let Walk { unescaped, cuts, places, present, .. } = walk;
    if !present.contains(Field::Data) {
        return Err(Reason::Field { field: Field::Data, problem: FieldProblem::Missing });
    }
    let (unescaped, cuts): (&'a str, &'a [_]) = (unescaped, cuts);
    let [id, event_type, version, source, correlation_id, causation_id, occurred_at, _data] =
        places.map(|place| match place? {
            Place::Payload(range) => text.get(range),
            Place::Unescaped(range) => unescaped.get(range),
        });
    let envelope = Envelope {
        id,
        event_type,
        version,
        source,
        correlation_id,
        causation_id,
        occurred_at,
        cuts,
        closing_brace,
        missing: Field::ALL
            .into_iter()
            .filter(|field| !present.contains(*field))
            .fold(FieldSet::default(), FieldSet::with),
    };
    envelope.check()?;
    Ok(envelope)
}

impl Envelope<'_> {
    fn check(&self) -> Result<(), Reason> {
        if self.id.is_some_and(|text| !id::is_hyphenated(text)) {
            return Err(Reason::Field { field: Field::Id, problem: FieldProblem::NotUuid });
        }
        if self.occurred_at.is_some_and(|text| !timestamp::is_instant(text)) {
            let problem = FieldProblem::NotInstant;
            return Err(Reason::Field { field: Field::OccurredAt, problem });
        }
        Ok(())
    }
}

struct Walk<'w, 'a> {
    text: &'a str,
    column: &'w str,
    unescaped: &'a mut String,
    cuts: &'a mut Vec<Range<usize>>,
    places: Places,
    /// Known fields that came by, null or not.
    seen: FieldSet,
    /// Known fields that came by and stay.
    present: FieldSet,
    /// Some member before this one stays, so a cut takes the comma before its member.
    kept_one: bool,
    /// A cut that takes the comma behind its member, and so ends where the next one starts.
    open_cut: Option<usize>,
}

impl Walk<'_, '_> {
    /// Walks over all members and returns where the closing brace stands.
    fn run(&mut self, mut members: Members<'_>) -> Result<usize, Reason> {
        while let Some(member) = members.next().map_err(|json::Malformed| self.malformed())? {
            if let Some(start) = self.open_cut.take() {
                self.cuts.push(start..member.start());
            }
            let is_kept = match self.field_named(member.name.clone()) {
                Some(field) => self.observe(field, member.value.clone())?,
                None => true,
            };
            match (is_kept, self.kept_one) {
                (true, _) => self.kept_one = true,
                (false, true) => self.cuts.push(member.before..member.value.end),
                (false, false) => self.open_cut = Some(member.start()),
            }
        }
        Ok(members.closing_brace())
    }

    /// The known field of that name; an escape may write the same name in another way.
    fn field_named(&mut self, name: Range<usize>) -> Option<Field> {
        let name = self.text.get(name)?;
        if !name.contains('\\') {
            return Field::named(name);
        }
        let mut plain = String::new();
        // A name that is no text is none of ours.
        json::unescape(name, &mut plain).ok()?;
        Field::named(&plain)
    }

    /// Notes a known field, and says whether it stays.
    fn observe(&mut self, field: Field, value: Range<usize>) -> Result<bool, Reason> {
        let refuse = |problem| Err(Reason::Field { field, problem });
        if self.seen.contains(field) {
            return refuse(FieldProblem::Twice);
        }
        self.seen = self.seen.with(field);
        let content = self.text.get(value.clone()).unwrap_or_default();
        if field == Field::Data {
            self.present = self.present.with(field);
            return Ok(true);
        }
        if content == "null" {
            return Ok(false);
        }
        let Some(content) = content.strip_prefix('"').and_then(|text| text.strip_suffix('"'))
        else {
            return refuse(FieldProblem::NotString);
        };
        let place = if content.contains('\\') {
            let start = self.unescaped.len();
            if json::unescape(content, self.unescaped).is_err() {
                return refuse(FieldProblem::NotText);
            }
            Place::Unescaped(start..self.unescaped.len())
        } else {
            Place::Payload(value.start + 1..value.end - 1)
        };
        if let Some(slot) = self.places.get_mut(field as usize) {
            *slot = Some(place);
        }
        self.present = self.present.with(field);
        Ok(true)
    }

    fn malformed(&self) -> Reason {
        let detail = "its members cannot be told apart".to_owned();
        Reason::NotJson { column: self.column.to_owned(), detail }
    }
}

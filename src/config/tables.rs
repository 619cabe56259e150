//! From `[[table]]` sections to what domain tables are told.

use super::{
    document::join,
    file::{EventSection, OutboxSection, TableSection, TypesSection},
    mistake::{Mistakes, Origin},
    scalar::{Expression, Located, TableTopic, TopicName},
    table_topics,
    words::MaskForm,
};
use crate::{
    event::{
        Piece, Route,
        table::{self, Mask, Otherwise, RuleSettings, Salt},
    },
    value,
};

/// What the rest of the file says that tables have to do with.
pub(super) struct Surroundings<'a> {
    pub(super) types: &'a TypesSection,
    pub(super) mask_salt: Option<&'a Located<Salt>>,
    pub(super) outboxes: &'a [OutboxSection],
    pub(super) routes: &'a [Route],
    pub(super) checkpoint_topic: &'a TopicName,
}

pub(super) fn tables(
    sections: &[TableSection],
    file: &Surroundings<'_>,
    mistakes: &mut Mistakes,
) -> Vec<table::Settings> {
    check_names(sections, file.outboxes, mistakes);
    check_salt(sections, file.mask_salt, mistakes);
    if sections.is_empty() {
        check_types_of_nothing(file.types, mistakes);
    }
    for section in sections {
        check_columns(section, mistakes);
        check_rules(section, mistakes);
        check_defaults(section, mistakes);
        table_topics::check(section, file, mistakes);
    }
    sections.iter().map(|section| settings(section, file)).collect()
}

/// Which section is about which table must not be a matter of luck.
fn check_names(sections: &[TableSection], outboxes: &[OutboxSection], mistakes: &mut Mistakes) {
    const KEY: &str = "table.name";
    for (index, section) in sections.iter().enumerate() {
        let Located { value: name, origin } = &section.name;
        let mut earlier = sections.iter().take(index).map(|section| &section.name.value);
        if earlier.clone().any(|other| other == name) {
            let problem = format!("is named by two [[table]] sections: \"{name}\"");
            mistakes.add(origin, KEY, problem);
        } else if name.exact().is_none() && earlier.any(|other| other.covers(name)) {
            let problem = "never counts: a [[table]] before it is about all that it is about";
            mistakes.add(origin, KEY, problem);
        }
        let is_outbox = |outbox: &OutboxSection| {
            name.exact() == Some((&*outbox.table.value.schema, &*outbox.table.value.name))
        };
        if outboxes.iter().any(is_outbox) {
            mistakes.add(origin, KEY, format!("is the table of an [[outbox]] too: \"{name}\""));
        }
    }
}

/// Without a salt, who knows what values there may be finds them by hashing each.
fn check_salt(sections: &[TableSection], salt: Option<&Located<Salt>>, mistakes: &mut Mistakes) {
    let masks = sections.iter().flat_map(|section| &section.columns.mask.0);
    let mut hashed = masks.filter(|(_, mask)| mask.value == MaskForm::Sha256);
    match salt {
        Some(Located { origin, .. }) if hashed.next().is_none() => {
            let problem = "has no effect without a column that columns.mask of a [[table]] masks \
                           by \"sha256\"";
            mistakes.add(origin, "mask_salt", problem);
        }
        Some(_) => {}
        None => {
            for (column, mask) in hashed {
                let problem = "cannot be \"sha256\" without mask_salt at the head of \
                               the file: hashes of values that can be guessed hide nothing";
                mistakes.add(&mask.origin, &join("table.columns.mask", column), problem);
            }
        }
    }
}

fn check_types_of_nothing(types: &TypesSection, mistakes: &mut Mistakes) {
    let TypesSection { int8, numeric, bytea } = types;
    for (key, origin) in
        [("int8", &int8.origin), ("numeric", &numeric.origin), ("bytea", &bytea.origin)]
    {
        if *origin != Origin::Nowhere {
            let problem = "has no effect without a [[table]]";
            mistakes.add(origin, &join("types", key), problem);
        }
    }
}

/// What is hidden in an event must not stand beside it.
fn check_columns(section: &TableSection, mistakes: &mut Mistakes) {
    for column in section.key.iter().flat_map(|key| &key.0) {
        if let Some(hidden) = Hidden::of(section, &column.value) {
            let problem = format!(
                "cannot have \"{}\", which {} hides: the record's key would show it",
                column.value,
                hidden.key()
            );
            mistakes.add(&column.origin, "table.key", problem);
        }
    }
    check_columns_of_topic(section, Some(&section.topic), "table.topic", mistakes);
    for rule in &section.event {
        check_columns_of_topic(section, rule.topic.as_ref(), "table.event.topic", mistakes);
    }
    for (column, mask) in &section.columns.mask.0 {
        if is_excluded(section, column) {
            let problem = "has no effect on a column that columns.exclude hides";
            mistakes.add(&mask.origin, &join("table.columns.mask", column), problem);
        }
    }
    for (column, form) in &section.types.columns.0 {
        if let Some(hidden) = Hidden::of(section, column) {
            let problem = format!("has no effect on a column that {} hides", hidden.key());
            mistakes.add(&form.origin, &join("table.types.columns", column), problem);
        }
    }
}

fn check_columns_of_topic(
    section: &TableSection,
    topic: Option<&Located<TableTopic>>,
    key: &str,
    mistakes: &mut Mistakes,
) {
    let Some(Located { value: TableTopic(topic), origin }) = topic else { return };
    for piece in topic.pieces() {
        let Piece::Column(column) = piece else { continue };
        if let Some(hidden) = Hidden::of(section, column) {
            let hidden = hidden.key();
            let problem = format!(
                "cannot have {{column:{column}}}, which {hidden} hides: the topic's name would show \
                 it"
            );
            mistakes.add(origin, key, problem);
        }
    }
}

/// What hides a column.
#[derive(Clone, Copy)]
enum Hidden {
    Excluded,
    Masked,
}

impl Hidden {
    fn of(section: &TableSection, column: &str) -> Option<Self> {
        if is_excluded(section, column) {
            return Some(Self::Excluded);
        }
        let is_masked = section.columns.mask.0.iter().any(|(masked, _)| masked == column);
        is_masked.then_some(Self::Masked)
    }

    fn key(self) -> &'static str {
        match self {
            Self::Excluded => "columns.exclude",
            Self::Masked => "columns.mask",
        }
    }
}

fn is_excluded(section: &TableSection, column: &str) -> bool {
    section.columns.exclude.as_ref().is_some_and(|excluded| excluded.contains(column))
}

/// An event's id is made of its change and of its rule's type and condition.
fn check_rules(section: &TableSection, mistakes: &mut Mistakes) {
    for (index, rule) in section.event.iter().enumerate() {
        let condition = |rule: &EventSection| rule.when.as_ref().map(|when| when.0.clone());
        let is_same = |earlier: &EventSection| {
            earlier.r#type.value == rule.r#type.value && condition(earlier) == condition(rule)
        };
        if section.event.iter().take(index).any(is_same) {
            let problem = format!(
                "is that of an earlier rule with the same `when`, \"{}\": the events of both would \
                 have one id",
                rule.r#type.value
            );
            mistakes.add(&rule.r#type.origin, "table.event.type", problem);
        }
    }
}

/// Settings of the events that are made without rules, where there never are such.
fn check_defaults(section: &TableSection, mistakes: &mut Mistakes) {
    let rules = &section.event;
    if let Some(Located { value, origin }) = &section.otherwise {
        let problem = match value {
            Otherwise::Skip if rules.is_empty() => {
                Some("cannot be \"skip\" without a [[table.event]]: nothing would be published")
            }
            Otherwise::Skip | Otherwise::Default if takes_all(section) => {
                Some("has no effect: a [[table.event]] without `when` matches each change")
            }
            Otherwise::Default if rules.is_empty() => {
                Some("has no effect without a [[table.event]]")
            }
            Otherwise::Skip | Otherwise::Default => None,
        };
        if let Some(problem) = problem {
            mistakes.add(origin, "table.otherwise", problem);
        }
    }
    if has_default_events(section) {
        return;
    }
    let own_data = rules.iter().all(|rule| rule.data.is_some());
    let own_topics = rules.iter().all(|rule| rule.topic.is_some());
    for (key, origin, is_idle) in
        [("data", &section.data.origin, own_data), ("topic", &section.topic.origin, own_topics)]
    {
        if is_idle && *origin != Origin::Nowhere {
            let problem =
                format!("has no effect: each event is one of a rule with its own `{key}`");
            mistakes.add(origin, &join("table", key), problem);
        }
    }
}

/// Whether a change can become the event that it would be without rules.
pub(super) fn has_default_events(section: &TableSection) -> bool {
    match otherwise(section) {
        Otherwise::Skip => false,
        Otherwise::Default => !takes_all(section),
    }
}

/// Whether each change is one of a rule.
fn takes_all(section: &TableSection) -> bool {
    section.event.iter().any(|rule| rule.when.is_none())
}

/// What the section says; else nothing more is published than its rules ask for, if it has any.
fn otherwise(section: &TableSection) -> Otherwise {
    match &section.otherwise {
        Some(said) => said.value,
        None if section.event.is_empty() => Otherwise::Default,
        None => Otherwise::Skip,
    }
}

fn settings(section: &TableSection, file: &Surroundings<'_>) -> table::Settings {
    let TypesSection { int8, numeric, bytea } = file.types;
    let types = &section.types;
    let masks = section.columns.mask.0.iter().filter_map(|(column, form)| {
        let mask = match form.value {
            MaskForm::Sha256 => Mask::Sha256(file.mask_salt?.value.clone()),
            MaskForm::Redact => Mask::Redact,
        };
        Some((column.clone(), mask))
    });
    let column_types = types.columns.0.iter().map(|(column, form)| (column.clone(), form.value));
    table::Settings {
        name: section.name.value.clone(),
        topic: section.topic.value.0.clone(),
        key: section.key.as_ref().map(|key| key.names()),
        data: section.data.value,
        tombstone: section.tombstone,
        types: value::Options {
            int8: types.int8.unwrap_or(int8.value),
            numeric: types.numeric.unwrap_or(numeric.value),
            bytea: types.bytea.unwrap_or(bytea.value),
        },
        column_types: column_types.collect(),
        excluded: section.columns.exclude.as_ref().map(|list| list.names()).unwrap_or_default(),
        masks: masks.collect(),
        rules: section.event.iter().map(rule).collect(),
        otherwise: otherwise(section),
        snapshot: section.snapshot,
    }
}

fn rule(section: &EventSection) -> RuleSettings {
    let text = |Expression(text): &Expression| text.clone();
    let members = section.data.as_ref().map(|data| {
        data.0.iter().map(|(name, expression)| (name.clone(), text(expression))).collect()
    });
    RuleSettings {
        event_type: section.r#type.value.clone(),
        when: section.when.as_ref().map(text),
        version: section.version.clone(),
        data: members,
        topic: section.topic.as_ref().map(|topic| topic.value.0.clone()),
    }
}

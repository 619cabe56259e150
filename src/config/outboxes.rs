//! From `[[outbox]]` sections to what outboxes and their retention are told.

use std::collections::BTreeSet;

use super::{
    document::join,
    file::{ColumnsSection, OutboxSection},
    load::check_topic,
    mistake::{Mistakes, Origin},
    quantity::RetentionAge,
    scalar::{Located, TopicName},
};
use crate::{
    event::{
        self, OwnHeader, TopicTemplate,
        outbox::{ColumnName, ColumnNames, PayloadForm},
    },
    pipeline,
};

pub(super) fn outboxes(
    sections: &[OutboxSection],
    TopicName(checkpoint_topic): &TopicName,
    mistakes: &mut Mistakes,
) -> Vec<event::outbox::Settings> {
    let mut seen = BTreeSet::new();
    let mut settings = Vec::new();
    for section in sections {
        let Located { value: table, origin } = &section.table;
        if !seen.insert(table) {
            let problem = format!("is named by two [[outbox]] sections: \"{table}\"");
            mistakes.add(origin, "outbox.table", problem);
        }
        let (topic, payload) = (topic(section), payload(section));
        let origin = &section.topic.origin;
        match topic.for_table(&table.schema, &table.name) {
            Err(error) => {
                mistakes.add(origin, "outbox.topic", format!("does not do for {table}: {error}"));
            }
            Ok(filled) => {
                let topic = (filled.literal(), origin);
                check_topic(topic, "outbox.topic", checkpoint_topic, mistakes);
            }
        }
        check_headers(section, payload, mistakes);
        let columns = column_names(section);
        settings.push(event::outbox::Settings {
            table: (table.schema.clone(), table.name.clone()),
            topic,
            payload,
            headers: headers(section, &columns),
            columns,
        });
    }
    settings
}

pub(super) fn retentions(sections: &[OutboxSection]) -> Vec<pipeline::Retention> {
    let retention = |section: &OutboxSection| {
        let RetentionAge(age) = section.retention?;
        let names = column_names(section);
        Some(pipeline::Retention {
            table: section.table.value.clone(),
            id: names.id.as_str().to_owned(),
            created_at: names.created_at.as_str().to_owned(),
            age,
        })
    };
    sections.iter().filter_map(retention).collect()
}

/// What the section says, else what its layout says.
fn topic(section: &OutboxSection) -> TopicTemplate {
    match &section.topic.origin {
        Origin::Nowhere => {
            TopicTemplate::parse(section.layout.topic()).expect("a layout's topic is a template")
        }
        Origin::Line(_) | Origin::Environment(_) => section.topic.value.clone(),
    }
}

/// What the section says, else what its layout says.
fn payload(section: &OutboxSection) -> PayloadForm {
    match &section.payload.origin {
        Origin::Nowhere => section.layout.payload(),
        Origin::Line(_) | Origin::Environment(_) => section.payload.value,
    }
}

/// The section's, and that of its layout, unless the section gives that name to another column.
fn headers(section: &OutboxSection, columns: &ColumnNames) -> Vec<(String, String)> {
    let mut headers = section.headers.texts();
    if let Some(name) = section.layout.id_header() {
        headers.entry(name.to_owned()).or_insert_with(|| columns.id.as_str().to_owned());
    }
    headers.into_iter().collect()
}

/// What no record can have, however its row looks.
fn check_headers(section: &OutboxSection, payload: PayloadForm, mistakes: &mut Mistakes) {
    for (index, (name, origin)) in section.headers.places().enumerate() {
        if OwnHeader::named(name).is_some_and(|own| own.belongs_to(payload)) {
            let problem = "cannot be set: Tailwater writes this header itself, and a record must \
                           not have it twice";
            mistakes.add(origin, &join("outbox.headers", name), problem);
        }
        if name.len() > event::HEADER_NAME_BYTES_MAX {
            let bytes = event::HEADER_NAME_BYTES_MAX;
            mistakes.add(origin, "outbox.headers", format!("has a name above {bytes} bytes"));
        }
        if index == event::CONFIGURED_HEADERS_MAX {
            mistakes.add(origin, "outbox.headers", format!("has more than {index} names"));
        }
    }
}

fn column_names(section: &OutboxSection) -> ColumnNames {
    let mut names = section.layout.columns();
    let ColumnsSection {
        id,
        aggregate_id,
        aggregate_type,
        event_type,
        payload,
        created_at,
        version,
        correlation_id,
        causation_id,
        traceparent,
        headers,
    } = &section.columns;
    for (name, configured) in [
        (&mut names.id, id),
        (&mut names.aggregate_id, aggregate_id),
        (&mut names.aggregate_type, aggregate_type),
        (&mut names.event_type, event_type),
        (&mut names.payload, payload),
        (&mut names.created_at, created_at),
        (&mut names.version, version),
        (&mut names.correlation_id, correlation_id),
        (&mut names.causation_id, causation_id),
        (&mut names.traceparent, traceparent),
        (&mut names.headers, headers),
    ] {
        if let Some(configured) = configured {
            *name = ColumnName::Configured(configured.clone());
        }
    }
    names
}

//! Where events of domain tables go, as far as the file says it.
//!
//! A rule's type is known before any row, and so is the table where a section names one: what such
//! names make of a template is judged here, not at the first event.

use super::{
    file::{EventSection, TableSection},
    load::check_topic,
    mistake::{Mistakes, Origin},
    scalar::{Located, TableTopic},
    tables::{Surroundings, has_default_events},
};
use crate::event::{
    Route, TemplateError, TopicNameError, TopicTemplate,
    table::{self, Otherwise, TablePattern},
};

/// Checks the topics of a section and of its rules.
pub(super) fn check(section: &TableSection, file: &Surroundings<'_>, mistakes: &mut Mistakes) {
    const KEY: &str = "table.topic";
    let has_default_events = has_default_events(section);
    let is_used = has_default_events || section.event.iter().any(|rule| rule.topic.is_none());
    let Located { value: TableTopic(topic), origin } = &section.topic;
    let origin = match origin {
        // It is the table's name that a default does not do for.
        Origin::Nowhere => &section.name.origin,
        Origin::Line(_) | Origin::Environment(_) => origin,
    };
    let name = &section.name.value;
    let checked = is_used.then(|| checked((topic, name), (KEY, origin), file, mistakes));
    let topic = checked.flatten();
    if let (true, Some(topic), Some((_, table))) = (has_default_events, &topic, name.exact()) {
        // The other types that it has without rules differ by their last word alone.
        let event_type = format!("{table}.created");
        let error = match route(file, &event_type) {
            Some(route) => route.topic.for_type(&event_type).err(),
            None => topic.for_type(&event_type).err(),
        };
        if let Some(error) = error {
            let problem = format!("does not do for events of the type \"{event_type}\": {error}");
            mistakes.add(origin, KEY, problem);
        }
    }
    for rule in &section.event {
        check_rule(rule, name, topic.as_ref(), file, mistakes);
    }
}

fn check_rule(
    rule: &EventSection,
    name: &TablePattern,
    topic_of_table: Option<&TopicTemplate>,
    file: &Surroundings<'_>,
    mistakes: &mut Mistakes,
) {
    const KEY: &str = "table.event.topic";
    let Located { value: event_type, origin } = &rule.r#type;
    let own = rule.topic.as_ref().and_then(|Located { value: TableTopic(topic), origin }| {
        checked((topic, name), (KEY, origin), file, mistakes)
    });
    let route = route(file, event_type);
    if let (Some(Located { origin, .. }), Some(route)) = (&rule.topic, route) {
        let problem = format!(
            "has no effect: the [[route]] of \"{}\" takes \"{event_type}\"",
            route.event_type.as_str()
        );
        mistakes.add(origin, KEY, problem);
    }
    let topic = if rule.topic.is_some() { own.as_ref() } else { topic_of_table };
    let said = match route {
        Some(route) => route.topic.literal(),
        None => topic.and_then(TopicTemplate::literal),
    };
    let name = |made: Option<&str>| made.map(str::to_owned);
    let made = match (route, topic) {
        (Some(route), _) => route.topic.for_type(event_type).map(|made| name(made.literal())),
        (None, Some(topic)) => topic.for_type(event_type).map(|made| name(made.literal())),
        (None, None) => return,
    };
    let checkpoint_topic = &file.checkpoint_topic.0;
    let problem = match made {
        Err(error) => format!("is \"{event_type}\", of which no topic can be made: {error}"),
        // Of a topic without places it is said already where the topic is.
        Ok(Some(made)) if said.is_none() && made == *checkpoint_topic => {
            format!("is \"{event_type}\", which makes kafka.checkpoint_topic of its topic")
        }
        Ok(Some(_) | None) => return,
    };
    mistakes.add(origin, "table.event.type", problem);
}

fn route<'a>(file: &Surroundings<'a>, event_type: &str) -> Option<&'a Route> {
    file.routes.iter().find(|route| route.event_type.matches(event_type))
}

/// The template, with what is known of the table filled in, where that does for Kafka.
fn checked(
    (topic, name): (&TopicTemplate, &TablePattern),
    (key, origin): (&str, &Origin),
    file: &Surroundings<'_>,
    mistakes: &mut Mistakes,
) -> Option<TopicTemplate> {
    match fill(topic, name) {
        Ok(filled) => {
            check_topic((filled.literal(), origin), key, &file.checkpoint_topic.0, mistakes);
            Some(filled)
        }
        Err(error) => {
            mistakes.add(origin, key, format!("does not do for {name}: {error}"));
            None
        }
    }
}

/// With the table filled in, or with the schema where there may be several tables.
fn fill(topic: &TopicTemplate, name: &TablePattern) -> Result<TopicTemplate, TemplateError> {
    if let Some((schema, table)) = name.exact() {
        return topic.for_table(schema, table);
    }
    let filled = topic.for_schema(&name.schema)?;
    match topic.for_table(&name.schema, &name.table.replace('*', "")) {
        // What the stars stand for may mend these two.
        Err(TemplateError::Name {
            problem: TopicNameError::Empty | TopicNameError::Dots, ..
        }) => Ok(filled),
        Err(error) => Err(error),
        Ok(_) => Ok(filled),
    }
}

/// The topics that are known before any row: the table's, and those of its rules.
pub(super) fn topics(settings: &table::Settings) -> Vec<String> {
    let filled = |topic| fill(topic, &settings.name).ok();
    let of_rules = settings.rules.iter().filter_map(|rule| {
        filled(rule.topic.as_ref().unwrap_or(&settings.topic))?.for_type(&rule.event_type).ok()
    });
    let is_used = settings.otherwise == Otherwise::Default
        || settings.rules.iter().any(|rule| rule.topic.is_none());
    let of_table = filled(&settings.topic).filter(|_| is_used);
    let topics = of_table.into_iter().chain(of_rules);
    topics.filter_map(|topic| topic.literal().map(str::to_owned)).collect()
}

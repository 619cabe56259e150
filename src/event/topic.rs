//! Topic templates: which topic an event goes to.

use std::fmt;

use crate::event::Reason;

/// The longest topic name that Kafka allows, in bytes.
const NAME_BYTES_MAX: usize = 249;

/// A topic's name with places to fill, as `{domain}.events`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicTemplate {
    text: String,
    parts: Vec<Part>,
}

/// A piece of a template.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Literal(String),
    Type,
    Domain,
    AggregateType,
    Column(String),
    Schema,
    Table,
}

/// A piece of a template, for who describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece<'t> {
    /// It stands as it is.
    Text(&'t str),
    /// A place, by its word.
    Place(&'static str),
    /// A place for the value of this column.
    Column(&'t str),
}

/// A text is no topic template.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TemplateError {
    /// A brace without its counterpart.
    #[error("topic \"{template}\" has a brace without its counterpart")]
    Brace {
        /// The template.
        template: String,
    },
    /// A word in braces that means nothing.
    #[error(
        "topic \"{template}\" has {{{placeholder}}}, which is none of {{type}}, {{domain}}, \
         {{aggregate_type}}, {{column:NAME}}, {{schema}} and {{table}}"
    )]
    Placeholder {
        /// The template.
        template: String,
        /// The word.
        placeholder: String,
    },
    /// A place that only a table's rows fill.
    #[error(
        "topic \"{template}\" has {{{placeholder}}}, which only rows of a table have: here it may \
         have {{type}} and {{domain}}"
    )]
    Place {
        /// The template.
        template: String,
        /// What stands in the place.
        placeholder: String,
    },
    /// A place that only an outbox's rows fill.
    #[error(
        "topic \"{template}\" has {{aggregate_type}}, which only rows of an outbox have: here it \
         may have {{type}}, {{domain}}, {{column:NAME}}, {{schema}} and {{table}}"
    )]
    OutboxPlace {
        /// The template.
        template: String,
    },
    /// No row could make a name of it that Kafka allows.
    #[error("topic \"{template}\" {problem}")]
    Name {
        /// The template.
        template: String,
        /// Why.
        problem: TopicNameError,
    },
}

/// Why Kafka allows no topic of that name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TopicNameError {
    /// The empty name.
    #[error("is empty")]
    Empty,
    /// `.` or `..`.
    #[error("is \".\" or \"..\", which Kafka does not allow as a topic name")]
    Dots,
    /// Too long.
    #[error("is longer than the 249 characters that Kafka allows in a topic name")]
    TooLong,
    /// Another character.
    #[error(
        "has a character other than a-z, A-Z, 0-9, '.', '_' and '-', which Kafka does not allow in a topic name"
    )]
    Character,
}

impl TopicTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// Where it cannot be read, or where its literal parts already are nothing that Kafka allows.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let template = || text.to_owned();
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(brace) = rest.find(['{', '}']) {
            let (literal, tail) = rest.split_at(brace);
            let (placeholder, behind) = tail
                .strip_prefix('{')
                .and_then(|tail| tail.split_once('}'))
                .filter(|(placeholder, _)| !placeholder.contains('{'))
                .ok_or_else(|| TemplateError::Brace { template: template() })?;
            push_literal(&mut parts, literal);
            parts.push(Part::parse(placeholder).ok_or_else(|| TemplateError::Placeholder {
                template: template(),
                placeholder: placeholder.to_owned(),
            })?);
            rest = behind;
        }
        push_literal(&mut parts, rest);
        Self { text: template(), parts }.checked()
    }

    /// Reads a template for the events of a domain table, whose rows have no aggregate type.
    ///
    /// # Errors
    /// As [`TopicTemplate::parse`], and where it has `{aggregate_type}`.
    pub fn parse_for_domain_table(text: &str) -> Result<Self, TemplateError> {
        let template = Self::parse(text)?;
        if template.parts.contains(&Part::AggregateType) {
            return Err(TemplateError::OutboxPlace { template: template.text });
        }
        Ok(template)
    }

    /// The template for one table: `{schema}` and `{table}` are filled.
    ///
    /// # Errors
    /// Where the table's name makes it nothing that Kafka allows.
    pub fn for_table(&self, schema: &str, table: &str) -> Result<Self, TemplateError> {
        self.filled(schema, table).checked()
    }

    /// The template for tables of one schema: `{schema}` is filled.
    ///
    /// # Errors
    /// Where the schema's name makes it nothing that Kafka allows.
    pub fn for_schema(&self, schema: &str) -> Result<Self, TemplateError> {
        self.filled_by(|part| (*part == Part::Schema).then_some(schema)).checked()
    }

    /// The template for events of one type: `{type}` and `{domain}` are filled.
    ///
    /// # Errors
    /// Where the type makes it nothing that Kafka allows.
    pub fn for_type(&self, event_type: &str) -> Result<Self, TemplateError> {
        let fill = |part: &Part| match part {
            Part::Type => Some(event_type),
            Part::Domain => Some(domain(event_type)),
            Part::Literal(_)
            | Part::AggregateType
            | Part::Column(_)
            | Part::Schema
            | Part::Table => None,
        };
        self.filled_by(fill).checked()
    }

    pub(super) fn filled(&self, schema: &str, table: &str) -> Self {
        self.filled_by(|part| match part {
            Part::Schema => Some(schema),
            Part::Table => Some(table),
            Part::Literal(_)
            | Part::Type
            | Part::Domain
            | Part::AggregateType
            | Part::Column(_) => None,
        })
    }

    /// With the text that `fill` has for a part in its place.
    fn filled_by<'a>(&'a self, fill: impl Fn(&Part) -> Option<&'a str>) -> Self {
        let mut parts = Vec::new();
        for part in &self.parts {
            match (fill(part), part) {
                (Some(text), _) => push_literal(&mut parts, text),
                (None, Part::Literal(text)) => push_literal(&mut parts, text),
                (None, part) => parts.push(part.clone()),
            }
        }
        Self { text: self.text.clone(), parts }
    }

    /// The one name that it makes, where it has no places to fill.
    pub fn literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Literal(name)] => Some(name),
            _ => None,
        }
    }

    /// The template as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Its pieces, in order.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        self.parts.iter().map(|part| match part {
            Part::Literal(literal) => Piece::Text(literal),
            Part::Type => Piece::Place("type"),
            Part::Domain => Piece::Place("domain"),
            Part::AggregateType => Piece::Place("aggregate_type"),
            Part::Schema => Piece::Place("schema"),
            Part::Table => Piece::Place("table"),
            Part::Column(name) => Piece::Column(name),
        })
    }

    fn checked(self) -> Result<Self, TemplateError> {
        let literals: String = self
            .parts
            .iter()
            .filter_map(|part| match part {
                Part::Literal(literal) => Some(literal.as_str()),
                Part::Type
                | Part::Domain
                | Part::AggregateType
                | Part::Column(_)
                | Part::Schema
                | Part::Table => None,
            })
            .collect();
        let is_whole = self.parts.iter().all(|part| matches!(part, Part::Literal(_)));
        match check_name(&literals) {
            Ok(()) => Ok(self),
            // What is filled in may mend these two.
            Err(TopicNameError::Empty | TopicNameError::Dots) if !is_whole => Ok(self),
            Err(problem) => Err(TemplateError::Name { template: self.text, problem }),
        }
    }
}

impl fmt::Display for TopicTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl Part {
    fn parse(placeholder: &str) -> Option<Self> {
        Some(match placeholder {
            "type" => Self::Type,
            "domain" => Self::Domain,
            "aggregate_type" => Self::AggregateType,
            "schema" => Self::Schema,
            "table" => Self::Table,
            _ => {
                let column = placeholder.strip_prefix("column:").filter(|name| !name.is_empty())?;
                Self::Column(column.to_owned())
            }
        })
    }

    /// What stands in a place that only rows of a table fill.
    fn of_rows(&self) -> Option<String> {
        match self {
            Self::Literal(_) | Self::Type | Self::Domain => None,
            Self::AggregateType => Some("aggregate_type".to_owned()),
            Self::Column(name) => Some(format!("column:{name}")),
            Self::Schema => Some("schema".to_owned()),
            Self::Table => Some("table".to_owned()),
        }
    }
}

/// A topic template for events of whatever origin: its places are filled by an event's type alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TypeTemplate(TopicTemplate);

impl TypeTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// As [`TopicTemplate::parse`], and where it has other places than `{type}` and `{domain}`.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let template = TopicTemplate::parse(text)?;
        match template.parts.iter().find_map(Part::of_rows) {
            None => Ok(Self(template)),
            Some(placeholder) => Err(TemplateError::Place { template: template.text, placeholder }),
        }
    }

    /// The template for events of one type.
    ///
    /// # Errors
    /// Where the type makes it nothing that Kafka allows.
    pub fn for_type(&self, event_type: &str) -> Result<Self, TemplateError> {
        self.0.for_type(event_type).map(Self)
    }

    /// The one name that it makes, where it has no places to fill.
    pub fn literal(&self) -> Option<&str> {
        self.0.literal()
    }

    /// Its pieces, in order.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        self.0.pieces()
    }

    /// Writes the topic of an event of that type into `name`.
    pub(super) fn resolve<'a>(
        &self,
        event_type: &str,
        name: &'a mut String,
    ) -> Result<&'a str, Reason> {
        name.clear();
        for part in &self.0.parts {
            name.push_str(match part {
                Part::Literal(literal) => literal,
                Part::Type => event_type,
                Part::Domain => domain(event_type),
                Part::AggregateType | Part::Column(_) | Part::Schema | Part::Table => {
                    unreachable!("a template of types has no such places")
                }
            });
        }
        match check_name(name) {
            Ok(()) => Ok(name),
            Err(problem) => Err(Reason::Topic { template: self.0.text.clone(), problem }),
        }
    }
}

/// Neighbours are joined, so that a template without places is one literal.
fn push_literal(parts: &mut Vec<Part>, literal: &str) {
    if literal.is_empty() {
        return;
    }
    if let Some(Part::Literal(before)) = parts.last_mut() {
        before.push_str(literal);
    } else {
        parts.push(Part::Literal(literal.to_owned()));
    }
}

/// The part of an event's type before its first dot.
pub(super) fn domain(event_type: &str) -> &str {
    event_type.split('.').next().unwrap_or(event_type)
}

/// Kafka's rule (C name in its Java sources: `Topic.validate`).
pub fn check_name(name: &str) -> Result<(), TopicNameError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    match name {
        "" => Err(TopicNameError::Empty),
        "." | ".." => Err(TopicNameError::Dots),
        _ if !name.bytes().all(allowed) => Err(TopicNameError::Character),
        _ if name.len() > NAME_BYTES_MAX => Err(TopicNameError::TooLong),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_read_into_its_parts() {
        let template = TopicTemplate::parse("{domain}.{column:tenant id}-v1").expect("a template");
        assert_eq!(
            template.parts(),
            [
                Part::Domain,
                Part::Literal(".".to_owned()),
                Part::Column("tenant id".to_owned()),
                Part::Literal("-v1".to_owned()),
            ]
        );
        assert_eq!(template.to_string(), "{domain}.{column:tenant id}-v1");
    }

    #[test]
    fn what_can_never_be_a_topic_is_refused_when_read() {
        let problem = |text: &str| match TopicTemplate::parse(text) {
            Err(TemplateError::Name { problem, .. }) => Some(problem),
            _ => None,
        };
        assert_eq!(problem(""), Some(TopicNameError::Empty));
        assert_eq!(problem(".."), Some(TopicNameError::Dots));
        assert_eq!(problem("{type} events"), Some(TopicNameError::Character));
        assert_eq!(problem("bestellungen-für-{type}"), Some(TopicNameError::Character));
        assert_eq!(problem(&"x".repeat(250)), Some(TopicNameError::TooLong));
        assert_eq!(problem(&("{type}".to_owned() + &"x".repeat(249))), None);
        assert_eq!(problem("{type}."), None);
        assert_eq!(problem("{type}"), None);
    }

    #[test]
    fn braces_and_words_are_checked() {
        for text in ["{", "}", "{type", "type}", "{{type}}", "a{b{type}}"] {
            let error = TopicTemplate::parse(text).expect_err(text);
            assert!(matches!(error, TemplateError::Brace { .. }), "{text}: {error}");
        }
        for text in ["{}", "{Type}", "{column}", "{column:}", "{ type }"] {
            let error = TopicTemplate::parse(text).expect_err(text);
            assert!(matches!(error, TemplateError::Placeholder { .. }), "{text}: {error}");
        }
        assert_eq!(
            TopicTemplate::parse("{topic}").expect_err("no such word").to_string(),
            "topic \"{topic}\" has {topic}, which is none of {type}, {domain}, {aggregate_type}, \
             {column:NAME}, {schema} and {table}"
        );
    }

    #[test]
    fn a_table_fills_its_own_places() {
        let template = TopicTemplate::parse("cdc.{schema}.{table}").expect("a template");
        let filled = template.for_table("public", "outbox_events").expect("a name");
        assert_eq!(filled.parts(), [Part::Literal("cdc.public.outbox_events".to_owned())]);
        let error = template.for_table("public", "out box").expect_err("a blank");
        assert!(matches!(error, TemplateError::Name { problem: TopicNameError::Character, .. }));
    }

    #[test]
    fn a_schema_and_a_type_fill_their_places_alone() {
        let template =
            TopicTemplate::parse("{schema}.{table}.{domain}.{type}").expect("a template");
        let filled = template.for_schema("public").and_then(|filled| filled.for_type("a.b"));
        let literal = |text: &str| Part::Literal(text.to_owned());
        assert_eq!(
            filled.expect("a name").parts(),
            [literal("public."), Part::Table, literal(".a.a.b")]
        );
        assert!(template.for_schema("für").is_err() && template.for_type("a b").is_err());
    }

    #[test]
    fn a_domain_table_has_no_aggregate_type() {
        let error = TopicTemplate::parse_for_domain_table("{aggregate_type}").expect_err("a place");
        assert!(matches!(error, TemplateError::OutboxPlace { .. }), "{error}");
        for place in ["{type}", "{domain}", "{column:tenant id}", "{schema}", "{table}"] {
            assert!(TopicTemplate::parse_for_domain_table(place).is_ok(), "{place}");
        }
    }

    #[test]
    fn a_template_of_types_has_no_places_of_rows() {
        let mut name = String::new();
        let template = TypeTemplate::parse("all.{domain}.{type}").expect("a template");
        assert_eq!(template.resolve("a.b", &mut name), Ok("all.a.a.b"));
        assert!(template.resolve("a b", &mut name).is_err());
        assert_eq!(TypeTemplate::parse("audit").expect("a name").literal(), Some("audit"));
        for place in ["{aggregate_type}", "{column:tenant id}", "{schema}", "{table}"] {
            let error = TypeTemplate::parse(&format!("x.{place}")).expect_err(place).to_string();
            assert!(error.contains(&format!("has {place}, which only rows")), "{error}");
        }
        assert!(TypeTemplate::parse("a b").is_err());
    }

    #[test]
    fn the_domain_ends_at_the_first_dot() {
        assert_eq!(domain("order.placed"), "order");
        assert_eq!(domain("order.line.added"), "order");
        assert_eq!(domain("order"), "order");
        assert_eq!(domain(".placed"), "");
    }
}

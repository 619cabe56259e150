//! Topics, and what kinds of events go to each.

use crate::event::{Piece, Settings, outbox::PayloadForm};

/// A topic, or all topics that a template makes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Channel {
    /// `{domain}.events`. The word in braces is a parameter's name.
    pub(super) address: String,
    /// What stands in braces.
    pub(super) parameters: Vec<Parameter>,
    /// What goes there.
    pub(super) messages: Vec<Message>,
}

/// A place of an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) description: String,
}

/// One kind of events.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Message {
    /// Where they come from: tables, prefixes.
    pub(super) origins: Vec<String>,
    /// What their values are.
    pub(super) form: PayloadForm,
    /// A regular expression for their types (ECMA-262), where only some come here.
    pub(super) type_pattern: Option<String>,
    /// Headers beside Tailwater's own.
    pub(super) headers: Vec<String>,
}

/// All channels, in the order of the settings; routes last. Where two origins share a topic, it is one
/// channel.
pub(super) fn channels(settings: &Settings) -> Vec<Channel> {
    let mut channels = Vec::new();
    let mut origins = Vec::new();
    for outbox in &settings.outboxes {
        let (schema, table) = &outbox.table;
        let message = Message {
            origins: vec![format!("table {schema}.{table}")],
            form: outbox.payload,
            type_pattern: None,
            headers: outbox.headers.iter().map(|(header, _)| header.clone()).collect(),
        };
        // A table whose name no topic can have is a mistake of the settings.
        if let Ok(topic) = outbox.topic.for_table(schema, table) {
            add(&mut channels, topic.pieces(), message.clone());
        }
        origins.push(message);
    }
    for messages in &settings.messages {
        let message = Message {
            origins: vec![format!("messages of prefix {}", messages.prefix)],
            form: PayloadForm::Envelope,
            type_pattern: None,
            headers: Vec::new(),
        };
        add(&mut channels, messages.topic.pieces(), message.clone());
        origins.push(message);
    }
    for route in &settings.routes {
        let type_pattern = Some(pattern(route.event_type.as_str()));
        for origin in &origins {
            let message = Message { type_pattern: type_pattern.clone(), ..origin.clone() };
            add(&mut channels, route.topic.pieces(), message);
        }
    }
    channels
}

fn add<'t>(channels: &mut Vec<Channel>, pieces: impl Iterator<Item = Piece<'t>>, message: Message) {
    let (mut address, mut parameters) = (String::new(), Vec::new());
    for piece in pieces {
        let parameter = match piece {
            Piece::Text(text) => {
                address.push_str(text);
                continue;
            }
            Piece::Place(word) => Parameter::of_place(word),
            Piece::Column(name) => Parameter::of_column(name),
        };
        address.push_str(&format!("{{{}}}", parameter.name));
        if !parameters.contains(&parameter) {
            parameters.push(parameter);
        }
    }
    let Some(channel) = channels.iter_mut().find(|channel| channel.address == address) else {
        channels.push(Channel { address, parameters, messages: vec![message] });
        return;
    };
    let same = channel.messages.iter_mut().find(|other| other.is_like(&message));
    match same {
        Some(same) => same.origins.extend(
            message.origins.into_iter().filter(|it| !same.origins.contains(it)).collect::<Vec<_>>(),
        ),
        None => channel.messages.push(message),
    }
}

impl Message {
    /// The same in all that a consumer sees.
    fn is_like(&self, other: &Self) -> bool {
        let Self { form, type_pattern, headers, .. } = self;
        *form == other.form && *type_pattern == other.type_pattern && *headers == other.headers
    }
}

impl Parameter {
    fn of_place(word: &str) -> Self {
        let description = match word {
            "domain" => "The event's type up to its first dot.",
            "type" => "The event's type.",
            _ => "The type of the aggregate that the event is about.",
        };
        Self { name: word.to_owned(), description: description.to_owned() }
    }

    /// AsyncAPI knows letters, digits, `_` and `-` in the name of a parameter.
    fn of_column(column: &str) -> Self {
        let allowed = |letter: char| match letter {
            letter if letter.is_ascii_alphanumeric() || letter == '-' => letter,
            _ => '_',
        };
        Self {
            name: format!("column_{}", column.chars().map(allowed).collect::<String>()),
            description: format!("The value of column \"{column}\"."),
        }
    }
}

/// A pattern for types as a regular expression. What is escaped must have to be: JSON Schema compiles
/// patterns with ECMA-262's flag `u`, under which `\-` is a syntax error.
fn pattern(glob: &str) -> String {
    let mut pattern = "^".to_owned();
    for letter in glob.chars() {
        match letter {
            '*' => pattern.push_str("[\\s\\S]*"),
            '?' => pattern.push_str("[\\s\\S]"),
            letter => {
                if "^$.+()|".contains(letter) {
                    pattern.push('\\');
                }
                pattern.push(letter);
            }
        }
    }
    pattern.push('$');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{
        Route, TypeGlob, TypeTemplate,
        fixture::Outbox,
        outbox::{self, MessageSettings},
    };

    fn outbox(table: &str, topic: &str, form: PayloadForm) -> outbox::Settings {
        let mut settings = Outbox::of(form).settings();
        settings.table = ("public".to_owned(), table.to_owned());
        settings.topic = crate::event::TopicTemplate::parse(topic).expect("a template");
        settings
    }

    fn template(text: &str) -> TypeTemplate {
        TypeTemplate::parse(text).expect("a template")
    }

    #[test]
    fn origins_that_share_a_topic_are_one_channel() {
        let settings = Settings {
            source: "shop".to_owned(),
            outboxes: vec![
                outbox("a", "{domain}.events", PayloadForm::Data),
                outbox("b", "{domain}.events", PayloadForm::Data),
                outbox("c", "{domain}.events", PayloadForm::Bare),
                outbox("d", "{table}-{column:tenant id}", PayloadForm::Envelope),
            ],
            messages: vec![MessageSettings {
                prefix: "outbox".to_owned(),
                topic: template("{domain}.events"),
            }],
            tables: Vec::new(),
            routes: vec![Route {
                event_type: TypeGlob::parse("order-a/b.?+*").expect("a pattern"),
                topic: template("audit"),
            }],
        };
        let found = channels(&settings);
        let addresses: Vec<&str> = found.iter().map(|it| it.address.as_str()).collect();
        assert_eq!(addresses, ["{domain}.events", "d-{column_tenant_id}", "audit"]);
        let [shared, columns, audit] = found.as_slice() else { panic!("{found:?}") };
        let forms: Vec<PayloadForm> = shared.messages.iter().map(|it| it.form).collect();
        assert_eq!(forms, [PayloadForm::Data, PayloadForm::Bare, PayloadForm::Envelope]);
        assert_eq!(shared.messages[0].origins, ["table public.a", "table public.b"]);
        assert_eq!(columns.parameters[0].description, "The value of column \"tenant id\".");
        assert_eq!(audit.messages.len(), 3);
        assert_eq!(audit.messages[2].origins, ["table public.d", "messages of prefix outbox"]);
        for message in &audit.messages {
            let expected = "^order-a/b\\.[\\s\\S]\\+[\\s\\S]*$";
            assert_eq!(message.type_pattern.as_deref(), Some(expected));
        }
    }
}

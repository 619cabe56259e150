//! Topics, and what kinds of events go to each.

use serde_json::Value;

use crate::event::{
    EventError, Piece, Settings,
    outbox::PayloadForm,
    table::{Description, EventShape, Occasion, ValueShape},
};

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
    /// What makes records of it there.
    pub(super) occasion: Occasion,
    /// What keys and values are.
    pub(super) contents: Contents,
    /// Which types come here.
    pub(super) types: Types,
    /// Headers beside Tailwater's own.
    pub(super) headers: Vec<String>,
}

/// Where keys and values come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Contents {
    /// A payload that the application wrote.
    Payload(PayloadForm),
    /// Rows of a table; schemas of `data` and key.
    Rows { version: String, data: Value, unavailable: Vec<String>, key: Value },
    /// Nothing, under the key of a row that is gone.
    Tombstone { version: String, key: Value },
}

impl Contents {
    /// The payload whose headers records of it have.
    pub(super) fn form(&self) -> PayloadForm {
        match self {
            Self::Payload(form) => *form,
            Self::Rows { .. } => PayloadForm::Data,
            Self::Tombstone { .. } => PayloadForm::Bare,
        }
    }
}

/// Types of events.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Types {
    /// Those that rows have.
    Any,
    /// Those that a regular expression (ECMA-262) matches.
    Matching(String),
    /// This one.
    Only(String),
}

/// All channels: of outboxes, messages and tables in the order of the settings, then of routes. Where
/// two origins share a topic, it is one channel.
///
/// # Errors
/// Where a table does not fit its settings.
pub(super) fn channels(
    settings: &Settings,
    tables: &[Description],
) -> Result<Vec<Channel>, EventError> {
    let mut channels = Vec::new();
    let mut origins = Vec::new();
    for outbox in &settings.outboxes {
        let (schema, table) = &outbox.table;
        let message = Message {
            origins: vec![format!("table {schema}.{table}")],
            // A row that waited for a poller was there before.
            occasion: Occasion::Either,
            contents: Contents::Payload(outbox.payload),
            types: Types::Any,
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
            occasion: Occasion::Change,
            contents: Contents::Payload(PayloadForm::Envelope),
            types: Types::Any,
            headers: Vec::new(),
        };
        add(&mut channels, messages.topic.pieces(), message.clone());
        origins.push(message);
    }
    for table in tables {
        // Routes count in what these say.
        for shape in settings.event_shapes(table)? {
            let EventShape { event_type, occasion, version, topic, key, value } = shape;
            let contents = match value {
                ValueShape::Envelope { data, unavailable } => {
                    Contents::Rows { version, data, unavailable, key }
                }
                ValueShape::Tombstone => Contents::Tombstone { version, key },
            };
            let message = Message {
                origins: vec![format!("table {}.{}", table.schema, table.name)],
                occasion,
                contents,
                types: Types::Only(event_type),
                headers: Vec::new(),
            };
            add(&mut channels, topic.pieces(), message);
        }
    }
    for route in &settings.routes {
        let types = Types::Matching(pattern(route.event_type.as_str()));
        for origin in &origins {
            let message = Message { types: types.clone(), ..origin.clone() };
            add(&mut channels, route.topic.pieces(), message);
        }
    }
    Ok(channels)
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
        Some(same) => same.join(message),
        None => channel.messages.push(message),
    }
}

impl Message {
    /// What it is called.
    pub(super) fn title(&self) -> String {
        let origins = self.origins.join(", ");
        match (&self.types, &self.contents) {
            (Types::Only(event_type), Contents::Tombstone { .. }) => {
                format!("Tombstone behind {event_type}, from {origins}")
            }
            (Types::Only(event_type), Contents::Payload(_) | Contents::Rows { .. }) => {
                format!("{event_type}, from {origins}")
            }
            (Types::Any | Types::Matching(_), _) => format!("From {origins}"),
        }
    }

    /// The same in all that a consumer sees, but for what is there at times.
    fn is_like(&self, other: &Self) -> bool {
        let Self { origins: _, occasion: _, contents, types, headers } = self;
        *contents == other.contents && *types == other.types && *headers == other.headers
    }

    /// Takes in one that is like it.
    fn join(&mut self, other: Self) {
        for origin in other.origins {
            if !self.origins.contains(&origin) {
                self.origins.push(origin);
            }
        }
        if self.occasion != other.occasion {
            self.occasion = Occasion::Either;
        }
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
        fixture::{Outbox, domain_table::DomainTable},
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
        let found = channels(&settings, &[]).expect("channels");
        let addresses: Vec<&str> = found.iter().map(|it| it.address.as_str()).collect();
        assert_eq!(addresses, ["{domain}.events", "d-{column_tenant_id}", "audit"]);
        let [shared, columns, audit] = found.as_slice() else { panic!("{found:?}") };
        let forms: Vec<PayloadForm> = shared.messages.iter().map(|it| it.contents.form()).collect();
        assert_eq!(forms, [PayloadForm::Data, PayloadForm::Bare, PayloadForm::Envelope]);
        assert_eq!(shared.messages[0].origins, ["table public.a", "table public.b"]);
        assert_eq!(columns.parameters[0].description, "The value of column \"tenant id\".");
        assert_eq!(audit.messages.len(), 3);
        assert_eq!(audit.messages[2].origins, ["table public.d", "messages of prefix outbox"]);
        for message in &audit.messages {
            let expected = "^order-a/b\\.[\\s\\S]\\+[\\s\\S]*$";
            assert_eq!(message.types, Types::Matching(expected.to_owned()));
        }
    }

    #[test]
    fn each_kind_of_a_tables_events_is_a_message_of_its_topic() {
        let table = DomainTable::orders().with(|table| {
            table.settings.tombstone = true;
            table.routes = vec![Route {
                event_type: TypeGlob::parse("*.truncated").expect("a pattern"),
                topic: template("audit"),
            }];
        });
        let settings = Settings {
            outboxes: vec![outbox("a", "orders.events", PayloadForm::Data)],
            ..table.file()
        };
        let found = channels(&settings, &[table.description()]).expect("channels");
        let told = |channel: &Channel| {
            let types = channel.messages.iter().map(|message| match &message.types {
                Types::Only(event_type) => event_type.clone(),
                Types::Any | Types::Matching(_) => message.origins.join(","),
            });
            (channel.address.clone(), types.collect::<Vec<_>>())
        };
        let [orders, audit] = found.as_slice() else { panic!("{found:?}") };
        let types = ["created", "updated", "deleted", "snapshot", "deleted"];
        assert_eq!(told(orders).1[1..], types.map(|what| format!("orders.{what}")));
        assert!(matches!(orders.messages[5].contents, Contents::Tombstone { .. }));
        // The outbox may have events of that type too.
        let both = vec!["orders.truncated".to_owned(), "table public.a".to_owned()];
        assert_eq!(told(audit), ("audit".to_owned(), both));
    }
}

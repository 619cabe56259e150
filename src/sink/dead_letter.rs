//! Dead letters: what cannot be delivered goes to a topic of its own, with the reason, in its place
//! among the events.

use std::time::Duration;

/// Header: why, in the words of the error.
pub const FAILURE_REASON: &str = "failure-reason";

/// Header: at which step, as [`FailureStage::word`].
pub const FAILURE_STAGE: &str = "failure-stage";

/// Header: where it was to go. Absent where no topic could be made.
pub const ORIGINAL_TOPIC: &str = "original-topic";

/// Header: the table whose row it is, `schema.table`.
pub const ORIGINAL_TABLE: &str = "original-table";

/// Header: the prefix of the message that it is.
pub const ORIGINAL_PREFIX: &str = "original-prefix";

/// How often the log says that there are more: each of them says why by itself.
pub const DEAD_LETTERS_SAID_EVERY: Duration = Duration::from_secs(10);

/// The place of a topic's name in the setting.
const TOPIC_PLACE: &str = "{topic}";

/// The longest name of a topic (C name in Kafka's Java sources: `Topic.MAX_NAME_LENGTH`).
const TOPIC_BYTES_MAX: usize = 249;

/// At which step an event failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailureStage {
    /// A row or message is no event.
    Map,
    /// An event is no record.
    Encode,
    /// A record is too large for its topic.
    Publish,
}

impl FailureStage {
    /// Every one, in the order of an event's way.
    pub const ALL: [Self; 3] = [Self::Map, Self::Encode, Self::Publish];

    /// The header's value.
    pub fn word(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::Encode => "encode",
            Self::Publish => "publish",
        }
    }
}

/// Where dead letters go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeadLetterTopics {
    template: String,
    /// Stands for the topic where none could be made.
    source: String,
}

impl DeadLetterTopics {
    /// By the setting `dead_letter_topic`, in which `{topic}` is the topic of the event, or `source`
    /// where none could be made.
    pub fn new(template: String, source: String) -> Self {
        Self { template, source }
    }

    /// The topic for what was to go to `topic`. Where that makes a name longer than Kafka allows, it
    /// is that of what has no topic.
    pub fn of(&self, topic: Option<&str>) -> String {
        let of = |topic: &str| self.template.replace(TOPIC_PLACE, topic);
        let own = topic.map(of).filter(|name| name.len() <= TOPIC_BYTES_MAX);
        own.unwrap_or_else(|| of(&self.source))
    }

    /// The one topic that there is, where the setting has no place to fill.
    pub fn literal(&self) -> Option<&str> {
        (!self.template.contains(TOPIC_PLACE)).then_some(&self.template)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_has_its_own_dead_letters_unless_one_is_for_all() {
        let of =
            |template: &str| DeadLetterTopics::new(template.to_owned(), "order-service".to_owned());
        assert_eq!(of("{topic}.dlq").of(Some("order.events")), "order.events.dlq");
        assert_eq!(of("{topic}.dlq").of(None), "order-service.dlq");
        assert_eq!(of("{topic}.dlq").literal(), None);
        assert_eq!(of("dead").of(Some("order.events")), "dead");
        assert_eq!(of("dead").literal(), Some("dead"));
        assert_eq!(of("{topic}.dlq").of(Some(&"x".repeat(245))).len(), 249);
        assert_eq!(of("{topic}.dlq").of(Some(&"x".repeat(246))), "order-service.dlq");
    }
}

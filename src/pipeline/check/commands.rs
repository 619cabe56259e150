//! The command lines of Kafka's own tools that mend something.

use std::collections::BTreeMap;

use crate::{pipeline::settings::KafkaSettings, sink::kafka::Right};

/// What stands for a principal that only the brokers know: it is made of a client's certificate.
const UNKNOWN_PRINCIPAL: &str = "<the user that the brokers know us as>";

/// Writes commands for the brokers of the settings.
pub(super) struct Commands<'a> {
    /// `kafka.brokers`.
    pub(super) brokers: &'a str,
    /// `kafka.properties`, which say who we are.
    pub(super) properties: &'a BTreeMap<String, String>,
}

impl<'a> Commands<'a> {
    pub(super) fn new(kafka: &'a KafkaSettings) -> Self {
        Self { brokers: &kafka.brokers, properties: &kafka.properties }
    }

    /// What an error says is to be done, without the words before its command, where it has one, and
    /// with the brokers in their place.
    pub(super) fn of_error(&self, hint: &str) -> String {
        let command = hint.find("kafka-").and_then(|at| hint.get(at..));
        command.unwrap_or(hint).replace("<broker>", self.brokers)
    }

    /// Gives our user these rights on a topic.
    pub(super) fn allow_on_topic(&self, rights: &[Right], topic: &str) -> String {
        let operations: Vec<&str> = rights.iter().map(|right| right.operation()).collect();
        self.allow(&operations, &format!("--topic {topic}"))
    }

    /// Lets our user see a topic that it must write to, and write to it.
    pub(super) fn allow_writing(&self, topic: &str) -> String {
        self.allow(&["Write", "Describe"], &format!("--topic {topic}"))
    }

    /// Lets our user make the topics whose names begin so; all where nothing is known of them.
    pub(super) fn allow_creation(&self, prefix: &str) -> String {
        match prefix {
            "" => self.allow(&["Create"], "--cluster"),
            prefix => {
                let resource = format!("--topic {prefix} --resource-pattern-type prefixed");
                self.allow(&["Create", "Write", "Describe", "DescribeConfigs"], &resource)
            }
        }
    }

    /// Lets our user have the transactional ids that begin so.
    pub(super) fn allow_transactional_ids(&self, prefix: &str) -> String {
        let resource = format!("--transactional-id {prefix} --resource-pattern-type prefixed");
        self.allow(&["Write", "Describe"], &resource)
    }

    /// Sets a topic's configuration.
    pub(super) fn configure(&self, topic: &str, entry: &str) -> String {
        format!(
            "kafka-configs.sh --bootstrap-server {} --alter --entity-type topics --entity-name \
             {topic} --add-config {entry}",
            self.brokers
        )
    }

    fn allow(&self, operations: &[&str], resource: &str) -> String {
        let operations: String =
            operations.iter().map(|operation| format!(" --operation {operation}")).collect();
        let principal = self.principal();
        let user = match principal.contains(char::is_whitespace) {
            true => format!("\"User:{principal}\""),
            false => format!("User:{principal}"),
        };
        format!(
            "kafka-acls.sh --bootstrap-server {} --add --allow-principal {user}{operations} \
             {resource}",
            self.brokers
        )
    }

    /// Who we are to the brokers, as far as the settings say.
    fn principal(&self) -> &str {
        let property = |name: &str| self.properties.get(name).map(String::as_str);
        let protocol = property("security.protocol").unwrap_or("plaintext").to_ascii_lowercase();
        match protocol.as_str() {
            "plaintext" => "ANONYMOUS",
            "ssl" => UNKNOWN_PRINCIPAL,
            _ => property("sasl.username").unwrap_or(UNKNOWN_PRINCIPAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_given_to_whom_the_settings_log_in_as() {
        for (properties, user) in [
            (vec![], "User:ANONYMOUS"),
            (vec![("security.protocol", "PLAINTEXT")], "User:ANONYMOUS"),
            (vec![("security.protocol", "sasl_ssl"), ("sasl.username", "shop")], "User:shop"),
            (
                vec![("security.protocol", "SASL_PLAINTEXT"), ("sasl.username", "the shop")],
                "\"User:the shop\"",
            ),
            (vec![("security.protocol", "ssl")], "\"User:<the user that the brokers know us as>\""),
        ] {
            let owned =
                properties.iter().map(|(name, value)| (name.to_string(), value.to_string()));
            let properties = owned.collect();
            let commands = Commands { brokers: "kafka:9092", properties: &properties };
            assert_eq!(
                commands.allow_writing("orders"),
                format!(
                    "kafka-acls.sh --bootstrap-server kafka:9092 --add --allow-principal {user} \
                     --operation Write --operation Describe --topic orders"
                )
            );
        }
    }

    #[test]
    fn of_an_errors_words_the_command_is_left() {
        let properties = BTreeMap::new();
        let commands = Commands { brokers: "kafka:9092", properties: &properties };
        let hint = "Set the policy: kafka-configs.sh --bootstrap-server <broker> --alter";
        let command = "kafka-configs.sh --bootstrap-server kafka:9092 --alter";
        assert_eq!(commands.of_error(hint), command);
        let sentence = "Partitions cannot be taken away.";
        assert_eq!(commands.of_error(sentence), sentence);
    }
}

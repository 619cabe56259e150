//! Settings that are one of a few words.

use serde_json::{Value as Json, json};

use super::{
    document::Node,
    mistake::Mistakes,
    scalar::{OnError, noted, text},
    section::Read,
};
use crate::{
    event::{
        outbox::{Layout, PayloadForm},
        table::{DataForm, Otherwise, SnapshotMode},
    },
    pipeline::LargeTransactions,
    sink::kafka::{Delivery, Partitioner},
    telemetry::LogFormat,
    value::{ByteaForm, ColumnForm, Int8Form, NumericForm},
};

/// What a column is masked by. The salt is another setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MaskForm {
    /// By a hash of salt and text.
    Sha256,
    /// By the same for all.
    Redact,
}

/// A setting that is one of a few words.
macro_rules! words {
    ($($type:ty { $($word:literal => $variant:ident,)+ })+) => {
        $(impl Read for $type {
            fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self> {
                let expected = Self::expected(key);
                let parsed = match text(node, key, &expected, mistakes)? {
                    $($word => Ok(Self::$variant),)+
                    other => Err(format!("must be {expected}, not \"{other}\"")),
                };
                noted(node, key, parsed, mistakes)
            }

            fn expected(_key: &str) -> String {
                format!("one of \"{}\"", [$($word),+].join("\", \""))
            }

            fn schema() -> Json {
                json!({ "anyOf": [
                    { "enum": [$($word),+] },
                    { "type": "string", "pattern": "\\$\\{" },
                ] })
            }
        })+
    };
}

words! {
    Layout { "tailwater" => Tailwater, "debezium" => Debezium, }
    PayloadForm { "data" => Data, "envelope" => Envelope, "bare" => Bare, }
    Partitioner {
        "murmur2" => Murmur2,
        "kafkajs-legacy" => KafkajsLegacy,
        "crc32" => Crc32,
        "fnv1a" => Fnv1a,
    }
    LargeTransactions { "split" => Split, "atomic" => Atomic, }
    OnError { "halt" => Halt, "dead-letter" => DeadLetter, }
    Delivery { "exactly-once" => ExactlyOnce, "at-least-once" => AtLeastOnce, }
    DataForm { "row" => Row, "change" => Change, }
    SnapshotMode { "initial" => Initial, "never" => Never, }
    Otherwise { "skip" => Skip, "default" => Default, }
    MaskForm { "sha256" => Sha256, "redact" => Redact, }
    Int8Form { "number" => Number, "string" => String, }
    NumericForm { "string" => String, "number" => Number, }
    ByteaForm { "base64" => Base64, "hex" => Hex, }
    ColumnForm { "number" => Number, "string" => String, "base64" => Base64, "hex" => Hex, }
    LogFormat { "text" => Text, "json" => Json, }
}

//! What a domain table is told.

use std::fmt;

use crate::{
    event::TopicTemplate,
    value::{ColumnForm, Options},
};

/// The longest name that PostgreSQL has, in bytes (`NAMEDATALEN` less its zero byte).
const NAME_BYTES_MAX: usize = 63;

/// A `[[table]]` section.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Which tables it is about.
    pub name: TablePattern,
    /// Where their events go.
    pub topic: TopicTemplate,
    /// The columns of the record's key; none where it is the table's own key.
    pub key: Option<Vec<String>>,
    /// What an event's `data` is.
    pub data: DataForm,
    /// Whether a null record follows a delete.
    pub tombstone: bool,
    /// How values of some types are written.
    pub types: Options,
    /// How values of some columns are written.
    pub column_types: Vec<(String, ColumnForm)>,
    /// Columns that no event shows.
    pub excluded: Vec<String>,
    /// Columns that events show in another form.
    pub masks: Vec<(String, Mask)>,
    /// What a change becomes, in the order of the file.
    pub rules: Vec<RuleSettings>,
    /// What a change becomes that no rule matches.
    pub otherwise: Otherwise,
    /// Whether the rows that it has come first.
    pub snapshot: SnapshotMode,
}

/// A table, or a pattern for several.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TablePattern {
    /// The schema, as the catalog has it.
    pub schema: String,
    /// The table's name, as the catalog has it; `*` stands for any characters.
    pub table: String,
}

/// A text names no tables.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PatternError {
    /// There is no dot, or nothing on one side of it.
    #[error("is no schema and table, as in public.orders or public.*")]
    NoSchema,
    /// The schema has a star.
    #[error("may have a star in the table's name only: name each schema in a section of its own")]
    SchemaPattern,
    /// No schema or no table can be called so.
    #[error("has a name that no table has: PostgreSQL's are 63 bytes at most, none of them zero")]
    Name,
}

impl TablePattern {
    /// Reads `schema.table` or `schema.pattern`.
    ///
    /// # Errors
    /// Where it is neither.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let (schema, table) = text.split_once('.').ok_or(PatternError::NoSchema)?;
        if schema.is_empty() || table.is_empty() {
            return Err(PatternError::NoSchema);
        }
        if schema.contains('*') {
            return Err(PatternError::SchemaPattern);
        }
        // A star may stand for nothing.
        let is_long =
            |name: &str| name.bytes().filter(|byte| *byte != b'*').count() > NAME_BYTES_MAX;
        if is_long(schema) || is_long(table) || text.contains('\0') {
            return Err(PatternError::Name);
        }
        Ok(Self { schema: schema.to_owned(), table: table.to_owned() })
    }

    /// The one table that it names, where it is no pattern.
    pub fn exact(&self) -> Option<(&str, &str)> {
        (!self.table.contains('*')).then_some((&*self.schema, &*self.table))
    }

    /// Whether it is about that table.
    pub fn matches(&self, schema: &str, table: &str) -> bool {
        let mut pieces = self.table.split('*');
        let Some(mut rest) = pieces.next().and_then(|first| table.strip_prefix(first)) else {
            return false;
        };
        let mut pieces: Vec<&str> = pieces.collect();
        let is_whole = match pieces.pop() {
            None => rest.is_empty(),
            Some(last) => {
                for piece in pieces {
                    let Some((_, behind)) = rest.split_once(piece) else { return false };
                    rest = behind;
                }
                rest.ends_with(last)
            }
        };
        is_whole && self.schema == schema
    }

    /// Whether it is about each table that `other` is about: a star of `other` is then an ordinary
    /// character, which nothing but a star takes.
    pub fn covers(&self, other: &Self) -> bool {
        self.matches(&other.schema, &other.table)
    }
}

impl fmt::Display for TablePattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.schema, self.table)
    }
}

/// What an event's `data` is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DataForm {
    /// The row.
    #[default]
    Row,
    /// `{before, after, changed}`.
    Change,
}

/// Whether the rows that a table has are published when it is taken on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SnapshotMode {
    /// They are, each as a row that was there.
    #[default]
    Initial,
    /// They are not, unless somebody asks for them.
    Never,
}

/// What a value is replaced by. NULL stays null.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mask {
    /// The hexadecimal SHA-256 of salt and text: equal values stay equal.
    Sha256(Salt),
    /// `"***"`.
    Redact,
}

/// The setting `mask_salt`: whoever knows it can try values out.
#[derive(Clone, PartialEq, Eq)]
pub struct Salt(String);

impl Salt {
    /// A salt.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Its text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

/// What a change becomes that no rule matches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Otherwise {
    /// Nothing.
    Skip,
    /// The event that it would be without rules.
    #[default]
    Default,
}

/// A `[[table.event]]` section. Its expressions are CEL, as they were written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleSettings {
    /// The event's type.
    pub event_type: String,
    /// Which changes become it; each one where nothing is said.
    pub when: Option<String>,
    /// The envelope's version.
    pub version: Option<String>,
    /// The members of `data`, in the order of the file; the table's own `data` where nothing is said.
    pub data: Option<Vec<(String, String)>>,
    /// Where it goes instead of where the table's events go.
    pub topic: Option<TopicTemplate>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_of_the_tables_name() {
        for (pattern, matching, other) in [
            ("public.orders", "orders", "orders2"),
            ("public.*", "", "-"),
            ("public.order*", "order", "reorder"),
            ("public.*_log", "a_log", "a_logs"),
            ("public.a*b*c", "axbyc", "axc"),
            ("public.a*a", "aa", "a"),
        ] {
            let pattern = TablePattern::parse(pattern).expect(pattern);
            assert!(pattern.matches("public", matching), "{pattern} {matching}");
            assert!(!pattern.matches("sales", matching), "{pattern}");
            assert!(other == "-" || !pattern.matches("public", other), "{pattern} {other}");
        }
    }

    #[test]
    fn a_pattern_covers_what_matches_nothing_else() {
        for (pattern, other, covers) in [
            ("public.*", "public.order*", true),
            ("public.*", "public.*", true),
            ("public.*_*", "public.*_log_*", true),
            ("public.order*", "public.*", false),
            ("public.order*", "sales.order*", false),
            ("public.a*a", "public.a*", false),
            ("public.orders", "public.order*", false),
        ] {
            let [pattern, other] =
                [pattern, other].map(|text| TablePattern::parse(text).expect(text));
            assert_eq!(pattern.covers(&other), covers, "{pattern} {other}");
        }
    }

    #[test]
    fn what_names_no_tables_is_refused() {
        for (text, expected) in [
            ("orders", PatternError::NoSchema),
            (".orders", PatternError::NoSchema),
            ("public.", PatternError::NoSchema),
            ("*.orders", PatternError::SchemaPattern),
            ("public.a\0", PatternError::Name),
            (&format!("public.{}*", "o".repeat(64)), PatternError::Name),
        ] {
            assert_eq!(TablePattern::parse(text), Err(expected), "{text}");
        }
    }
}

//! Settings that the text of a value or of a statement depends on, as somebody may have set them.

use super::postgres::Session;

/// Their names, what somebody says, and what our sessions pin them to.
pub const FORMS: [(&str, &str, &str); 10] = [
    ("datestyle", "German, DMY", "ISO, MDY"),
    ("intervalstyle", "sql_standard", "iso_8601"),
    ("extra_float_digits", "-3", "3"),
    ("timezone", "Asia/Tokyo", "UTC"),
    ("bytea_output", "escape", "hex"),
    // The one locale beside C that every server has: what matters is that it is not asked for.
    ("lc_monetary", "POSIX", "C"),
    ("quote_all_identifiers", "on", "off"),
    ("client_encoding", "LATIN1", "UTF8"),
    ("standard_conforming_strings", "off", "on"),
    ("array_nulls", "off", "on"),
];

/// Says them for whoever connects to the database `shop` from here on, and for the role `postgres`.
pub fn say(session: &Session) {
    for (name, value, _) in FORMS {
        session.run(&format!("ALTER DATABASE shop SET {name} = '{value}'"));
        session.run(&format!("ALTER ROLE postgres SET {name} = '{value}'"));
    }
}

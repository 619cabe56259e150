//! `schemas/config.schema.json`.

use serde_json::{Value as Json, json};

use super::{file::File, section::Read};

/// The JSON Schema of the settings file, 2020-12.
pub fn json_schema() -> Json {
    let mut schema = File::schema();
    if let Some(members) = schema.as_object_mut() {
        members.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        members.insert("title".to_owned(), json!("Tailwater's settings"));
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/config.schema.json");

    /// Written anew with TAILWATER_WRITE_SCHEMAS=1.
    #[test]
    fn the_published_schema_is_that_of_the_types() {
        let expected = format!("{:#}\n", json_schema());
        if std::env::var_os("TAILWATER_WRITE_SCHEMAS").is_some() {
            std::fs::write(PATH, &expected).expect("write the schema");
        }
        let published = std::fs::read_to_string(PATH).expect("the schema");
        assert!(published == expected, "run this test with TAILWATER_WRITE_SCHEMAS=1");
    }
}

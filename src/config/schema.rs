//! `schemas/config.schema.json`.

use serde_json::{Value as Json, json};

use super::{file::File, section::Read};

/// The JSON Schema of the settings file, 2020-12.
pub fn json_schema() -> Json {
    let mut schema = File::schema();
    if let Some(members) = schema.as_object_mut() {
        members.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        members.insert(
            "anyOf".to_owned(),
            json!([
                { "required": ["outbox"] },
                { "required": ["message"] },
                { "required": ["table"] },
            ]),
        );
        members.insert("title".to_owned(), json!("Tailwater's settings"));
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/config.schema.json");
    const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");

    /// README's table: a row for each key.
    fn table() -> String {
        let mut rows = String::from("| key | default | |\n|---|---|---|\n");
        add_rows("", &json_schema(), &mut rows);
        rows
    }

    fn add_rows(path: &str, section: &Json, rows: &mut String) {
        for (name, schema) in section["properties"].as_object().expect("an object") {
            let items = &schema["items"];
            let (key, inner) =
                match (path.trim_matches(['[', ']']), items["properties"].is_object()) {
                    ("", true) => (format!("[[{name}]]"), items),
                    (outer, true) => (format!("[[{outer}.{name}]]"), items),
                    ("", false) => (name.clone(), schema),
                    (_, false) => (format!("{path}.{name}"), schema),
                };
            if inner["properties"].is_object() {
                add_rows(&key, inner, rows);
                continue;
            }
            let required =
                section["required"].as_array().is_some_and(|all| all.contains(&json!(name)));
            let default = match (&schema["default"], required) {
                (Json::Null, true) => "required".to_owned(),
                (Json::Null, false) => "–".to_owned(),
                (default, _) => format!("`{default}`"),
            };
            let about = schema["description"].as_str().expect("a description").replace('|', "\\|");
            rows.push_str(&format!("| `{}` | {default} | {about} |\n", key.replace("]].", "]] ")));
        }
    }

    #[test]
    fn the_table_of_the_readme_is_that_of_the_types() {
        let readme = std::fs::read_to_string(README).expect("README.md");
        let (before, rest) = readme.split_once("<!-- settings -->\n").expect("a mark");
        let (found, after) = rest.split_once("<!-- /settings -->").expect("a mark");
        if std::env::var_os("TAILWATER_WRITE_SCHEMAS").is_some() {
            let text = format!("{before}<!-- settings -->\n{}<!-- /settings -->{after}", table());
            std::fs::write(README, text).expect("write README.md");
        } else {
            assert!(found == table(), "run this test with TAILWATER_WRITE_SCHEMAS=1");
        }
    }

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

//! Texts of arrays, composites and the like, as their input functions take them. Everything is
//! quoted, needed or not, so that nothing here knows when it is.

/// A value within another one; none for NULL.
pub type Nullable = Option<String>;

/// One row of an array, or an array of arrays.
pub fn array(elements: &[Nullable], delimiter: char) -> String {
    let element = |element: &Nullable| match element {
        None => "NULL".to_owned(),
        Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
    };
    join("{", elements.iter().map(element), delimiter, "}")
}

/// Arrays as the elements of one, which have no quotes.
pub fn array_of_arrays(elements: &[String], delimiter: char) -> String {
    join("{", elements.iter().cloned(), delimiter, "}")
}

/// A composite.
pub fn composite(fields: &[Nullable]) -> String {
    join("(", fields.iter().map(bound), ',', ")")
}

/// A range.
pub fn range(opening: char, lower: &Nullable, upper: &Nullable, closing: char) -> String {
    format!("{opening}{},{}{closing}", bound(lower), bound(upper))
}

/// A field or a bound, where nothing at all is NULL.
fn bound(value: &Nullable) -> String {
    value.as_ref().map_or(String::new(), |text| {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\"\""))
    })
}

/// An hstore.
pub fn hstore<'a>(pairs: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let pair = |(key, value): (&str, Option<&str>)| {
        format!("{}=>{}", quoted(key), value.map_or("NULL".to_owned(), quoted))
    };
    join("", pairs.into_iter().map(pair), ',', "")
}

/// A text as SQL has it.
pub fn sql(value: &Nullable) -> String {
    value.as_ref().map_or("NULL".to_owned(), |text| format!("'{}'", text.replace('\'', "''")))
}

fn join(
    opening: &str,
    parts: impl Iterator<Item = String>,
    delimiter: char,
    closing: &str,
) -> String {
    let parts = parts.collect::<Vec<_>>().join(&delimiter.to_string());
    format!("{opening}{parts}{closing}")
}

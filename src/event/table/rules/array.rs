//! The text of an array, as `array_out` writes it.

use std::borrow::Cow;

/// How deep arrays are nested at most (C name `MAXDIM`).
const DIMENSIONS_MAX: usize = 6;

/// What stands between two marks of an array.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Item<'a> {
    Null,
    /// An element's own text.
    Text(Cow<'a, str>),
    /// An inner dimension.
    List(Vec<Item<'a>>),
}

impl Item<'_> {
    /// The same, with texts of its own.
    pub(super) fn into_owned(self) -> Item<'static> {
        match self {
            Self::Null => Item::Null,
            Self::Text(text) => Item::Text(Cow::Owned(text.into_owned())),
            Self::List(items) => Item::List(items.into_iter().map(Self::into_owned).collect()),
        }
    }
}

/// Reads an array's items; `None` where the text is none. Bounds other than 1 are skipped: CEL's
/// lists begin at 0.
pub(super) fn parse(text: &str, delimiter: u8) -> Option<Vec<Item<'_>>> {
    let text = match text.strip_prefix('[') {
        Some(bounds) => bounds.split_once('=')?.1,
        None => text,
    };
    let mut reader = Reader { text, position: 0, delimiter };
    let items = reader.list(DIMENSIONS_MAX)?;
    (reader.position == text.len()).then_some(items)
}

struct Reader<'a> {
    text: &'a str,
    position: usize,
    delimiter: u8,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.position).copied()
    }

    fn skip(&mut self, mark: u8) -> Option<()> {
        (self.peek()? == mark).then(|| self.position += 1)
    }

    fn list(&mut self, dimensions: usize) -> Option<Vec<Item<'a>>> {
        let dimensions = dimensions.checked_sub(1)?;
        self.skip(b'{')?;
        let mut items = Vec::new();
        if self.peek()? == b'}' {
            self.position += 1;
            return Some(items);
        }
        loop {
            items.push(match self.peek()? {
                b'{' => Item::List(self.list(dimensions)?),
                b'"' => Item::Text(self.quoted()?),
                _ => self.unquoted()?,
            });
            match self.peek()? {
                b'}' => {
                    self.position += 1;
                    return Some(items);
                }
                _ => self.skip(self.delimiter)?,
            }
        }
    }

    fn unquoted(&mut self) -> Option<Item<'a>> {
        let rest = self.text.get(self.position..)?;
        let length = rest.bytes().position(|byte| byte == b'}' || byte == self.delimiter)?;
        self.position += length;
        Some(match rest.get(..length)? {
            "NULL" => Item::Null,
            text => Item::Text(Cow::Borrowed(text)),
        })
    }

    fn quoted(&mut self) -> Option<Cow<'a, str>> {
        self.skip(b'"')?;
        let rest = self.text.get(self.position..)?;
        let mark = rest.find(['"', '\\'])?;
        let plain = rest.get(..mark)?;
        if rest.as_bytes().get(mark) == Some(&b'"') {
            self.position += mark + 1;
            return Some(Cow::Borrowed(plain));
        }
        let mut text = plain.to_owned();
        let mut characters = rest.get(mark..)?.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.position += mark + at + 1;
                    return Some(Cow::Owned(text));
                }
                '\\' => text.push(characters.next()?.1),
                _ => text.push(character),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Item<'_> {
        Item::Text(text.into())
    }

    #[test]
    fn items_are_read_with_quotes_nulls_and_dimensions() {
        for (array, items) in [
            ("{}", vec![]),
            ("{1,NULL,3}", vec![text("1"), Item::Null, text("3")]),
            (r#"{"NULL","","a\"b\\c","é,}{"}"#, ["NULL", "", "a\"b\\c", "é,}{"].map(text).to_vec()),
            ("[0:1]={5,6}", ["5", "6"].map(text).to_vec()),
            ("[1:1][-2:-1]={{1,2}}", vec![Item::List(["1", "2"].map(text).to_vec())]),
            (
                "{{1,2},{3,NULL}}",
                vec![
                    Item::List(["1", "2"].map(text).to_vec()),
                    Item::List(vec![text("3"), Item::Null]),
                ],
            ),
        ] {
            assert_eq!(parse(array, b','), Some(items), "{array}");
        }
        assert_eq!(parse("{(1,1),(0,0);(2,2),(1,1)}", b';').map(|items| items.len()), Some(2));
    }

    #[test]
    fn other_texts_are_no_arrays() {
        for text in [
            "", "1", "{", "{1", "{1,", "{\"", "{\"a", "{\"a\\", "{\"a\"b}", "{1}}", "{1}2",
            "[0:1]{1}",
        ] {
            assert_eq!(parse(text, b','), None, "{text}");
        }
        assert_eq!(parse(&"{".repeat(100_000), b','), None);
    }
}

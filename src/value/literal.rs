//! What the texts of arrays, composites and hstore are made of: marks, words and quoted texts.

use super::form::Malformed;

/// A walk over such a text.
#[derive(Debug)]
pub(super) struct Literal<'a> {
    rest: &'a [u8],
}

/// A part of such a text.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part<'a> {
    /// Without quotes: it stands for itself, or is a word such as NULL. May be empty.
    Bare(&'a [u8]),
    /// What stands between quotes.
    Quoted {
        /// As it is written.
        content: &'a [u8],
        /// It is not yet the text that it stands for.
        has_escapes: bool,
    },
}

impl<'a> Literal<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Passes over this mark, where it comes next.
    pub(super) fn take(&mut self, mark: &[u8]) -> bool {
        let behind = self.rest.strip_prefix(mark);
        self.rest = behind.unwrap_or(self.rest);
        behind.is_some()
    }

    /// The next part, up to one of these two marks where it is not quoted.
    pub(super) fn part(&mut self, marks: [u8; 2]) -> Result<Part<'a>, Malformed> {
        if self.take(b"\"") {
            return self.quoted();
        }
        let end = self.rest.iter().position(|byte| marks.contains(byte));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        Ok(Part::Bare(word))
    }

    /// What comes up to the closing quote. A composite doubles a quote that belongs to the text, the
    /// others put a backslash before it; none of them goes on with a quote behind a closing one.
    fn quoted(&mut self) -> Result<Part<'a>, Malformed> {
        let (mut length, mut has_escapes) = (0, false);
        loop {
            let ahead = self.rest.get(length..).unwrap_or_default();
            let plain = ahead.iter().position(|byte| matches!(byte, b'"' | b'\\'));
            length += plain.ok_or(UNCLOSED)?;
            match self.rest.get(length..) {
                Some([b'\\', ..] | [b'"', b'"', ..]) => {
                    has_escapes = true;
                    length += 2;
                }
                _ => break,
            }
        }
        let (content, rest) = self.rest.split_at(length);
        self.rest = rest.get(1..).unwrap_or_default();
        Ok(Part::Quoted { content, has_escapes })
    }
}

const UNCLOSED: Malformed = Malformed::not("a text with its closing quote");

impl<'a> Part<'a> {
    /// The text that it stands for. `scratch` holds it where it had to be made.
    pub(super) fn text<'s>(self, scratch: &'s mut Vec<u8>) -> &'s [u8]
    where
        'a: 's,
    {
        match self {
            Self::Bare(text) | Self::Quoted { content: text, has_escapes: false } => text,
            Self::Quoted { content, has_escapes: true } => {
                scratch.clear();
                let mut bytes = content.iter();
                while let Some(byte) = bytes.next() {
                    // A backslash, or the first one of two quotes.
                    let is_escape = matches!(byte, b'"' | b'\\');
                    scratch.extend(if is_escape { bytes.next() } else { Some(byte) });
                }
                scratch
            }
        }
    }
}

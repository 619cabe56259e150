//! Where in an expression something stands.

use std::fmt;

/// A place in an expression's text. Both count from 1; a column is a character.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The character of the line.
    pub column: u32,
}

impl Place {
    /// Where a text begins.
    pub(super) const START: Self = Self { line: 1, column: 1 };

    /// The place of the byte at `offset`; of one behind the text: its end.
    pub(super) fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            line: count(before.matches('\n').count() + 1),
            column: count(before.get(line_start..).map_or(0, |line| line.chars().count()) + 1),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column } = self;
        write!(formatter, "line {line}, column {column}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_a_character_of_its_line() {
        for (text, offset, line, column) in [
            ("", 0, 1, 1),
            ("ab", 1, 1, 2),
            ("'ü' x", 5, 1, 5),
            ("a\n\n b", 4, 3, 2),
            ("ab", 9, 1, 3),
        ] {
            assert_eq!(Place::of(text, offset), Place { line, column }, "{text:?} {offset}");
        }
    }
}

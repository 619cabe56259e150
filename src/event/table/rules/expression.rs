//! An expression's text, parsed by the crate `cel`: the grammar and nothing else of it.
//!
//! What the parser says in words of its grammar is said here in words for who wrote the expression.

use std::thread;

use cel::{
    Env, ParseError, Program,
    common::ast::{EntryExpr, Expr, IdedExpr},
};

use crate::event::table::rules::Place;

/// The longest text, in bytes: many times what a person reads at once.
const TEXT_BYTES_MAX: usize = 8 * 1024;

/// How deep an expression may be nested: far beyond what a person reads, and few enough for every
/// walk over it that goes down by recursion.
const DEPTH_MAX: usize = 64;

/// What the parser gets of stack, in bytes. Its frames for one pair of parentheses take 160 KiB in
/// a build without optimisation, and it gives up at 96 pairs by itself.
const STACK_BYTES: usize = 32 * 1024 * 1024;

/// A CEL expression that can be parsed. Whether it fits a table is for [`Rules::compile`] to say.
///
/// [`Rules::compile`]: super::Rules::compile
#[derive(Debug)]
pub struct Expression {
    text: String,
    program: Program,
}

/// A text is no CEL expression.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ExpressionError {
    /// Where.
    pub place: Place,
    /// What is wrong there.
    pub problem: SyntaxProblem,
}

/// What is wrong with an expression's text.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SyntaxProblem {
    /// Something is missing at the end, or everything.
    #[error("the expression ends too early")]
    EndsEarly,
    /// Something that does not belong there.
    #[error("{text} is not expected here{advice}")]
    Unexpected {
        /// As it stands there, in quotes.
        text: String,
        /// What may have been meant, behind `: `; or nothing.
        advice: &'static str,
    },
    /// A closing bracket or a colon is not there.
    #[error("{text} is missing here")]
    Missing {
        /// What is missing, in quotes.
        text: String,
    },
    /// A string without an end, or with an escape that CEL does not know.
    #[error(
        "the string that begins here is not closed, or holds an escape that is none \
         (\\\\ is a backslash)"
    )]
    String,
    /// A number out of range.
    #[error("the number is out of range")]
    Number,
    /// Too long a text.
    #[error("the expression is longer than {TEXT_BYTES_MAX} bytes")]
    TooLong,
    /// Too deep a text.
    #[error("the expression is nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// In the parser's own words.
    #[error("{detail}")]
    Other {
        /// What it says.
        detail: String,
    },
}

impl Expression {
    /// Parses a text.
    ///
    /// # Errors
    /// The first place from which on it is no CEL.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(at_start(SyntaxProblem::TooLong));
        }
        // The parser's frames are large, and an expression must never end the daemon.
        let parsed = thread::scope(|scope| {
            let parser = thread::Builder::new().stack_size(STACK_BYTES);
            parser.spawn_scoped(scope, || parse(text)).map(|parser| parser.join())
        });
        let detail = match parsed {
            Ok(Ok(parsed)) => return parsed,
            Ok(Err(_)) => "the parser cannot read it".to_owned(),
            Err(error) => format!("could not be parsed: {error}"),
        };
        Err(at_start(SyntaxProblem::Other { detail }))
    }

    /// What it was parsed from.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn root(&self) -> &IdedExpr {
        self.program.expression()
    }

    /// Where the node of that number begins. An operator's node begins at the operator, a selection's
    /// at its dot, a call's at its parenthesis.
    pub(super) fn offset(&self, id: u64) -> usize {
        let offset = self.program.source_info().offset_for(id);
        offset.map_or(0, |(start, _)| usize::try_from(start).unwrap_or(usize::MAX))
    }

    /// The place of the node of that number.
    pub(super) fn place(&self, id: u64) -> Place {
        Place::of(&self.text, self.offset(id))
    }

    /// The place of the name before a call's parenthesis.
    pub(super) fn place_of_name(&self, id: u64, name: &str) -> Place {
        let before = self.text.get(..self.offset(id)).unwrap_or_default().trim_end();
        Place::of(&self.text, before.len().saturating_sub(name.len()))
    }
}

fn at_start(problem: SyntaxProblem) -> ExpressionError {
    ExpressionError { place: Place::START, problem }
}

fn parse(text: &str) -> Result<Expression, ExpressionError> {
    // Macros stay the calls that they are written as: they are checked and carried out as such.
    let environment = Env::default().with_optional_support(false);
    match environment.compile(text) {
        Ok(program) if depth(program.expression(), DEPTH_MAX).is_none() => {
            Err(at_start(SyntaxProblem::TooDeep))
        }
        Ok(program) => Ok(Expression { text: text.to_owned(), program }),
        Err(errors) => {
            let is_syntax = |error: &&ParseError| error.msg.starts_with("Syntax error: ");
            // What follows the first one follows from it.
            let first = errors.errors.iter().find(is_syntax).or(errors.errors.first());
            Err(first.map_or(at_start(SyntaxProblem::EndsEarly), |error| reword(text, error)))
        }
    }
}

/// What is left of `levels` below the node; `None` where they are not enough.
fn depth(node: &IdedExpr, levels: usize) -> Option<usize> {
    let levels = levels.checked_sub(1)?;
    let below = |node: &IdedExpr| depth(node, levels);
    let deepest = match &node.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => levels,
        Expr::Select(select) => below(&select.operand)?,
        Expr::Call(call) => {
            let target = call.target.as_deref();
            minimum(levels, call.args.iter().chain(target).map(below))?
        }
        Expr::List(list) => minimum(levels, list.elements.iter().map(below))?,
        Expr::Map(map) => {
            let entries = map.entries.iter().map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => Some(below(&entry.key)?.min(below(&entry.value)?)),
                EntryExpr::StructField(field) => below(&field.value),
            });
            minimum(levels, entries)?
        }
        // There are no macros and no messages here, so neither is gone down into.
        Expr::Comprehension(_) | Expr::Struct(_) => levels,
    };
    Some(deepest)
}

fn minimum(levels: usize, mut below: impl Iterator<Item = Option<usize>>) -> Option<usize> {
    below.try_fold(levels, |least, level| Some(least.min(level?)))
}

/// How the parser begins to say that it found something else than it could go on with.
const UNEXPECTED: [&str; 4] = [
    "mismatched input ",
    "extraneous input ",
    "no viable alternative at input ",
    "token recognition error at: ",
];

fn reword(text: &str, error: &ParseError) -> ExpressionError {
    let message = error.msg.strip_prefix("Syntax error: ").unwrap_or(&error.msg);
    let problem = match reword_problem(message) {
        // The grammar looks for a name behind a dot before it looks for an end.
        SyntaxProblem::Unexpected { .. } if text.trim_end().ends_with('.') => {
            SyntaxProblem::EndsEarly
        }
        problem => problem,
    };
    let number = |number: isize| u32::try_from(number).unwrap_or(1).max(1);
    let place = match problem {
        SyntaxProblem::EndsEarly => Place::of(text, text.len()),
        SyntaxProblem::TooDeep => Place::START,
        _ => Place { line: number(error.pos.0), column: number(error.pos.1) },
    };
    ExpressionError { place, problem }
}

fn reword_problem(message: &str) -> SyntaxProblem {
    if let Some(found) = UNEXPECTED.iter().find_map(|start| message.strip_prefix(start)) {
        // What the grammar has instead is said by names that nobody knows.
        let found = found.split(" expecting ").next().unwrap_or(found);
        return match found {
            "'<EOF>'" => SyntaxProblem::EndsEarly,
            _ if found.starts_with("''") || found.starts_with("'\"") => SyntaxProblem::String,
            _ => {
                let plain = found.trim_matches(['\'', ' ']);
                SyntaxProblem::Unexpected { text: format!("'{plain}'"), advice: advice(plain) }
            }
        };
    }
    match message.strip_prefix("missing ").and_then(|rest| rest.split(" at ").next()) {
        Some(missing) => SyntaxProblem::Missing { text: missing.to_owned() },
        None if message.contains("ecursion limit") || message == "UNKNOWN" => {
            SyntaxProblem::TooDeep
        }
        None if message.contains("int literal") || message.contains("double literal") => {
            SyntaxProblem::Number
        }
        None if message.contains("string literal") => SyntaxProblem::String,
        None => SyntaxProblem::Other { detail: message.to_owned() },
    }
}

/// What people mean who know other languages.
fn advice(found: &str) -> &'static str {
    match found {
        "&" | "and" | "AND" => ": && is and",
        "|" | "or" | "OR" => ": || is or",
        ">" => ": != is unequal",
        _ if found.starts_with('=') => ": == compares",
        _ if !found.is_ascii() || found.starts_with('.') => {
            ": write new['…'] for a column of such a name"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Expression::parse(text).expect_err(text).to_string()
    }

    #[test]
    fn a_mistake_is_named_with_line_and_column() {
        for (text, refusal) in [
            ("", "line 1, column 1: the expression ends too early"),
            ("new.a ==", "line 1, column 9: the expression ends too early"),
            ("new.a == 1\n  && new.b >\n", "line 3, column 1: the expression ends too early"),
            ("new.a = 1", "line 1, column 7: '=' is not expected here: == compares"),
            ("new.a & b", "line 1, column 7: '&' is not expected here: && is and"),
            ("new.a or b", "line 1, column 7: 'or' is not expected here: || is or"),
            ("new.a <> b", "line 1, column 8: '>' is not expected here: != is unequal"),
            ("1 +* 2", "line 1, column 4: '*' is not expected here"),
            ("(1", "line 1, column 3: ')' is missing here"),
            ("{'a' 1}", "line 1, column 6: ':' is missing here"),
            ("'ü' == 9223372036854775808", "line 1, column 8: the number is out of range"),
            ("if", "line 1, column 1: reserved identifier: if"),
            ("new.?a", "line 1, column 4: unsupported syntax '.?'"),
            (
                "new.größe > 1",
                "line 1, column 7: 'ö' is not expected here: write new['…'] for a column of such a \
                 name",
            ),
            (
                "new.in",
                "line 1, column 5: '.in' is not expected here: write new['…'] for a column of such \
                 a name",
            ),
        ] {
            assert_eq!(refused(text), refusal, "{text}");
        }
    }

    #[test]
    fn a_string_without_an_end_is_named_where_it_begins() {
        for text in ["new.a == 'x", "new.a == \"x", "new.a == '\\q'", "new.a == '\\ud800'"] {
            let error = Expression::parse(text).expect_err(text);
            assert_eq!(error.problem, SyntaxProblem::String, "{text}");
            assert_eq!(error.place, Place { line: 1, column: 10 }, "{text}");
        }
    }

    #[test]
    fn too_long_and_too_deep_texts_are_refused_without_a_crash() {
        let long = format!("'{}'", "a".repeat(TEXT_BYTES_MAX));
        assert_eq!(Expression::parse(&long).expect_err("long").problem, SyntaxProblem::TooLong);
        for times in [200, 1_600] {
            for text in [
                format!("{}1{}", "(".repeat(times), ")".repeat(times)),
                format!("{}{}", "[".repeat(times), "]".repeat(times)),
                format!("a{}", ".b".repeat(times)),
                format!("{}1", "1?1:".repeat(times)),
                vec!["1"; times].join(" + "),
                format!("{}1{}", "f(".repeat(times), ")".repeat(times)),
                format!("{}1{}", "{1: ".repeat(times), "}".repeat(times)),
            ] {
                let error = Expression::parse(&text).expect_err("deep");
                assert_eq!(error.problem, SyntaxProblem::TooDeep, "{times} {:.6}", text);
            }
        }
        let wide = vec!["new.a == 1"; 400].join(" || ");
        Expression::parse(&wide).expect("wide, not deep");
    }

    #[test]
    fn random_texts_never_crash_the_parser() {
        let mut random = fastrand::Rng::with_seed(17);
        let pieces = [
            "new", ".", "old", "a", "(", ")", "[", "]", "{", "}", "'x'", "'", "\"", "1", "2.5",
            "==", "&&", "||", "!", "-", "?", ":", ",", " ", "\n", "ü", "\\", "in", "has", "all",
            "`", "//", "0x", "u", "b'", "r'", "😀", "@", "null",
        ];
        for _ in 0..500 {
            let text: String =
                (0..random.usize(0..12)).filter_map(|_| random.choice(pieces)).collect();
            if let Err(error) = Expression::parse(&text) {
                assert_ne!(error.problem.to_string(), "the parser cannot read it", "{text}");
            }
        }
    }
}

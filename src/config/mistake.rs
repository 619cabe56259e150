//! What is wrong with a settings file, and where.

use std::fmt;

use crate::failure::{Code, Failure, Recovery};

/// Where a setting was given.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Origin {
    /// In the file, in this line, counted from 1.
    Line(usize),
    /// In this environment variable.
    Environment(String),
    /// Nowhere: it is a default, or it is missing.
    Nowhere,
}

/// One mistake.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Mistake {
    /// Where it is.
    pub origin: Origin,
    /// The setting, as `kafka.brokers`; empty for a mistake of the file's form.
    pub key: String,
    /// What is wrong and what is expected. Never the value of a secret.
    pub problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Line(line) => write!(formatter, "line {line}: ")?,
            Origin::Environment(name) => write!(formatter, "environment variable {name}: ")?,
            Origin::Nowhere => {}
        }
        match self.key.as_str() {
            "" => formatter.write_str(&self.problem),
            key => write!(formatter, "{key} {}", self.problem),
        }
    }
}

/// Gathers mistakes while a file is read.
#[derive(Default, Debug)]
pub(super) struct Mistakes(Vec<Mistake>);

impl Mistakes {
    pub(super) fn add(&mut self, origin: &Origin, key: &str, problem: impl Into<String>) {
        let (origin, key) = (origin.clone(), key.to_owned());
        self.0.push(Mistake { origin, key, problem: problem.into() });
    }

    /// All of them, in the order of the file; what is missing comes last.
    pub(super) fn into_sorted(mut self) -> Vec<Mistake> {
        self.0.sort();
        self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The settings cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SettingsError {
    /// The file.
    pub path: String,
    /// At least one.
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for SettingsError {
    /// One line: the mistakes themselves are printed before it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, mistakes } = self;
        match mistakes.as_slice() {
            [only] => write!(formatter, "settings file \"{path}\" has a mistake: {only}"),
            more => write!(formatter, "settings file \"{path}\" has {} mistakes", more.len()),
        }
    }
}

impl std::error::Error for SettingsError {}

impl Failure for SettingsError {
    fn code(&self) -> Option<Code> {
        Some(Code::Settings)
    }

    fn recovery(&self) -> Recovery {
        Recovery::Stop
    }

    fn hint(&self) -> Option<String> {
        Some(
            "Mend what is listed above. README.md lists all settings; an editor that knows \
             schemas/config.schema.json checks them as you type."
                .to_owned(),
        )
    }
}

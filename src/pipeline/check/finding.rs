//! One line of a doctor's report.

use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use crate::{
    failure::{Code, Failure},
    pipeline::chain,
};

/// How it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// As it should be.
    Fine,
    /// As it may be; something to know of.
    Note,
    /// To be mended. With the code that `run` would stop with, where it would.
    Wrong(Option<Code>),
}

/// What was looked at, how it is, and what mends it. As JSON `{"ok", "name", "detail", "fix"}`: an
/// interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// How it is.
    pub verdict: Verdict,
    /// What was looked at.
    pub name: &'static str,
    /// What was found; ends with `code=<word>` where there is a code.
    pub detail: String,
    /// The SQL, command or setting that mends it, on one line.
    pub fix: Option<String>,
}

impl Finding {
    /// As it should be.
    pub(super) fn fine(name: &'static str, detail: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fine, name, detail: one_line(&detail.into()), fix: None }
    }

    /// As it may be.
    pub(super) fn note(name: &'static str, detail: impl Into<String>) -> Self {
        Self { verdict: Verdict::Note, ..Self::fine(name, detail) }
    }

    /// To be mended.
    pub(super) fn wrong(
        name: &'static str,
        code: Option<Code>,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        let word = code.map_or(String::new(), |code| format!(" code={code}"));
        Self {
            verdict: Verdict::Wrong(code),
            name,
            detail: format!("{}{word}", one_line(&detail.into())),
            fix: Some(one_line(&fix.into())),
        }
    }

    /// What `run` would stop with, mended by `fix`.
    pub(super) fn refused(
        name: &'static str,
        failure: &dyn Failure,
        fix: impl Into<String>,
    ) -> Self {
        Self::wrong(name, failure.code(), chain(failure), fix)
    }

    /// What `run` would stop with or try again for, with the failure's own words for what to do.
    pub(super) fn of(name: &'static str, failure: &dyn Failure) -> Self {
        let hint = failure.hint();
        Self::refused(
            name,
            failure,
            hint.unwrap_or_else(|| "Run tailwater check again.".to_owned()),
        )
    }

    /// Nothing to be mended.
    pub fn is_ok(&self) -> bool {
        match self.verdict {
            Verdict::Fine | Verdict::Note => true,
            Verdict::Wrong(_) => false,
        }
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Finding", 4)?;
        object.serialize_field("ok", &self.is_ok())?;
        object.serialize_field("name", self.name)?;
        object.serialize_field("detail", &self.detail)?;
        object.serialize_field("fix", &self.fix)?;
        object.end()
    }
}

/// Servers' messages may have several lines.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_four_fields_of_json() {
        let wrong = Finding::wrong("slot", Some(Code::SlotMissing), "it is\n  gone", "DO IT;");
        assert_eq!(
            serde_json::to_string(&[wrong, Finding::note("kafka", "soon")]).expect("JSON"),
            "[{\"ok\":false,\"name\":\"slot\",\"detail\":\"it is gone code=slot_missing\",\
             \"fix\":\"DO IT;\"},{\"ok\":true,\"name\":\"kafka\",\"detail\":\"soon\",\
             \"fix\":null}]"
        );
    }
}

//! A timeline's history: where each of its ancestors ended.

use crate::{lsn::Lsn, postgres::error::PostgresError};

/// The ancestors of the server's timeline, as `TIMELINE_HISTORY` has them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimelineHistory {
    ancestors: Vec<(u32, Lsn)>,
}

impl TimelineHistory {
    /// Reads a history file: a line an ancestor, `timeline │ switch point │ reason`, split by tabs;
    /// `#` begins a comment (C: `readTimeLineHistory`).
    ///
    /// # Errors
    /// Where a line is of another form.
    pub fn parse(content: &str) -> Result<Self, PostgresError> {
        let lines = content.lines().map(str::trim);
        let ancestors = lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| {
                let mut fields = line.split_whitespace();
                let timeline = fields.next().and_then(|field| field.parse().ok());
                let switch_point = fields.next().and_then(|field| field.parse().ok());
                timeline.zip(switch_point).ok_or_else(|| PostgresError::Protocol {
                    what: format!("the timeline history has a line \"{line}\""),
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { ancestors })
    }

    /// Where the server's history left `timeline`; none where it never was on it.
    pub fn switch_point(&self, timeline: u32) -> Option<Lsn> {
        let ancestor = self.ancestors.iter().find(|(ancestor, _)| *ancestor == timeline);
        ancestor.map(|(_, switch_point)| *switch_point)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switch_points_are_found_by_timeline() {
        let content = "1\t0/3000148\tno recovery target specified\n\n# comment\n2\t0/5000060\tx\n";
        let history = TimelineHistory::parse(content).expect("well formed");
        assert_eq!(history.switch_point(1).expect("an ancestor").to_string(), "0/3000148");
        assert_eq!(history.switch_point(2).expect("an ancestor").to_string(), "0/5000060");
        assert_eq!(history.switch_point(3), None);
    }

    #[test]
    fn a_history_without_ancestors_is_one() {
        for content in ["", "\n", "# only a comment\n"] {
            let history = TimelineHistory::parse(content).expect("well formed");
            assert_eq!(history.switch_point(1), None);
        }
    }

    #[test]
    fn a_reason_may_hold_anything() {
        let history = TimelineHistory::parse("1\t0/10\tbefore 2\t0/99 # or so\r\n");
        let history = history.expect("well formed");
        assert_eq!(history.switch_point(1).expect("an ancestor").to_string(), "0/10");
        assert_eq!(history.switch_point(2), None);
    }

    #[test]
    fn a_line_of_another_form_is_refused() {
        for content in ["one\t0/1", "1", "1\tnowhere", "1\t0/0\tx", "-1\t0/1\tx", "1\t0/1\tx\n2"] {
            let error = TimelineHistory::parse(content).expect_err("another form");
            assert!(error.to_string().contains("the timeline history has a line"), "{error}");
        }
    }
}

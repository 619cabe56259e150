//! Routes: events that go to another topic than their origin says, by their types.

use crate::event::TypeTemplate;

/// Where events of some types go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// Which types.
    pub event_type: TypeGlob,
    /// Where they go.
    pub topic: TypeTemplate,
}

/// A pattern for types: `*` stands for any characters, dots too, and `?` for one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TypeGlob(String);

/// A text is no pattern for types.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("knows * for any characters and ? for one, not {mark:?}")]
pub struct GlobError {
    /// The mark that other patterns know.
    pub mark: char,
}

impl TypeGlob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// Where it has a mark that means something elsewhere, and would match nothing here.
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        match text.chars().find(|character| matches!(character, '[' | ']' | '{' | '}' | '\\')) {
            Some(mark) => Err(GlobError { mark }),
            None => Ok(Self(text.to_owned())),
        }
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it matches every type.
    pub fn is_any(&self) -> bool {
        self.0 == "*"
    }

    /// Whether it matches all of that type.
    pub fn matches(&self, event_type: &str) -> bool {
        let (mut pattern, mut text) = (self.0.as_str(), event_type);
        // What follows the last star, and from where on it was tried.
        let mut tried: Option<(&str, &str)> = None;
        loop {
            let (mut marks, mut characters) = (pattern.chars(), text.chars());
            match (marks.next(), characters.next()) {
                (None, None) => return true,
                (Some('*'), _) => {
                    pattern = marks.as_str();
                    tried = Some((pattern, text));
                    continue;
                }
                (Some(mark), Some(character)) if mark == '?' || mark == character => {
                    (pattern, text) = (marks.as_str(), characters.as_str());
                    continue;
                }
                (Some(_) | None, Some(_) | None) => {}
            }
            let Some((behind_star, from)) = tried else { return false };
            let mut later = from.chars();
            if later.next().is_none() {
                return false;
            }
            (pattern, text) = (behind_star, later.as_str());
            tried = Some((pattern, text));
        }
    }
}

/// The first route for events of that type.
pub(super) fn find<'r>(routes: &'r [Route], event_type: &str) -> Option<&'r Route> {
    routes.iter().find(|route| route.event_type.matches(event_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(text: &str) -> TypeGlob {
        TypeGlob::parse(text).expect("a pattern")
    }

    #[test]
    fn stars_stand_for_any_characters_and_question_marks_for_one() {
        for (pattern, matching, other) in [
            ("order.placed", "order.placed", "order.placed.late"),
            ("order.*", "order.line.added", "orders.placed"),
            ("*", "", "-"),
            ("*.failed", "a.failed.failed", "a.failed.not"),
            ("*a*b*c", "xaybzbc", "xaybz"),
            ("order.?", "order.é", "order.éé"),
            ("?", "x", ""),
            ("a*b?d", "abbbcd", "abd"),
        ] {
            assert!(glob(pattern).matches(matching), "{pattern}: {matching}");
            assert!(other == "-" || !glob(pattern).matches(other), "{pattern}: {other}");
        }
    }

    #[test]
    fn marks_of_other_patterns_are_refused() {
        for text in ["order.[ab]", "{a,b}", "a\\*"] {
            assert!(TypeGlob::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_first_route_that_matches_counts() {
        let route = |pattern, topic| Route {
            event_type: glob(pattern),
            topic: TypeTemplate::parse(topic).expect("a template"),
        };
        let routes = [route("order.*", "orders"), route("*.placed", "placed")];
        let topic = |event_type| find(&routes, event_type).and_then(|route| route.topic.literal());
        assert_eq!(topic("order.placed"), Some("orders"));
        assert_eq!(topic("invoice.placed"), Some("placed"));
        assert_eq!(topic("invoice.paid"), None);
    }
}

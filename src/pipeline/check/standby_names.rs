//! Whether `synchronous_standby_names` takes our walsender for a standby: then commits of the
//! application wait until Kafka has them.
//!
//! The list is a priority or a quorum of names, of which `*` stands for all (reference manual,
//! runtime-config-replication). A walsender is known by its `application_name`, whatever its slot.

/// The names that the setting lists, without quotes, in its own folding.
fn names(setting: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = setting.trim_start();
    while let Some(first) = rest.chars().next() {
        let (name, behind) = match first {
            '"' => quoted(&rest[1..]),
            ',' | '(' | ')' => (None, &rest[1..]),
            _ => {
                let end = rest.find([',', '(', ')', ' ', '\t', '\n']).unwrap_or(rest.len());
                let (word, behind) = rest.split_at(end);
                (is_name(word, behind).then(|| word.to_owned()), behind)
            }
        };
        names.extend(name);
        rest = behind.trim_start();
    }
    names
}

/// A name in quotes, of which two stand for one, and what is behind it.
fn quoted(text: &str) -> (Option<String>, &str) {
    let (mut name, mut rest) = (String::new(), text);
    while let Some((part, behind)) = rest.split_once('"') {
        name.push_str(part);
        match behind.strip_prefix('"') {
            Some(behind) => {
                name.push('"');
                rest = behind;
            }
            None => return (Some(name), behind),
        }
    }
    (None, "")
}

/// The words before a parenthesis are the method and the number of standbys.
fn is_name(word: &str, behind: &str) -> bool {
    let is_method = ["first", "any"].contains(&word.to_ascii_lowercase().as_str());
    let is_before_list = behind.contains('(');
    let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
    !(is_before_list && (is_method || is_number))
}

/// Why our walsender counts as a standby.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Match {
    /// Everybody does.
    Everybody,
    /// Its name is listed.
    Name,
}

/// Whether a walsender of that name counts.
pub(super) fn find(setting: &str, application: &str) -> Option<Match> {
    let names = names(setting);
    if names.iter().any(|name| name.eq_ignore_ascii_case(application)) {
        return Some(Match::Name);
    }
    names.iter().any(|name| name == "*").then_some(Match::Everybody)
}

/// The setting with standbys in the place of everybody.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Naming {
    pub(super) value: String,
    /// How many standbys a commit waits for so far, where fewer are connected.
    pub(super) lowered_from: Option<usize>,
}

/// Names the standbys that are connected in the place of everybody. Commits are to wait for no more
/// of them than there are, or each one would hang. None where there are none: then whom to name only
/// the operator knows, and with nobody's name synchronous replication would be off.
pub(super) fn naming(setting: &str, connected: &[String]) -> Option<Naming> {
    if connected.is_empty() {
        return None;
    }
    let mut listed: Vec<String> = Vec::new();
    for name in names(setting) {
        let standbys = if name == "*" { connected } else { std::slice::from_ref(&name) };
        for standby in standbys {
            if !listed.iter().any(|other| other.eq_ignore_ascii_case(standby)) {
                listed.push(standby.clone());
            }
        }
    }
    let listed: Vec<String> =
        listed.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
    let (method, wanted) = method(setting);
    let number = wanted.min(connected.len());
    Some(Naming {
        value: format!("{method} {number} ({})", listed.join(", ")),
        lowered_from: (number < wanted).then_some(wanted),
    })
}

/// The method and the number of standbys before the list; the first one where there is none.
fn method(setting: &str) -> (&'static str, usize) {
    let words = setting.split('(').next().unwrap_or_default();
    let is_quorum = words.trim_start().to_ascii_lowercase().starts_with("any ");
    // A bare list names none, and no name is taken for a number.
    let number = setting.contains('(').then(|| words.split_whitespace().last()?.parse().ok());
    (if is_quorum { "ANY" } else { "FIRST" }, number.flatten().unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_walsender_is_found_in_every_form_of_the_setting() {
        for (setting, expected) in [
            ("", None),
            ("*", Some(Match::Everybody)),
            ("ANY 1 (*)", Some(Match::Everybody)),
            ("2 (a, \"*\")", Some(Match::Everybody)),
            ("tailwater", Some(Match::Name)),
            ("first 1 (s1, Tailwater)", Some(Match::Name)),
            ("FIRST 2 (\"s 1\", \"tailwater\", *)", Some(Match::Name)),
            ("tailwater2, \"tail\"\"water\"", None),
            ("ANY 2 (s1, s2)", None),
        ] {
            assert_eq!(find(setting, "tailwater"), expected, "{setting}");
        }
        assert_eq!(find("first", "first"), Some(Match::Name));
        assert_eq!(find("ANY 1 (a)", "any"), None);
    }

    #[test]
    fn everybody_becomes_the_standbys_that_there_are_and_no_more_are_awaited() {
        let of = |setting: &str, standbys: &[&str]| {
            let standbys: Vec<String> = standbys.iter().map(|name| (*name).to_owned()).collect();
            naming(setting, &standbys).map(|it| (it.value, it.lowered_from))
        };
        for (setting, standbys, value, lowered_from) in [
            ("ANY 1 (*)", &["s1", "s 2"][..], "ANY 1 (\"s1\", \"s 2\")", None),
            ("*", &["s1", "s2"], "FIRST 1 (\"s1\", \"s2\")", None),
            ("any 2 (*)", &["s1"], "ANY 1 (\"s1\")", Some(2)),
            ("3(\"*\")", &["s1", "s\"2"], "FIRST 2 (\"s1\", \"s\"\"2\")", Some(3)),
            ("FIRST 2 (s0, *)", &["s1", "S0"], "FIRST 2 (\"s0\", \"s1\")", None),
            // What is listed and away fills nothing.
            ("FIRST 2 (s0, *)", &["s1"], "FIRST 1 (\"s0\", \"s1\")", Some(2)),
            ("a, *", &["s1"], "FIRST 1 (\"a\", \"s1\")", None),
            // Two of one name count as two.
            ("ANY 2 (*)", &["walreceiver", "walreceiver"], "ANY 2 (\"walreceiver\")", None),
        ] {
            assert_eq!(of(setting, standbys), Some((value.to_owned(), lowered_from)), "{setting}");
        }
        assert_eq!(of("FIRST 1 (*)", &[]), None);
    }
}

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

/// The setting with these standbys in the place of everybody; with none of them, nobody is waited
/// for.
pub(super) fn naming(setting: &str, standbys: &[String]) -> String {
    if standbys.is_empty() {
        return String::new();
    }
    let listed: Vec<String> =
        standbys.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
    setting.replacen("\"*\"", "*", 1).replacen('*', &listed.join(", "), 1)
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
    fn everybody_becomes_the_standbys_that_there_are() {
        let standbys = ["s1".to_owned(), "s 2".to_owned()];
        assert_eq!(naming("ANY 1 (*)", &standbys), "ANY 1 (\"s1\", \"s 2\")");
        assert_eq!(naming("*", &standbys), "\"s1\", \"s 2\"");
        assert_eq!(naming("FIRST 1 (*)", &[]), "");
    }
}

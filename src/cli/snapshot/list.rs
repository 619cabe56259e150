//! The back-fills that there are: those that are not over, and the last ones that are.

use std::fmt::Write as _;

use super::show::{json, waiting};
use crate::pipeline::{SnapshotProgress, SnapshotState};

/// One JSON object a line.
pub(super) fn as_json(all: &[SnapshotProgress]) -> String {
    all.iter().map(|progress| json(progress) + "\n").collect()
}

/// In words, a paragraph each.
pub(super) fn in_words(all: &[SnapshotProgress]) -> String {
    if all.is_empty() {
        return "No rows were asked for or taken on since the daemon began.\n".to_owned();
    }
    let mut words = String::new();
    for progress in all {
        let SnapshotProgress { table, condition, rows, request, requested_at, .. } = progress;
        let of_all = match progress.estimate.filter(|_| progress.state.is_unfinished()) {
            Some(estimate) => format!("{rows} of about {estimate} rows are out"),
            None => format!("{rows} rows are out"),
        };
        let state = match (progress.state, waiting(&progress.waits_for), &progress.failure) {
            (SnapshotState::Due | SnapshotState::Running, Some(waiting), _) => waiting,
            (SnapshotState::Due, None, _) => "waits for its turn".to_owned(),
            (SnapshotState::Running, None, _) => "is under way".to_owned(),
            (SnapshotState::Done, ..) => "is done".to_owned(),
            (SnapshotState::Failed, _, None) => "failed".to_owned(),
            (SnapshotState::Failed, _, Some(reason)) => format!("failed: {reason}"),
        };
        let words = &mut words;
        _ = writeln!(words, "{table} {state}; {of_all}");
        if let Some(condition) = condition {
            _ = writeln!(words, "    where {condition}");
        }
        _ = writeln!(words, "    request {request} of {requested_at}");
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Blocker;

    fn progress(state: SnapshotState, condition: Option<&str>) -> SnapshotProgress {
        SnapshotProgress {
            request: "r".to_owned(),
            table: "public.orders".to_owned(),
            condition: condition.map(str::to_owned),
            state,
            failure: (state == SnapshotState::Failed).then(|| "it has no key".to_owned()),
            rows: 5,
            estimate: Some(100),
            outstanding: 0,
            waits_for: match state {
                SnapshotState::Due => vec![Blocker::Prepared { name: "transfer-7".to_owned() }],
                _ => Vec::new(),
            },
            requested_at: "2026-01-02T03:04:05Z".to_owned(),
            written_at: "2026-01-02T03:04:06Z".to_owned(),
        }
    }

    #[test]
    fn each_one_is_told_with_what_it_came_to() {
        let all = [
            progress(SnapshotState::Running, Some("id > 3")),
            progress(SnapshotState::Due, None),
            progress(SnapshotState::Failed, None),
        ];
        assert_eq!(
            in_words(&all),
            "public.orders is under way; 5 of about 100 rows are out\n    where id > 3\n    request r \
             of 2026-01-02T03:04:05Z\npublic.orders waits for the end of the prepared transaction \
             \"transfer-7\"; 5 of about 100 rows are out\n    request r of \
             2026-01-02T03:04:05Z\npublic.orders failed: it has no key; 5 rows are out\n    request \
             r of 2026-01-02T03:04:05Z\n"
        );
        assert_eq!(as_json(&all).lines().count(), 3);
        assert!(in_words(&[]).starts_with("No rows"));
    }
}

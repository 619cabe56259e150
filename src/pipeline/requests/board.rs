//! How far all back-fills are, as records on Kafka say.

use std::collections::VecDeque;

use super::SnapshotProgress;
use crate::postgres::Blocker;

/// So many that are over are remembered.
const OVER_MAX: usize = 100;

/// So many names of one are remembered: the first one, which was told to whoever asked, and the latest.
const NAMES_MAX: usize = 16;

/// One of them.
#[derive(Debug)]
struct Entry {
    /// The former names, where all rows came again from the first one on.
    former: VecDeque<String>,
    progress: SnapshotProgress,
}

/// All of them, in the order in which they were told of first.
#[derive(Debug, Default)]
pub(super) struct Board {
    entries: VecDeque<Entry>,
}

impl Board {
    /// A loop begins, with these not over. What it does not know of ended without anybody seeing how:
    /// of that nothing is said.
    pub(super) fn begin(&mut self, unfinished: Vec<SnapshotProgress>) {
        self.entries.retain(|Entry { progress, .. }| {
            let is_same =
                |other: &SnapshotProgress| other.is_of(&progress.table, &progress.requested_at);
            !progress.state.is_unfinished() || unfinished.iter().any(is_same)
        });
        self.observe_waiting(None);
        unfinished.into_iter().for_each(|progress| self.tell(progress));
    }

    /// For whom one of a table, asked for then, waits; and that no other one does.
    pub(super) fn observe_waiting(&mut self, waiting: Option<(&str, &str, &[Blocker])>) {
        self.entries.iter_mut().for_each(|entry| entry.progress.waits_for.clear());
        let Some((table, requested_at, waits_for)) = waiting else { return };
        let is_meant = |entry: &&mut Entry| entry.progress.is_of(table, requested_at);
        if let Some(entry) = self.entries.iter_mut().find(is_meant) {
            entry.progress.waits_for = waits_for.to_vec();
        }
    }

    /// How far one of them is by now.
    pub(super) fn tell(&mut self, progress: SnapshotProgress) {
        let is_meant =
            |entry: &&mut Entry| entry.progress.is_of(&progress.table, &progress.requested_at);
        match self.entries.iter_mut().find(is_meant) {
            Some(entry) => {
                if entry.progress.request != progress.request {
                    entry.former.push_back(entry.progress.request.clone());
                    if entry.former.len() > NAMES_MAX {
                        entry.former.remove(1);
                    }
                }
                let waits_for = std::mem::take(&mut entry.progress.waits_for);
                entry.progress = progress;
                // What is on Kafka does not say.
                if entry.progress.state.is_unfinished() {
                    entry.progress.waits_for = waits_for;
                }
            }
            None => self.entries.push_back(Entry { former: VecDeque::new(), progress }),
        }
        self.forget();
    }

    fn forget(&mut self) {
        let is_over = |entry: &Entry| !entry.progress.state.is_unfinished();
        while self.entries.iter().filter(|entry| is_over(entry)).count() > OVER_MAX
            && let Some(oldest) = self.entries.iter().position(is_over)
        {
            self.entries.remove(oldest);
        }
    }

    pub(super) fn all(&self) -> Vec<SnapshotProgress> {
        self.entries.iter().map(|entry| entry.progress.clone()).collect()
    }

    /// By its name, or one that it had.
    pub(super) fn find(&self, request: &str) -> Option<SnapshotProgress> {
        let is_meant = |entry: &&Entry| {
            entry.progress.request == request || entry.former.iter().any(|name| name == request)
        };
        self.entries.iter().find(is_meant).map(|entry| entry.progress.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::SnapshotState;

    fn progress(request: &str, requested_at: &str, state: SnapshotState) -> SnapshotProgress {
        SnapshotProgress {
            request: request.to_owned(),
            table: "public.orders".to_owned(),
            condition: None,
            state,
            failure: None,
            rows: 0,
            estimate: None,
            outstanding: 0,
            waits_for: Vec::new(),
            requested_at: requested_at.to_owned(),
            written_at: requested_at.to_owned(),
        }
    }

    #[test]
    fn one_whose_rows_come_again_is_found_by_each_name() {
        let mut board = Board::default();
        board.tell(progress("a", "1", SnapshotState::Done));
        board.tell(progress("b", "2", SnapshotState::Running));
        for number in 0..50 {
            board.tell(progress(&format!("b{number}"), "2", SnapshotState::Due));
        }
        let latest = board.find("b49").expect("the latest name");
        assert_eq!(board.find("b"), Some(latest.clone()), "the name that was told first");
        assert_eq!(board.find("b48"), Some(latest));
        assert_eq!(board.find("b1"), None, "names are bounded");
        assert_eq!(board.all().len(), 2);
    }

    #[test]
    fn what_a_loop_does_not_go_on_with_is_not_said_to_be_under_way() {
        let mut board = Board::default();
        board.tell(progress("a", "1", SnapshotState::Done));
        board.tell(progress("b", "2", SnapshotState::Running));
        board.tell(progress("c", "3", SnapshotState::Running));
        board.begin(vec![progress("c", "3", SnapshotState::Running)]);
        let names: Vec<_> = board.all().into_iter().map(|progress| progress.request).collect();
        assert_eq!(names, ["a", "c"]);
    }

    #[test]
    fn for_whom_one_waits_is_told_until_it_does_not() {
        let mut board = Board::default();
        board.tell(progress("a", "1", SnapshotState::Due));
        board.tell(progress("b", "2", SnapshotState::Due));
        let somebody = [Blocker::Prepared { name: "somebody".to_owned() }];
        let waits = |board: &Board| -> Vec<bool> {
            board.all().iter().map(|progress| !progress.waits_for.is_empty()).collect()
        };
        board.observe_waiting(Some(("public.orders", "2", &somebody)));
        assert_eq!(waits(&board), [false, true]);
        board.tell(progress("b", "2", SnapshotState::Running));
        assert_eq!(waits(&board), [false, true], "a record does not say for whom");
        board.observe_waiting(Some(("public.orders", "1", &somebody)));
        assert_eq!(waits(&board), [true, false]);
        board.tell(progress("a", "1", SnapshotState::Failed));
        assert_eq!(waits(&board), [false, false], "it is over");
        board.observe_waiting(Some(("public.orders", "2", &somebody)));
        board.observe_waiting(None);
        assert_eq!(waits(&board), [false, false]);
    }

    #[test]
    fn the_oldest_that_are_over_are_forgotten() {
        let mut board = Board::default();
        board.tell(progress("under way", "0", SnapshotState::Running));
        for number in 1..=OVER_MAX + 5 {
            let name = number.to_string();
            board.tell(progress(&name, &name, SnapshotState::Done));
        }
        assert_eq!(board.all().len(), OVER_MAX + 1);
        assert!(board.find("under way").is_some() && board.find("5").is_none());
        assert!(board.find("6").is_some());
    }
}

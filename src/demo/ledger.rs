//! What was committed beside what was published: the demo's book-keeping.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::Summary;

/// Shared by the order service, which commits, and the reader, which sees.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<Book>);

/// All events of a demo by their ids.
#[derive(Debug, Default)]
struct Book {
    events: HashMap<Uuid, Entry>,
    transactions_rolled_back: u64,
    /// How many committed events were not seen yet.
    missing: usize,
}

#[derive(Debug)]
struct Entry {
    fate: Fate,
    first_seen_at: Option<Instant>,
    seen: u64,
}

/// What became of the transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// Its end is not known yet.
    Open,
    /// COMMIT returned at that time.
    Committed(Instant),
    /// It was rolled back.
    RolledBack,
}

/// What seeing an event means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sighting {
    /// Somebody else's event, as on a broker that others use.
    Foreign,
    /// For the first time, so long after its commit. An event that is visible before COMMIT
    /// returned to the application took no time at all.
    First(Duration),
    /// It was seen before.
    Again,
}

impl Ledger {
    /// Events that are about to be inserted.
    pub(super) fn open(&self, ids: &[Uuid]) {
        let mut book = self.book();
        for id in ids {
            book.events.insert(*id, Entry { fate: Fate::Open, first_seen_at: None, seen: 0 });
        }
    }

    /// Their transaction ended.
    pub(super) fn close(&self, ids: &[Uuid], fate: Fate) {
        let mut book = self.book();
        let Book { events, transactions_rolled_back, missing } = &mut *book;
        for id in ids {
            let Some(entry) = events.get_mut(id) else { continue };
            entry.fate = fate;
            *missing += usize::from(matches!(fate, Fate::Committed(_)) && entry.seen == 0);
        }
        *transactions_rolled_back += u64::from(fate == Fate::RolledBack);
    }

    /// An event came out at the other end.
    pub(super) fn see(&self, id: Uuid, at: Instant) -> Sighting {
        let mut book = self.book();
        let Book { events, missing, .. } = &mut *book;
        let Some(entry) = events.get_mut(&id) else { return Sighting::Foreign };
        entry.seen += 1;
        if entry.seen > 1 {
            return Sighting::Again;
        }
        entry.first_seen_at = Some(at);
        match entry.fate {
            Fate::Committed(committed_at) => {
                *missing -= 1;
                Sighting::First(at.saturating_duration_since(committed_at))
            }
            Fate::Open | Fate::RolledBack => Sighting::First(Duration::ZERO),
        }
    }

    /// Whether every committed event was seen.
    pub(super) fn is_complete(&self) -> bool {
        self.book().missing == 0
    }

    /// The result so far.
    pub(super) fn summary(&self) -> Summary {
        let book = self.book();
        let mut summary = Summary {
            transactions_rolled_back: book.transactions_rolled_back,
            ..Summary::default()
        };
        for entry in book.events.values() {
            summary.published += u64::from(entry.seen > 0);
            summary.doubled += u64::from(entry.seen > 1);
            let Fate::Committed(committed_at) = entry.fate else {
                summary.uncommitted += u64::from(entry.seen > 0);
                continue;
            };
            summary.committed += 1;
            match entry.first_seen_at {
                Some(seen_at) => {
                    summary.latencies.push(seen_at.saturating_duration_since(committed_at));
                }
                None => summary.lost += 1,
            }
        }
        summary.latencies.sort_unstable();
        summary
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> [Uuid; 3] {
        [1, 2, 3].map(Uuid::from_u128)
    }

    #[test]
    fn event_that_was_never_seen_is_lost() {
        let (ledger, [first, second, _]) = (Ledger::default(), ids());
        let committed_at = Instant::now();
        ledger.open(&[first, second]);
        ledger.close(&[first, second], Fate::Committed(committed_at));
        let seen_at = committed_at + Duration::from_millis(3);
        assert_eq!(ledger.see(first, seen_at), Sighting::First(Duration::from_millis(3)));
        assert!(!ledger.is_complete());

        let summary = ledger.summary();
        assert_eq!((summary.committed, summary.published, summary.lost), (2, 1, 1));
        assert_eq!(summary.latencies, [Duration::from_millis(3)]);
        assert!(!summary.is_clean());
    }

    #[test]
    fn event_that_was_seen_twice_is_doubled_once() {
        let (ledger, [id, ..]) = (Ledger::default(), ids());
        ledger.open(&[id]);
        ledger.close(&[id], Fate::Committed(Instant::now()));
        ledger.see(id, Instant::now());
        assert!(ledger.summary().is_clean());
        assert_eq!(ledger.see(id, Instant::now()), Sighting::Again);
        assert_eq!(ledger.see(id, Instant::now()), Sighting::Again);
        let summary = ledger.summary();
        assert_eq!((summary.published, summary.doubled), (1, 1));
        assert!(!summary.is_clean());
    }

    #[test]
    fn event_may_be_seen_before_commit_returns() {
        let (ledger, [id, ..]) = (Ledger::default(), ids());
        let seen_at = Instant::now();
        ledger.open(&[id]);
        assert_eq!(ledger.see(id, seen_at), Sighting::First(Duration::ZERO));
        ledger.close(&[id], Fate::Committed(seen_at + Duration::from_millis(1)));
        assert!(ledger.is_complete());
        let summary = ledger.summary();
        assert!(summary.is_clean());
        assert_eq!(summary.latencies, [Duration::ZERO]);
    }

    #[test]
    fn published_event_of_a_rolled_back_transaction_is_not_clean() {
        let (ledger, [id, other, foreign]) = (Ledger::default(), ids());
        ledger.open(&[id, other]);
        ledger.close(&[id, other], Fate::RolledBack);
        assert!(ledger.is_complete() && ledger.summary().is_clean());
        assert_eq!(ledger.see(foreign, Instant::now()), Sighting::Foreign);
        assert!(ledger.summary().is_clean());
        ledger.see(id, Instant::now());
        let summary = ledger.summary();
        assert_eq!((summary.committed, summary.uncommitted), (0, 1));
        assert_eq!(summary.transactions_rolled_back, 1);
        assert!(!summary.is_clean());
    }
}

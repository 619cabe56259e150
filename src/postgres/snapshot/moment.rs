//! What a snapshot shows, and where in the log it was taken.

use crate::{change::Xid, lsn::Lsn};

/// So many new transactions at most are looked at to find out whether any of them has ended: on a
/// server that is busy one has.
const LOOKED_AT_MAX: u64 = 64;

/// Which transactions a snapshot shows (`pg_snapshot`). Each identifier is 64 bits wide.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// All below have ended.
    xmin: u64,
    /// None at or above has ended.
    xmax: u64,
    /// Those between that had not ended, in ascending order; subtransactions are not among them.
    running: Vec<u64>,
}

impl Snapshot {
    /// Reads the text of a `pg_snapshot`: `xmin:xmax:xip,xip`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (xmin, xmax) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let running = match parts.next()? {
            "" => Vec::new(),
            list => list.split(',').map(|one| one.parse().ok()).collect::<Option<_>>()?,
        };
        parts.next().is_none().then_some(Self { xmin, xmax, running })
    }

    /// Whether it shows what a transaction of the stream did. The stream has 32 bits of its
    /// identifier; no two within 2^31 of each other are in use at once.
    pub fn shows(&self, xid: Xid) -> bool {
        let distance = xid.0.wrapping_sub(self.xmax as u32).cast_signed();
        !self.is_running(self.xmax.saturating_add_signed(distance.into()))
    }
}

impl Snapshot {
    /// Whether it shows nothing that an earlier one does not, but for these transactions. False also
    /// where there were too many in between to look at each of them.
    pub(super) fn shows_no_more_than(&self, earlier: &Self, but: &[u64]) -> bool {
        if self.xmax.saturating_sub(earlier.xmax) > LOOKED_AT_MAX {
            return false;
        }
        let mut ended = earlier.running.iter().copied().chain(earlier.xmax..self.xmax);
        ended.all(|xid| self.is_running(xid) || but.contains(&xid))
    }

    fn is_running(&self, xid: u64) -> bool {
        xid >= self.xmin && (xid >= self.xmax || self.running.binary_search(&xid).is_ok())
    }
}

/// The moment of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Moment {
    /// What it shows.
    pub snapshot: Snapshot,
    /// Every transaction that it shows was committed below, but for some of ours that did nothing.
    pub position: Lsn,
    /// The timeline of the position.
    pub timeline: u32,
    /// Another one once table, key or publication were altered.
    pub stamp: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(text: &str) -> Snapshot {
        Snapshot::parse(text).expect(text)
    }

    #[test]
    fn what_is_running_or_later_is_not_shown() {
        let snapshot = snapshot("10:20:10,14");
        for (xid, is_shown) in
            [(9, true), (10, false), (11, true), (14, false), (19, true), (20, false), (21, false)]
        {
            assert_eq!(snapshot.shows(Xid(xid)), is_shown, "{xid}");
        }
    }

    #[test]
    fn identifiers_are_compared_across_their_wrap() {
        // 2^32 is 4294967296.
        let snapshot = snapshot("4294967290:4294967300:4294967295,4294967298");
        for (xid, is_shown) in [
            (4_294_967_289, true),
            (4_294_967_295, false),
            (4_294_967_294, true),
            (2, false),
            (3, true),
            (4, false),
            (5, false),
            (3_000_000_000, true),
            (1_000_000_000, false),
        ] {
            assert_eq!(snapshot.shows(Xid(xid)), is_shown, "{xid}");
        }
    }

    #[test]
    fn a_snapshot_shows_more_once_anybody_else_has_ended() {
        let earlier = snapshot("10:20:10,14");
        let no_more = |text, but: &[u64]| snapshot(text).shows_no_more_than(&earlier, but);
        assert!(no_more("10:20:10,14", &[]));
        assert!(no_more("10:22:10,14,20,21", &[]), "two have begun");
        assert!(!no_more("10:20:10", &[]), "14 has ended");
        assert!(!no_more("14:20:14", &[]), "10 has ended");
        assert!(!no_more("10:22:10,14,20", &[]), "21 came and went");
        assert!(no_more("10:22:10,14,20", &[21]));
        assert!(!no_more("10:200:10,14", &[]), "too many to look at");
    }

    #[test]
    fn other_text_is_no_snapshot() {
        for text in ["", "1:2", "1:2:3:4", "a:2:", "1:2:x"] {
            assert_eq!(Snapshot::parse(text), None, "{text}");
        }
        assert_eq!(snapshot("5:5:").running, Vec::<u64>::new());
    }
}

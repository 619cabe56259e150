//! The flush position. (in work)

use crate::lsn::Lsn;

/// A position up to which everything is durable in Kafka, its checkpoint included. Only
/// [`Tracker`] makes one; a status update's flush field takes nothing else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FlushLsn(Lsn);

impl FlushLsn {
    /// The position, to send it.
    pub fn lsn(self) -> Lsn {
        self.0
    }
}

/// Decides the flush position.
#[derive(Debug)]
pub struct Tracker {}

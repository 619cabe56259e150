//! How far a command that writes a checkpoint by hand has come, for whom a stop cuts it short: once
//! the write began, nobody may be told that nothing was changed.

use std::cell::Cell;

use crate::{
    failure::{Code, Failure, Recovery},
    lsn::EndLsn,
};

/// Where a command stands. Kept outside of what a stop drops.
#[derive(Debug, Default)]
pub(super) struct WritingByHand(Cell<Stage>);

#[derive(Clone, Copy, Debug, Default)]
enum Stage {
    /// Nothing was sent to Kafka.
    #[default]
    Before,
    /// The record is on its way, or the answer is.
    Writing,
    /// The checkpoint is there; the slot may be still to be moved.
    Written(EndLsn),
}

impl WritingByHand {
    /// The record is sent.
    pub(super) fn begin(&self) {
        self.0.set(Stage::Writing);
    }

    /// The record is committed.
    pub(super) fn end(&self, position: EndLsn) {
        self.0.set(Stage::Written(position));
    }

    /// What became of a command that was stopped here.
    ///
    /// # Errors
    /// [`CutShort`] where it wrote, or may have.
    pub(super) fn judge_stop(&self) -> Result<(), CutShort> {
        match self.0.get() {
            Stage::Before => Ok(()),
            Stage::Writing => Err(CutShort::Writing),
            Stage::Written(position) => Err(CutShort::Written { position }),
        }
    }
}

/// A stop came when it was too late for everything to stay as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CutShort {
    /// Kafka had not answered.
    #[error("stopped while the checkpoint was being written: it may have been written")]
    Writing,
    /// Something remained to be done.
    #[error("stopped after the checkpoint was written, at {position}, before all was done")]
    Written {
        /// Where the checkpoint is.
        position: EndLsn,
    },
}

impl Failure for CutShort {
    fn code(&self) -> Option<Code> {
        None
    }

    fn recovery(&self) -> Recovery {
        Recovery::Stop
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Writing => "Look with tailwater status where the checkpoint is, or run the same \
                              command again: it does what is not done."
                .to_owned(),
            Self::Written { .. } => "The checkpoint counts: the next start goes on from it. The \
                                     slot may still be to be moved to it, which that start does, \
                                     or the same command again."
                .to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Lsn;

    #[test]
    fn a_stop_says_that_nothing_was_changed_only_before_the_write() {
        let (at, position) = (WritingByHand::default(), Lsn::from_wire(100).expect("a position"));
        assert_eq!(at.judge_stop(), Ok(()));
        at.begin();
        assert_eq!(at.judge_stop(), Err(CutShort::Writing));
        at.end(EndLsn(position));
        assert_eq!(at.judge_stop(), Err(CutShort::Written { position: EndLsn(position) }));
    }
}

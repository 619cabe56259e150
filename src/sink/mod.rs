//! Where records go, and how far they are durable.
//!
//! A sink knows encoded records only. It takes them in batches, in order, from a single caller, and
//! reports which cuts are durable. A batch may be part of a group: everything between two
//! commits of the sink becomes visible together, and a commit only ever happens at a cut.

mod batch;
mod dead_letter;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod stdout;
mod subject;

use std::future::Future;

pub use batch::{
    Batch, Checkpoint, Checkpoints, Cut, CutSequence, Headers, NewTopic, Record, Span, TopicId,
    TopicUse, Urgency,
};
pub use dead_letter::{
    DEAD_LETTERS_SAID_EVERY, DeadLetterTopics, FAILURE_REASON, FAILURE_STAGE, FailureStage,
    ORIGINAL_PREFIX, ORIGINAL_TABLE, ORIGINAL_TOPIC,
};
pub use subject::Subject;

use crate::failure::Failure;

/// What a sink tells its caller.
#[derive(Debug)]
pub enum Report {
    /// Everything up to and with this cut is durable and visible, its checkpoints included.
    Delivered(CutSequence),
    /// The batch's records were taken over; its memory may be filled again.
    Emptied(Batch),
    /// The next group is about to be made: what is handed over before [`Sink::go_on`] goes with it.
    LastCall,
    /// This record can never be delivered, and nothing behind it is. What was not reported as
    /// delivered must be sent anew: where the record is of a transaction, all before that one and
    /// nothing from there on; where it is a row that was there before, all but its request's rows.
    Refused {
        /// What it is of.
        subject: Subject,
        /// Why.
        failure: Box<dyn Failure>,
    },
    /// Nothing more will be delivered. What was not reported as delivered must be sent anew by
    /// another sink that starts from the checkpoint.
    Failed(Box<dyn Failure>),
}

/// Takes encoded batches, in order.
pub trait Sink {
    /// Hands a batch over. Never waits and never refuses: a caller has a bounded number of
    /// batches, and gets each back as [`Report::Emptied`].
    fn send(&mut self, batch: Batch);

    /// True while nothing gets out any sooner for being handed over: a [`Report::LastCall`] comes
    /// when it is time, unless the sink fails before.
    fn will_call(&self) -> bool {
        false
    }

    /// Answers [`Report::LastCall`]: nothing more is there to be handed over now. Without an answer
    /// the sink goes on by itself, a little later.
    fn go_on(&mut self) {}

    /// Grows while the sink gets on with what it has, also where there is nothing to report yet.
    fn progress(&self) -> u64 {
        0
    }

    /// The next report, in the order in which things happened.
    ///
    /// # Cancel safety
    /// A report is returned once or stays queued.
    fn next_report(&mut self) -> impl Future<Output = Report>;

    /// Ends the sink. Records that no commit covered are given up at once, so that readers are not
    /// held back by them. Takes about a second at most. Returns what it found out while ending and
    /// did not report: that another one took its place.
    fn close(self) -> impl Future<Output = Option<Box<dyn Failure>>>;
}

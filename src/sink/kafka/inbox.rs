//! Batches that wait for the thread.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, TryRecvError},
    },
    thread,
    time::{Duration, Instant},
};

use crate::sink::{Batch, kafka::last_call::LastCall};

/// How long the answer to a last call is waited for.
const ANSWER_MAX: Duration = Duration::from_millis(1);

/// How often librdkafka's events are served when there is nothing to do.
pub(super) const IDLE_POLL: Duration = Duration::from_millis(100);

/// What waiting for a batch led to.
#[derive(Debug)]
pub(super) enum Next {
    Batch(Batch),
    /// Nothing came in time.
    Nothing,
    /// The caller is gone.
    Closed,
}

/// Batches in order: those looked at already, and those still in the channel.
#[derive(Debug)]
pub(super) struct Inbox {
    channel: Receiver<Batch>,
    last_call: Arc<LastCall>,
    waiting: VecDeque<Batch>,
    closed: bool,
}

impl Inbox {
    pub(super) fn new(channel: Receiver<Batch>, last_call: Arc<LastCall>) -> Self {
        Self { channel, last_call, waiting: VecDeque::new(), closed: false }
    }

    /// The next batch, waiting for it at most `limit`.
    pub(super) fn next(&mut self, limit: Duration) -> Next {
        if let Some(batch) = self.waiting.pop_front() {
            return Next::Batch(batch);
        }
        match self.channel.recv_timeout(limit) {
            Ok(batch) => Next::Batch(batch),
            Err(RecvTimeoutError::Timeout) => Next::Nothing,
            Err(RecvTimeoutError::Disconnected) => Next::Closed,
        }
    }

    /// Gathers what comes until `deadline`, or until `enough` says so.
    pub(super) fn gather(&mut self, deadline: Instant, enough: impl Fn(&Self) -> bool) {
        self.fill();
        while !self.closed && !enough(self) {
            match self.channel.recv_timeout(left(deadline)) {
                Ok(batch) => self.waiting.push_back(batch),
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => self.closed = true,
            }
        }
    }

    /// To be called before a pause that ends with [`Inbox::gather_at`].
    pub(super) fn announce_last_call(&self) {
        self.last_call.announce();
    }

    /// Waits until `deadline` without looking at what comes, has the caller be told by `tell` that
    /// it is time, and takes what it hands over then. Where the deadline is over and no call was
    /// announced, there is nothing to wait for.
    pub(super) fn gather_at(&mut self, deadline: Instant, tell: impl FnOnce()) {
        self.fill();
        if self.closed || (left(deadline).is_zero() && !self.last_call.is_announced()) {
            return;
        }
        self.last_call.announce();
        while !left(deadline).is_zero() {
            thread::park_timeout(left(deadline));
        }
        self.last_call.make();
        tell();
        let limit = Instant::now() + ANSWER_MAX;
        while self.last_call.is_unanswered() && !left(limit).is_zero() {
            thread::park_timeout(left(limit));
        }
        self.fill();
    }

    /// The batches that wait, in order.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Batch> {
        self.waiting.iter()
    }

    /// The bytes up to the next cut, where all of them are here.
    pub(super) fn bytes_to_cut(&self) -> Option<usize> {
        let mut bytes = 0;
        for batch in &self.waiting {
            bytes += batch.bytes();
            if batch.cut().is_some() {
                return Some(bytes);
            }
        }
        None
    }

    /// Takes over what lies in the channel.
    pub(super) fn fill(&mut self) {
        loop {
            match self.channel.try_recv() {
                Ok(batch) => self.waiting.push_back(batch),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.closed = true;
                    return;
                }
            }
        }
    }

    /// Puts a batch back to the front.
    pub(super) fn put_back(&mut self, batch: Batch) {
        self.waiting.push_front(batch);
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::sink::{Checkpoints, Cut, CutSequence, Urgency};

    fn batch(bytes: usize, cut: bool) -> Batch {
        let mut batch = Batch::default();
        batch.arena_mut().resize(bytes, 0);
        if cut {
            let checkpoints = Checkpoints::default();
            let urgency = Urgency::Group;
            batch.set_cut(Cut { sequence: CutSequence(1), checkpoints, urgency });
        }
        batch
    }

    #[test]
    fn a_group_counts_only_once_its_cut_is_here() {
        let (sender, receiver) = sync_channel(4);
        let mut inbox = Inbox::new(receiver, Arc::default());
        sender.send(batch(10, false)).expect("room");
        inbox.fill();
        assert_eq!(inbox.bytes_to_cut(), None);
        sender.send(batch(7, true)).expect("room");
        sender.send(batch(5, true)).expect("room");
        inbox.fill();
        assert_eq!(inbox.bytes_to_cut(), Some(17));
    }

    #[test]
    fn batches_keep_their_order_through_gathering() {
        let (sender, receiver) = sync_channel(4);
        let mut inbox = Inbox::new(receiver, Arc::default());
        for bytes in [1, 2, 3] {
            sender.send(batch(bytes, true)).expect("room");
        }
        inbox.gather(Instant::now(), |_| false);
        drop(sender);
        for bytes in [1, 2, 3] {
            let Next::Batch(batch) = inbox.next(Duration::ZERO) else { panic!("a batch") };
            assert_eq!(batch.bytes(), bytes);
        }
        assert!(matches!(inbox.next(Duration::ZERO), Next::Closed));
    }

    /// The caller hands over in answer to the call and not before; a thread that waited for its own
    /// time-out instead would take the batch with the next call only.
    #[test]
    fn what_is_handed_over_in_answer_to_the_last_call_is_gathered() {
        let (sender, receiver) = sync_channel(4);
        let last_call = Arc::new(LastCall::default());
        let mut inbox = Inbox::new(receiver, Arc::clone(&last_call));
        inbox.gather_at(Instant::now(), || panic!("nobody was promised a call"));
        inbox.announce_last_call();
        assert!(last_call.is_announced());
        inbox.gather_at(Instant::now() + Duration::from_millis(2), || {
            assert!(!last_call.is_announced(), "the caller must read now");
            sender.send(batch(10, true)).expect("room");
            last_call.answer();
        });
        assert_eq!(inbox.waiting().count(), 1);
        assert!(!last_call.is_announced());
    }

    #[test]
    fn a_last_call_that_nobody_answers_is_not_waited_for_for_long() {
        let (_sender, receiver) = sync_channel(4);
        let last_call = Arc::new(LastCall::default());
        let mut inbox = Inbox::new(receiver, Arc::clone(&last_call));
        inbox.announce_last_call();
        inbox.gather_at(Instant::now(), || ());
        assert!(last_call.is_unanswered(), "it went on without an answer");
        last_call.answer();
        inbox.gather_at(Instant::now(), || panic!("a late answer leaves nothing behind"));
        inbox.announce_last_call();
        last_call.answer();
        assert!(last_call.is_announced(), "an answer to nothing takes no announcement back");
    }
}

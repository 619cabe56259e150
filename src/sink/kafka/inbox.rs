//! Batches that wait for the thread.

use std::{
    collections::VecDeque,
    sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError},
    thread,
    time::{Duration, Instant},
};

use crate::sink::Batch;

/// Between two looks while few batches come. A backlog that begins meanwhile waits as long.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

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
    waiting: VecDeque<Batch>,
    closed: bool,
}

impl Inbox {
    pub(super) fn new(channel: Receiver<Batch>) -> Self {
        Self { channel, waiting: VecDeque::new(), closed: false }
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
            match self.channel.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(batch) => self.waiting.push_back(batch),
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => self.closed = true,
            }
        }
    }

    /// As [`Inbox::gather`], but looks now and then only: to be woken by each batch costs more than
    /// what it brings where few come.
    pub(super) fn gather_few(&mut self, deadline: Instant, enough: impl Fn(&Self) -> bool) {
        self.fill();
        while !self.closed && !enough(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::park_timeout(left.min(LOOK_INTERVAL));
            self.fill();
        }
    }

    /// The batches that wait, in order.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Batch> {
        self.waiting.iter()
    }

    /// The bytes of all batches that wait.
    pub(super) fn bytes(&self) -> usize {
        self.waiting.iter().map(Batch::bytes).sum()
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::sink::{Checkpoint, Cut, CutSequence, Urgency};

    fn batch(bytes: usize, cut: bool) -> Batch {
        let mut batch = Batch::default();
        batch.arena_mut().resize(bytes, 0);
        if cut {
            let checkpoint = Checkpoint { key: "1/shop/tailwater".into(), value: Vec::new() };
            let urgency = Urgency::Group;
            batch.set_cut(Cut { sequence: CutSequence(1), checkpoint, urgency });
        }
        batch
    }

    #[test]
    fn a_group_counts_only_once_its_cut_is_here() {
        let (sender, receiver) = sync_channel(4);
        let mut inbox = Inbox::new(receiver);
        sender.send(batch(10, false)).expect("room");
        inbox.fill();
        assert_eq!(inbox.bytes_to_cut(), None);
        sender.send(batch(7, true)).expect("room");
        sender.send(batch(5, true)).expect("room");
        inbox.fill();
        assert_eq!(inbox.bytes_to_cut(), Some(17));
        assert_eq!(inbox.bytes(), 22);
    }

    #[test]
    fn batches_keep_their_order_through_gathering() {
        let (sender, receiver) = sync_channel(4);
        let mut inbox = Inbox::new(receiver);
        for bytes in [1, 2, 3] {
            sender.send(batch(bytes, true)).expect("room");
        }
        inbox.gather(Instant::now(), |inbox| inbox.bytes() > 0);
        drop(sender);
        for bytes in [1, 2, 3] {
            let Next::Batch(batch) = inbox.next(Duration::ZERO) else { panic!("a batch") };
            assert_eq!(batch.bytes(), bytes);
        }
        assert!(matches!(inbox.next(Duration::ZERO), Next::Closed));
    }
}

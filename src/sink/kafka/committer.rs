//! The thread that ends transactions, one after the other, while the next one is being filled.
//!
//! After a transaction that could not be ended it ends none, so that nothing becomes visible behind
//! a gap.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use crate::sink::{
    CutSequence, Report,
    kafka::{Cancel, KafkaError, producer::Producer, turn::Turn},
};

/// How often a wait for a producer looks at cancellation.
const LOOK: Duration = Duration::from_millis(250);

/// A transaction whose records are all answered.
pub(super) struct Order {
    /// Whose it is.
    pub(super) turn: Turn,
    /// The cut that it ends at.
    pub(super) sequence: CutSequence,
    /// The bytes of its records.
    pub(super) bytes: usize,
}

/// The caller's end of the thread.
pub(super) struct Committer {
    orders: Option<SyncSender<Order>>,
    committed: Receiver<(Turn, Instant)>,
    states: [State; Turn::COUNT],
    thread: Option<JoinHandle<()>>,
}

/// What a producer's last transaction has come to.
#[derive(Clone, Copy)]
enum State {
    /// There was none.
    Unused,
    /// It is being ended.
    Committing,
    /// It was ended then.
    Committed(Instant),
}

impl Committer {
    pub(super) fn start(
        producers: Arc<[Producer; Turn::COUNT]>,
        reports: mpsc::Sender<Report>,
        closing: Cancel,
    ) -> Result<Self, KafkaError> {
        // At most one transaction of each producer is under way, so that no send waits.
        let (orders, incoming) = sync_channel(Turn::COUNT);
        let (outgoing, committed) = sync_channel(Turn::COUNT);
        let work = move || {
            let ended = work(&producers, &incoming, &outgoing, &reports, &closing);
            // Before the caller hears of it: who waits for the end waits for the producers' end.
            drop(producers);
            match ended {
                Ok(()) | Err(KafkaError::Cancelled) => {}
                // The caller is gone where it cannot be told.
                Err(error) => drop(reports.blocking_send(Report::Failed(Box::new(error)))),
            }
        };
        let thread = thread::Builder::new().name("kafka-commit".to_owned()).spawn(work);
        let thread = thread.map_err(|error| KafkaError::Call {
            action: "start the thread that commits".to_owned(),
            reason: error.to_string(),
        })?;
        let states = [State::Unused; Turn::COUNT];
        Ok(Self { orders: Some(orders), committed, states, thread: Some(thread) })
    }

    /// Ends a transaction after all that were handed over before it, and reports it as delivered.
    ///
    /// # Errors
    /// Where an earlier one failed, which is reported by the thread itself.
    pub(super) fn commit(&mut self, order: Order) -> Result<(), KafkaError> {
        *order.turn.of_mut(&mut self.states) = State::Committing;
        let orders = self.orders.as_ref().ok_or(KafkaError::Cancelled)?;
        orders.send(order).map_err(|_| KafkaError::Cancelled)
    }

    /// Waits until a producer's last transaction has ended, and says when that was.
    ///
    /// # Errors
    /// Where it failed, which is reported by the thread itself.
    pub(super) fn await_free(
        &mut self,
        turn: Turn,
        closing: &Cancel,
    ) -> Result<Option<Instant>, KafkaError> {
        loop {
            match turn.of(&self.states) {
                State::Unused => return Ok(None),
                State::Committed(at) => return Ok(Some(*at)),
                State::Committing => {}
            }
            match self.committed.recv_timeout(LOOK) {
                Ok((turn, at)) => *turn.of_mut(&mut self.states) = State::Committed(at),
                Err(RecvTimeoutError::Timeout) => closing.check()?,
                Err(RecvTimeoutError::Disconnected) => return Err(KafkaError::Cancelled),
            }
        }
    }

    /// Lets the thread finish what it was given, and waits for its end.
    pub(super) fn end(mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::debug!("the thread that commits panicked");
        }
    }
}

fn work(
    producers: &[Producer; Turn::COUNT],
    orders: &Receiver<Order>,
    committed: &SyncSender<(Turn, Instant)>,
    reports: &mpsc::Sender<Report>,
    closing: &Cancel,
) -> Result<(), KafkaError> {
    while let Ok(Order { turn, sequence, bytes }) = orders.recv() {
        turn.of(producers).commit(bytes, closing)?;
        // Nobody waits for a producer any more where the worker has ended.
        let _ = committed.send((turn, Instant::now()));
        if reports.blocking_send(Report::Delivered(sequence)).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

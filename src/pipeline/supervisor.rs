//! Retry or stop: decided here and nowhere else.
//!
//! One attempt is the whole start order and then the loop. Whatever fails in it, nothing of it is
//! kept: the next attempt begins at the checkpoint, which is the only truth. What survives is how
//! long to wait, and which transaction must not be published.

use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::{
    backfill::RefusedRows,
    former_primary::has_next_host,
    requests::{Phase, Requests},
    settings::Settings,
    shutdown::Shutdown,
    slow_transaction::TransactionTooSlow,
    standby, start,
    stream_loop::{End, Ended},
};
use crate::{
    failure::{Code, Failure, Recovery},
    lsn::CommitLsn,
};

/// The first pause. A walsender that lingers after its client's death is gone by then.
const BACKOFF_MIN: Duration = Duration::from_millis(200);

/// The longest pause: somebody who mends the cause sees the effect within seconds.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// An attempt that lasted this long was a good one: the next pause is short again.
const GOOD_ATTEMPT: Duration = Duration::from_secs(10);

/// Fenced twice within this time: somebody else really is there.
const FENCED_INTERVAL: Duration = Duration::from_secs(60);

/// So many requests are remembered whose rows are not read again: one that is forgotten is refused
/// once more.
const REFUSED_ROWS_MAX: usize = 64;

/// What is carried from one attempt to the next.
#[derive(Default)]
struct Carried {
    backoff: Option<Duration>,
    fenced_at: Option<Instant>,
    /// Said of our producer by the brokers. Whether somebody took its place shows when the slot is
    /// asked for.
    fenced: Option<Box<dyn Failure>>,
    /// Kafka gave up a transaction of ours, and nothing was delivered since.
    has_timed_out: bool,
    halt: Option<Halt>,
    refused_rows: Vec<RefusedRows>,
}

/// A transaction that cannot be published.
struct Halt {
    before: CommitLsn,
    failure: Box<dyn Failure>,
}

/// What an attempt came to.
enum Verdict {
    Stopped,
    TryAgain,
    /// Another host of several is tried first.
    TryNextHost,
    GiveUp(Box<dyn Failure>),
}

/// Publishes until `shutdown` is requested. Meanwhile back-fills can be asked for by `requests`.
///
/// # Errors
/// The failure that retrying cannot mend. Everything before it is published, nothing is lost.
pub async fn run(
    settings: &Settings,
    requests: &Requests,
    mut shutdown: Shutdown,
) -> Result<(), Box<dyn Failure>> {
    let mut carried = Carried::default();
    let mut settings = settings.clone();
    loop {
        let began = Instant::now();
        let verdict = attempt(&settings, requests, &mut shutdown, &mut carried).await;
        if began.elapsed() >= GOOD_ATTEMPT {
            carried.backoff = None;
        }
        match verdict {
            Verdict::Stopped => {
                info!("stopped");
                return Ok(());
            }
            Verdict::GiveUp(failure) => return Err(failure),
            Verdict::TryAgain | Verdict::TryNextHost if shutdown.is_requested() => return Ok(()),
            Verdict::TryAgain => {}
            Verdict::TryNextHost => settings.postgres.rotate_hosts(),
        }
        requests.enter(Phase::Retrying);
        carried.pause(&mut shutdown).await;
    }
}

async fn attempt(
    settings: &Settings,
    requests: &Requests,
    shutdown: &mut Shutdown,
    carried: &mut Carried,
) -> Verdict {
    let halt_before = carried.halt.as_ref().map(|halt| halt.before);
    let waiting = shutdown.clone();
    let starting = start::start(settings, requests, &waiting, halt_before, &carried.refused_rows);
    let started = tokio::select! {
        biased;
        () = shutdown.requested() => return Verdict::Stopped,
        started = starting => started,
    };
    let (stream_loop, retention) = match started {
        Ok(started) => {
            carried.fenced = None;
            started
        }
        Err(failure) if standby::is_due(&*failure) => {
            requests.enter(Phase::Standby);
            return stand_by(settings, shutdown, carried).await;
        }
        Err(failure) if has_next_host(settings, &*failure) => {
            warn!(error = %failure, "a former primary; trying the next host");
            return Verdict::TryNextHost;
        }
        Err(failure) => return carried.judge(failure),
    };
    let Ended { end, has_delivered } = stream_loop.run(shutdown).await;
    // Old rows are deleted for as long as the stream lasts.
    drop(retention);
    carried.has_timed_out &= !has_delivered;
    match end {
        End::Stopped => Verdict::Stopped,
        End::Failed(failure) | End::Row(failure) => carried.judge(failure),
        End::RowsFirst { table } => {
            info!(
                table,
                "the rows that a table without a key has come before its changes: they are read at a \
                 start; starting over from the checkpoint"
            );
            carried.backoff = None;
            Verdict::TryAgain
        }
        // Whoever asked is told. The stream loses nothing by it.
        End::RowsRefused { request, failure } => {
            let reason = super::chain(&*failure);
            warn!(
                error = reason,
                request,
                "a row that somebody asked for cannot be published: starting over without that request"
            );
            carried.refused_rows.push(RefusedRows { request, reason });
            let forgotten = carried.refused_rows.len().saturating_sub(REFUSED_ROWS_MAX);
            carried.refused_rows.drain(..forgotten);
            carried.backoff = None;
            Verdict::TryAgain
        }
        End::FailedFenced { failure, fenced } => {
            carried.fenced = Some(fenced);
            carried.judge(failure)
        }
        End::Fenced { failure, holds_slot } => {
            match carried.judge_time(&*failure).filter(|_| holds_slot) {
                Some(too_slow) => Verdict::GiveUp(too_slow.into()),
                None => carried.judge_fenced(failure, holds_slot),
            }
        }
        End::Halt { before, failure } => {
            warn!(
                commit_lsn = %before,
                error = %failure,
                "an event cannot be published; publishing everything before its transaction"
            );
            carried.halt = Some(Halt { before, failure });
            carried.backoff = None;
            Verdict::TryAgain
        }
        End::BeforeHalt { is_all_delivered } => match carried.halt.take() {
            Some(halt) if is_all_delivered => Verdict::GiveUp(halt.failure),
            halt => {
                carried.halt = halt;
                Verdict::TryAgain
            }
        },
    }
}

/// Waits for the slot. A former holder whose place was taken on Kafka too does not: it ends, so that
/// whoever runs it hears of it.
async fn stand_by(settings: &Settings, shutdown: &mut Shutdown, carried: &mut Carried) -> Verdict {
    if let Some(fenced) = carried.fenced.take() {
        error!("another instance took over, and holds the slot");
        return Verdict::GiveUp(fenced);
    }
    tokio::select! {
        biased;
        () = shutdown.requested() => Verdict::Stopped,
        waited = standby::wait(settings) => match waited {
            Ok(()) => {
                carried.backoff = None;
                Verdict::TryAgain
            }
            Err(failure) => carried.judge(failure),
        },
    }
}

impl Carried {
    fn judge(&mut self, failure: Box<dyn Failure>) -> Verdict {
        if failure.code() == Some(Code::Fenced) {
            // From the start or from draining, where the slot was ours.
            return self.judge_fenced(failure, true);
        }
        match failure.recovery() {
            Recovery::Stop => Verdict::GiveUp(failure),
            Recovery::Retry => {
                let chain = super::chain(&*failure);
                let hint = failure.hint().unwrap_or_default();
                warn!(error = chain, hint, "starting over from the checkpoint");
                Verdict::TryAgain
            }
        }
    }

    /// Whether the transaction that ran out of time is the one that did so before: nothing was
    /// delivered in between, so each time it was the first that was not.
    fn judge_time(&mut self, failure: &dyn Failure) -> Option<TransactionTooSlow> {
        let too_slow = TransactionTooSlow::of(failure);
        let is_again = std::mem::replace(&mut self.has_timed_out, too_slow.is_some());
        too_slow.filter(|_| is_again)
    }

    /// The broker fences whoever let a transaction time out, also without a rival. With the slot in
    /// hand there is none.
    fn judge_fenced(&mut self, failure: Box<dyn Failure>, holds_slot: bool) -> Verdict {
        let is_explained = TransactionTooSlow::of(&*failure).is_some();
        let again = self.fenced_at.is_some_and(|before| before.elapsed() < FENCED_INTERVAL);
        if !holds_slot || (again && !is_explained) {
            error!(holds_slot, "another instance took over");
            return Verdict::GiveUp(failure);
        }
        warn!(error = %failure, "the broker gave up our transaction; starting over");
        if !is_explained {
            self.fenced_at = Some(Instant::now());
            self.fenced = Some(failure);
        }
        Verdict::TryAgain
    }

    async fn pause(&mut self, shutdown: &mut Shutdown) {
        let pause = self.backoff.unwrap_or(BACKOFF_MIN);
        self.backoff = Some((pause * 2).min(BACKOFF_MAX));
        // Jitter: many daemons that lost one broker must not come back in step.
        let jittered = pause.mul_f64(0.75 + fastrand::f64() / 2.0);
        tokio::select! {
            biased;
            () = shutdown.requested() => {}
            () = tokio::time::sleep(jittered) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::kafka::KafkaError;

    fn fenced() -> Box<dyn Failure> {
        timed_out(None)
    }

    fn timed_out(open_for: Option<Duration>) -> Box<dyn Failure> {
        let (transactional_id, timeout) = ("tailwater".to_owned(), Duration::from_secs(60));
        KafkaError::Fenced { transactional_id, bytes: 0, open_for, timeout }.into()
    }

    #[test]
    fn a_transaction_is_too_slow_where_nothing_was_delivered_between_two_of_its_ends() {
        let mut carried = Carried::default();
        let mut judge = |open_for: Option<u64>, has_delivered: bool| {
            let failure = timed_out(open_for.map(Duration::from_secs));
            carried.has_timed_out &= !has_delivered;
            carried.judge_time(&*failure).is_some()
        };
        assert!(!judge(Some(61), true), "the first time");
        assert!(!judge(Some(61), true), "another transaction");
        assert!(!judge(None, false), "another instance");
        assert!(!judge(Some(61), false), "the first time again");
        assert!(judge(Some(61), false));
    }

    #[test]
    fn transactions_that_ran_out_of_time_are_no_sign_of_a_rival_while_the_slot_is_ours() {
        let mut carried = Carried::default();
        for _ in 0..3 {
            let failure = timed_out(Some(Duration::from_secs(61)));
            assert!(matches!(carried.judge_fenced(failure, true), Verdict::TryAgain));
        }
        let failure = timed_out(Some(Duration::from_secs(61)));
        assert!(matches!(carried.judge_fenced(failure, false), Verdict::GiveUp(_)));
    }

    #[test]
    fn fenced_twice_in_a_minute_gives_up_wherever_it_was_seen() {
        let mut carried = Carried::default();
        assert!(matches!(carried.judge(fenced()), Verdict::TryAgain));
        assert!(carried.fenced.is_some(), "the slot's holder, if there is another one, did it");
        assert!(matches!(carried.judge(fenced()), Verdict::GiveUp(_)));
        let mut carried = Carried::default();
        assert!(matches!(carried.judge_fenced(fenced(), true), Verdict::TryAgain));
        assert!(matches!(carried.judge(fenced()), Verdict::GiveUp(_)));
    }
}

//! The sink, and the thread behind it.

use std::{
    io::Write,
    os::fd::{AsFd, AsRawFd},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    thread,
    time::Duration,
};

use tokio::sync::mpsc;

use super::{
    error::StdoutError,
    text::{Style, Texts},
};
use crate::{
    failure::Failure,
    sink::{Batch, Report, Sink},
};

/// How many batches a caller may own; each gives two reports at most.
const BATCHES_MAX: usize = 64;

/// How often it is looked whether anybody still reads: soon enough for a prompt to come back after
/// `| head` as if at once.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Writes events as text. Dropping it ends the thread after what it has; one that waits for its
/// reader ends with the process.
#[derive(Debug)]
pub struct StdoutSink {
    batches: SyncSender<Batch>,
    reports: mpsc::Receiver<Report>,
}

impl StdoutSink {
    /// Starts the thread, which writes to `output` from here on.
    ///
    /// # Errors
    /// Where there can be no such thread.
    pub fn start(
        output: impl Write + AsFd + Send + 'static,
        style: Style,
    ) -> Result<Self, StdoutError> {
        let (batches, incoming) = sync_channel(BATCHES_MAX);
        let (outgoing, reports) = mpsc::channel(2 * BATCHES_MAX);
        let writer =
            Writer { batches: incoming, reports: outgoing, output, texts: Texts::new(style) };
        let thread = thread::Builder::new().name("stdout".to_owned());
        thread.spawn(move || writer.run()).map_err(|source| StdoutError::Thread { source })?;
        Ok(Self { batches, reports })
    }
}

impl Sink for StdoutSink {
    /// # Panics
    /// Where the caller has more than 64 batches.
    fn send(&mut self, batch: Batch) {
        match self.batches.try_send(batch) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => panic!("a caller has at most {BATCHES_MAX} batches"),
            // The thread ended: why is among the reports.
            Err(TrySendError::Disconnected(_)) => {}
        }
    }

    async fn next_report(&mut self) -> Report {
        let report = self.reports.recv().await;
        report.unwrap_or_else(|| Report::Failed(StdoutError::Closed.into()))
    }

    async fn close(self) -> Option<Box<dyn Failure>> {
        None
    }
}

/// The thread.
struct Writer<W> {
    batches: Receiver<Batch>,
    reports: mpsc::Sender<Report>,
    output: W,
    texts: Texts,
}

impl<W: Write + AsFd> Writer<W> {
    fn run(mut self) {
        loop {
            let reports = match self.batches.recv_timeout(LOOK_INTERVAL) {
                Ok(batch) => self.write(batch),
                Err(RecvTimeoutError::Timeout) if self.is_unread() => Err(StdoutError::Closed),
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let has_failed = reports.is_err();
            let reports = reports.unwrap_or_else(|error| vec![Report::Failed(error.into())]);
            for report in reports {
                if self.reports.blocking_send(report).is_err() {
                    return;
                }
            }
            if has_failed {
                return;
            }
        }
    }

    /// Writes a batch and says so: its cut is delivered, its memory free.
    fn write(&mut self, batch: Batch) -> Result<Vec<Report>, StdoutError> {
        self.output.write_all(self.texts.of(&batch))?;
        self.output.flush()?;
        let delivered = batch.cut().map(|cut| Report::Delivered(cut.sequence));
        Ok(delivered.into_iter().chain([Report::Emptied(batch)]).collect())
    }

    /// A pipe without a reader tells so (`POLLERR`) before anything is written to it.
    fn is_unread(&self) -> bool {
        let mut asked = libc::pollfd { fd: self.output.as_fd().as_raw_fd(), events: 0, revents: 0 };
        // SAFETY: one descriptor, which is open as long as `self` is; nothing is waited for.
        let ready = unsafe { libc::poll(&raw mut asked, 1, 0) };
        ready > 0 && asked.revents & libc::POLLERR != 0
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::pipe};

    use super::*;
    use crate::sink::{Checkpoints, Cut, CutSequence, Urgency};

    fn cut() -> Batch {
        let mut batch = Batch::default();
        let checkpoints = Checkpoints::default();
        batch.set_cut(Cut { sequence: CutSequence(7), checkpoints, urgency: Urgency::Group });
        batch
    }

    #[tokio::test]
    async fn what_is_written_is_delivered_and_gives_its_memory_back() {
        let (_reader, writer) = pipe().expect("a pipe");
        let mut sink = StdoutSink::start(writer, Style::Envelopes).expect("started");
        sink.send(cut());
        assert!(matches!(sink.next_report().await, Report::Delivered(CutSequence(7))));
        assert!(matches!(sink.next_report().await, Report::Emptied(_)));
    }

    #[tokio::test]
    async fn a_reader_that_left_is_noticed_without_anything_to_write() {
        let (reader, writer) = pipe().expect("a pipe");
        let mut sink = StdoutSink::start(writer, Style::Envelopes).expect("started");
        drop(reader);
        let Report::Failed(failure) = sink.next_report().await else { panic!("not noticed") };
        assert_eq!(failure.to_string(), StdoutError::Closed.to_string());
        // What is handed over behind it is lost, and that is all.
        sink.send(cut());
        assert!(matches!(sink.next_report().await, Report::Failed(_)));
    }

    #[tokio::test]
    async fn a_full_disk_is_no_closed_pipe() {
        let full = File::options().write(true).open("/dev/full").expect("Linux has it");
        let style = Style::Lines { columns: None, has_colours: false };
        let mut sink = StdoutSink::start(full, style).expect("started");
        sink.send(super::super::text::tests::batch(&[(Some("a"), "{\"data\":1}")]));
        let Report::Failed(failure) = sink.next_report().await else { panic!("not noticed") };
        assert!(failure.hint().expect("a hint").contains("disk"), "{failure}");
    }
}

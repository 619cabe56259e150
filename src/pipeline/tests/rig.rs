//! The parts put together as `start` puts them together.

use std::time::Duration;

use super::{
    history::History,
    recording_sink::{Pace, RecordingSink, SharedTopic, Topic},
    walsender::{Server, SharedServer, Walsender},
};
use crate::{
    checkpoint::{CheckpointRecord, Tracker},
    event::{DatabaseIdentity, Mapping, Settings, TopicTemplate, TypeTemplate, outbox},
    failure::Failure,
    lsn::{EndLsn, Lsn},
    pipeline::{
        assembler::{Assembler, Beginning, Bounds},
        backfill::Backfills,
        beside::Beside,
        judgement::{judge_history, judge_position},
        lookup::Lookup,
        on_error::OnError,
        publication_watch::PublicationWatch,
        resume::Resume,
        stream_loop::{Limits, StreamLoop},
    },
    postgres::{
        self, Encryption, Host,
        replication::{TimelineHistory, scripted},
    },
};

/// The prefix of messages that are events.
pub(super) const MESSAGE_PREFIX: &str = "orders-outbox";

/// What every stream may do. The sinks of these tests may be stalled for two minutes.
pub(super) const LIMITS: Limits =
    Limits { halt_before: None, outage_grace: Duration::from_secs(180) };

/// A server and a topic, and what is said of them at each start.
pub(super) struct Rig {
    pub(super) server: SharedServer,
    pub(super) topic: SharedTopic,
    pub(super) transaction_bytes: usize,
    /// Where each timeline ended but the last.
    pub(super) switch_points: Vec<u64>,
}

impl Rig {
    /// A pipeline after its first start.
    pub(super) fn new(history: History, transaction_bytes: usize, seed: u64) -> Self {
        let server = Server::new(history, fastrand::Rng::with_seed(seed));
        let start = server.borrow().confirmed_flush;
        let topic = Topic::new(CheckpointRecord::of_first_start(EndLsn(lsn(start))));
        Self { server, topic, transaction_bytes, switch_points: Vec::new() }
    }

    /// Steps 3 to 5 of a start.
    pub(super) async fn start(
        &self,
        pace: Pace,
        seed: u64,
    ) -> Result<(StreamLoop<RecordingSink>, Walsender, tokio::net::UnixStream), Box<dyn Failure>>
    {
        let mut checkpoint = self.topic.borrow().checkpoint();
        let confirmed_flush = lsn(self.server.borrow().confirmed_flush);
        let (timeline, history) = self.timeline();
        let slot = "tailwater".to_owned().try_into().expect("a slot's name");
        judge_history(&checkpoint, timeline, history.as_ref())?;
        let wal_end = lsn(self.server.borrow().written);
        judge_position(&checkpoint, &slot, confirmed_flush, wal_end)?;
        let resume = Resume::new(&checkpoint, Some(confirmed_flush), &checkpoint.publication);
        checkpoint.timeline = timeline;
        let tracker = Tracker::new(&checkpoint);
        let bounds = Bounds { transaction_bytes: self.transaction_bytes, record_bytes: 1 << 24 };
        let beginning = Beginning { checkpoint, resume, backfills: Backfills::default() };
        let assembler = Assembler::new(mapping(), beginning, bounds, OnError::Halt);
        let sink = RecordingSink::new(self.topic.clone(), pace, seed);
        let (stream, socket) = scripted::stream().await;
        let lookup = Lookup::new(unreachable_server(), None);
        let watch = PublicationWatch::unchanging();
        let beside = Beside { watch, lookup, reading: None, inbox: None };
        let stream_loop = StreamLoop::new(stream, assembler, tracker, sink, beside, LIMITS);
        let walsender = Walsender::new(self.server.clone(), self.topic.clone());
        Ok((stream_loop, walsender, socket))
    }

    fn timeline(&self) -> (u32, Option<TimelineHistory>) {
        let mut lines = String::new();
        for (index, switch_point) in self.switch_points.iter().enumerate() {
            lines.push_str(&format!("{}\t{}\tfailover\n", index + 1, lsn(*switch_point)));
        }
        let timeline = u32::try_from(self.switch_points.len() + 1).expect("few");
        let history = TimelineHistory::parse(&lines).expect("well formed");
        (timeline, (!self.switch_points.is_empty()).then_some(history))
    }
}

/// Nobody asks there: an outbox raises no questions.
fn unreachable_server() -> postgres::Settings {
    postgres::Settings {
        host: Host::Tcp { host: "127.0.0.1".to_owned(), port: 1 },
        other_hosts: Vec::new(),
        user: "nobody".to_owned(),
        password: None,
        database: "shop".to_owned(),
        application_name: "tailwater".to_owned(),
        encryption: Encryption::NONE,
    }
}

fn lsn(position: u64) -> Lsn {
    Lsn::from_wire(position).expect("a position")
}

pub(super) fn mapping() -> Mapping {
    let settings = Settings {
        source: "orders".to_owned(),
        outboxes: vec![outbox::Settings {
            table: ("public".to_owned(), "outbox_events".to_owned()),
            topic: TopicTemplate::parse("{domain}.events").expect("a template"),
            payload: outbox::PayloadForm::default(),
            columns: outbox::ColumnNames::default(),
            headers: Vec::new(),
        }],
        messages: vec![outbox::MessageSettings {
            prefix: MESSAGE_PREFIX.to_owned(),
            topic: TypeTemplate::parse("{domain}.events").expect("a template"),
        }],
        tables: Vec::new(),
        routes: Vec::new(),
    };
    let (system_id, database) = ("7".to_owned(), "shop".to_owned());
    Mapping::new(settings, DatabaseIdentity { system_id, database })
}

//! A table, those who write to it, the stream and the reads, in random order.
//!
//! The server's part is a model of what PostgreSQL does: a transaction locks the rows that it writes
//! until its end; its commit record is in the log before its end is visible, and the stream may tell
//! it in between (a commit that waits for a synchronous standby); TRUNCATE waits for readers and they
//! for it. Each run prints nothing unless it fails; then the message holds its seed, and
//! `TAILWATER_SEED=<seed>` repeats that very run.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Backfills, Chunk, Job, Outcome, RefusedRows, Unfit,
    job::{RangeEnd, Settling, Work},
    table::{Bounds, Table},
    touches::Memory,
};
use crate::{
    change::{
        Column, Oid, OldTuple, PgTimestamp, Relation, RelationId, ReplicaIdentity, RowChange,
        Transaction, Tuple, ValueSlot, Xid,
    },
    checkpoint::{Contained, SnapshotRecord, SnapshotState},
    event::table::{Description, PrimaryKey},
    lsn::{CommitLsn, EndLsn, Lsn},
    postgres::{
        catalog::{Table as CatalogTable, TableColumn},
        identity::RowIdentity,
        snapshot::{Bound, KeyColumn, Moment, OpenTransactions, RowBlock, Shape, Snapshot},
    },
};

/// How many runs a test makes.
const RUNS: usize = 600;

/// A run that has not ended by then, with nobody writing, never does.
const STEPS_MAX: usize = 200_000;

const TABLE: RelationId = RelationId(16_384);

type Key = u32;

/// A value, and a large one that most updates leave as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct RowValue {
    small: u32,
    large: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Op {
    Insert { key: Key, row: RowValue },
    Update { key: Key, small: u32 },
    Rewrite { key: Key, row: RowValue },
    Move { from: Key, to: Key, small: u32 },
    Delete { key: Key },
    Truncate,
}

type Rows = BTreeMap<Key, RowValue>;

impl Op {
    fn is_of(self, row: Key) -> bool {
        match self {
            Self::Insert { key, .. }
            | Self::Update { key, .. }
            | Self::Rewrite { key, .. }
            | Self::Delete { key } => key == row,
            Self::Move { from, to, .. } => from == row || to == row,
            Self::Truncate => true,
        }
    }

    fn apply(self, rows: &mut Rows) {
        match self {
            Self::Insert { key, row } | Self::Rewrite { key, row } => _ = rows.insert(key, row),
            Self::Update { key, small } => {
                rows.get_mut(&key).expect("a row to update").small = small;
            }
            Self::Move { from, to, small } => {
                let row = rows.remove(&from).expect("a row to move");
                rows.insert(to, RowValue { small, ..row });
            }
            Self::Delete { key } => _ = rows.remove(&key).expect("a row to delete"),
            Self::Truncate => rows.clear(),
        }
    }
}

/// A transaction of the application.
#[derive(Clone, Debug)]
struct Written {
    xid: u32,
    ops: Vec<Op>,
    /// Its commit record, once it is in the log.
    committed: Option<(u64, u64)>,
}

/// The server.
#[derive(Debug)]
struct Server {
    initial: Rows,
    /// Those that have not ended, the ones that are committed already included.
    open: Vec<Written>,
    /// Those that have ended.
    ended: Vec<Written>,
    next_xid: u32,
    log_end: u64,
    locked: BTreeMap<Key, u32>,
    truncating: Option<u32>,
    /// Somebody reads the table.
    readers: usize,
    /// A committed transaction ends with one step in so many: how slow the standby is.
    slowness: u32,
    /// Of what could be a TRUNCATE one in so many is.
    truncates: u32,
    aborted: HashSet<u32>,
}

impl Server {
    fn new(random: &mut fastrand::Rng) -> Self {
        let rows = random.usize(..25);
        let row =
            |random: &mut fastrand::Rng| RowValue { small: random.u32(..), large: random.u32(..) };
        let initial = (0..rows).map(|_| (random.u32(..40), row(random))).collect();
        Self {
            initial,
            open: Vec::new(),
            ended: Vec::new(),
            // Near where identifiers wrap.
            next_xid: u32::MAX - random.u32(..40),
            log_end: 1_000,
            locked: BTreeMap::new(),
            truncating: None,
            readers: 0,
            slowness: [1, 10, 100][random.usize(..3)],
            truncates: [1_000, 10, 2][random.usize(..3)],
            aborted: HashSet::new(),
        }
    }

    /// All transactions in the log, in the order of their commits.
    fn log(&self) -> Vec<&Written> {
        let all = self.open.iter().chain(&self.ended);
        let mut log: Vec<&Written> = all.filter(|one| one.committed.is_some()).collect();
        log.sort_by_key(|one| one.committed);
        log
    }

    /// What whoever sees these transactions sees.
    fn rows(&self, is_seen: impl Fn(&Written) -> bool) -> Rows {
        let mut rows = self.initial.clone();
        for one in self.log().into_iter().filter(|one| is_seen(one)) {
            one.ops.iter().for_each(|op| op.apply(&mut rows));
        }
        rows
    }

    /// What a transaction sees for itself: what has ended, then its own.
    fn rows_of(&self, xid: u32) -> Rows {
        let mut rows = self.rows(|one| self.open.iter().all(|open| open.xid != one.xid));
        let own = self.open.iter().find(|one| one.xid == xid).expect("it is open");
        own.ops.iter().for_each(|op| op.apply(&mut rows));
        rows
    }

    fn snapshot(&self) -> Snapshot {
        let wide = |xid: u32| {
            let distance = xid.wrapping_sub(u32::MAX / 2 + 1);
            (1_u64 << 33) + u64::from(u32::MAX / 2 + 1) + u64::from(distance)
        };
        let xmax = self.ended.iter().map(|one| wide(one.xid) + 1).max();
        let xmax = xmax.into_iter().chain(self.aborted.iter().map(|xid| wide(*xid) + 1)).max();
        // As latestCompletedXid has it: above every transaction that has ended.
        let xmax = xmax.unwrap_or(wide(self.next_xid.wrapping_sub(50)));
        let mut running: Vec<u64> = self.open.iter().map(|one| wide(one.xid)).collect();
        running.retain(|xid| *xid < xmax);
        running.sort_unstable();
        let xmin = running.first().copied().unwrap_or(xmax);
        let list: Vec<String> = running.iter().map(u64::to_string).collect();
        Snapshot::parse(&format!("{xmin}:{xmax}:{}", list.join(","))).expect("a snapshot")
    }

    /// Something that applications do.
    fn step(&mut self, random: &mut fastrand::Rng, may_begin: bool) {
        match random.u8(..10) {
            0..2 if may_begin && self.open.len() < 4 => {
                let xid = self.next_xid;
                self.next_xid = self.next_xid.wrapping_add(1);
                self.open.push(Written { xid, ops: Vec::new(), committed: None });
            }
            2..7 if may_begin => self.write(random),
            7 => self.commit(random),
            8 if random.u32(..self.slowness) == 0 => self.end(random),
            9 if random.u8(..4) == 0 => self.abort(random),
            _ => {}
        }
    }

    fn write(&mut self, random: &mut fastrand::Rng) {
        let writers: Vec<u32> =
            self.open.iter().filter(|one| one.committed.is_none()).map(|one| one.xid).collect();
        if writers.is_empty() {
            return;
        }
        let xid = writers[random.usize(..writers.len())];
        let rows = self.rows_of(xid);
        let (key, other) = (random.u32(..40), random.u32(..40));
        let row = RowValue { small: random.u32(..), large: random.u32(..) };
        let small = row.small;
        let op = match (random.u8(..12), rows.contains_key(&key), rows.contains_key(&other)) {
            (0, ..) if random.u32(..self.truncates) == 0 => Op::Truncate,
            (1..5, false, _) => Op::Insert { key, row },
            (1..5, true, _) => Op::Update { key, small },
            (5, true, _) => Op::Rewrite { key, row },
            (6..10, true, false) => Op::Move { from: key, to: other, small },
            (10.., true, _) => Op::Delete { key },
            _ => return,
        };
        let keys = match op {
            Op::Truncate => {
                let is_alone = self.locked.values().all(|owner| *owner == xid);
                let is_free = self.truncating.is_none_or(|owner| owner == xid);
                if !is_alone || !is_free || self.readers > 0 {
                    return;
                }
                self.truncating = Some(xid);
                vec![]
            }
            Op::Move { from, to, .. } => vec![from, to],
            Op::Insert { key, .. }
            | Op::Update { key, .. }
            | Op::Rewrite { key, .. }
            | Op::Delete { key } => vec![key],
        };
        let is_others = |owner: Option<&u32>| owner.is_some_and(|owner| *owner != xid);
        if is_others(self.truncating.as_ref())
            || keys.iter().any(|key| is_others(self.locked.get(key)))
        {
            return;
        }
        self.locked.extend(keys.into_iter().map(|key| (key, xid)));
        let writer = self.open.iter_mut().find(|one| one.xid == xid).expect("it is open");
        writer.ops.push(op);
    }

    /// Writes a commit record.
    fn commit(&mut self, random: &mut fastrand::Rng) {
        let mut open: Vec<&mut Written> =
            self.open.iter_mut().filter(|one| one.committed.is_none()).collect();
        if open.is_empty() {
            return;
        }
        let index = random.usize(..open.len());
        // Commit records may touch.
        let begin = self.log_end + random.u64(..3);
        let end = begin + random.u64(1..5);
        open[index].committed = Some((begin, end));
        self.log_end = end;
    }

    /// Lets a committed transaction end: a standby has answered.
    fn end(&mut self, random: &mut fastrand::Rng) {
        let committed: Vec<usize> =
            (0..self.open.len()).filter(|index| self.open[*index].committed.is_some()).collect();
        if committed.is_empty() {
            return;
        }
        let one = self.open.remove(committed[random.usize(..committed.len())]);
        self.unlock(one.xid);
        self.ended.push(one);
    }

    fn abort(&mut self, random: &mut fastrand::Rng) {
        let open: Vec<usize> =
            (0..self.open.len()).filter(|index| self.open[*index].committed.is_none()).collect();
        if !open.is_empty() {
            let one = self.open.remove(open[random.usize(..open.len())]);
            self.unlock(one.xid);
            self.aborted.insert(one.xid);
        }
    }

    fn unlock(&mut self, xid: u32) {
        self.locked.retain(|_, owner| *owner != xid);
        if self.truncating == Some(xid) {
            self.truncating = None;
        }
    }
}

/// What a consumer reads.
#[derive(Clone, Debug)]
enum Told {
    /// A change of the stream, with the large value of the old row where the server sent that.
    Stream { op: Op, large: Option<u32> },
    /// A row that was there.
    Row { request: String, key: Key, row: RowValue, moved_at: Option<CommitLsn> },
    /// All rows are out.
    Done,
}

/// What is visible on Kafka, and where a start goes on.
#[derive(Clone, Debug)]
struct Topic {
    told: Vec<Told>,
    checkpoint: u64,
    record: SnapshotRecord,
}

/// What is being read.
#[derive(Debug)]
enum Reading {
    Asked(Job),
    /// Waits until these have ended.
    Settling(HashSet<u32>),
    /// The table is locked.
    Read(Chunk),
    /// On its way.
    Sent(Chunk),
}

struct Simulation {
    random: fastrand::Rng,
    seed: u64,
    server: Server,
    topic: Topic,
    identity: ReplicaIdentity,
    /// A condition leaves some rows out.
    is_filtered: bool,
    backfills: Backfills,
    reading: Option<Reading>,
    /// For whom the last look was.
    waited_for: HashSet<u32>,
    /// Told and not yet visible.
    told: Vec<Told>,
    /// Transactions of the log that came by.
    received: usize,
    /// How much of the next one came.
    ops_received: usize,
    is_in_transaction: bool,
    now: Instant,
    /// A chunk that was read comes with one step in so many.
    way: u32,
    /// How often rows were read again for themselves, and which of them had been moved.
    found: (usize, usize),
}

fn lsn(position: u64) -> Lsn {
    Lsn::from_wire(position).expect("a position")
}

/// Texts have the order of the numbers.
fn text(key: Key) -> String {
    format!("{key:03}")
}

fn is_within(end: &RangeEnd, key: Key) -> bool {
    match end.bound() {
        Bound::Nothing => false,
        Bound::UpTo(last) => text(key) <= last[0],
        Bound::Everything => true,
    }
}

fn due_record() -> SnapshotRecord {
    SnapshotRecord {
        version: 1,
        source: "shop".to_owned(),
        table: "public.t".to_owned(),
        oid: TABLE,
        request: "first".to_owned(),
        condition: None,
        is_requested: false,
        has_events: false,
        state: SnapshotState::Due,
        failure: None,
        key: Vec::new(),
        cursor: None,
        is_at_end: false,
        outstanding: Vec::new(),
        is_at_once: false,
        contained: None,
        rows: 0,
        estimate: None,
        requested_at: String::new(),
        written_at: String::new(),
    }
}

fn shape(identity: ReplicaIdentity) -> Shape {
    let column = |name: &str| TableColumn {
        name: name.to_owned(),
        own_type_oid: Oid(25),
        type_oid: Oid(25),
    };
    Shape {
        oid: TABLE,
        is_partitioned: false,
        table: CatalogTable {
            columns: ["small", "key", "large"].map(column).into(),
            withheld: Vec::new(),
            row_filter: None,
        },
        identity: RowIdentity {
            replica_identity: identity,
            columns: vec!["key".to_owned()],
            primary_key: vec!["key".to_owned()],
        },
        key: vec![KeyColumn {
            name: "key".to_owned(),
            number: 2,
            type_oid: Oid(25),
            collation: Oid(100),
            index: 1,
            operator_schema: None,
            collate: None,
            cast: None,
        }],
        estimate: None,
    }
}

fn relation(identity: ReplicaIdentity) -> Relation {
    let column = |name: &str| Column {
        name: name.to_owned(),
        type_oid: Oid(25),
        type_modifier: -1,
        is_replica_identity: identity == ReplicaIdentity::Full || name == "key",
    };
    Relation {
        id: TABLE,
        schema: "public".to_owned(),
        name: "t".to_owned(),
        replica_identity: identity,
        columns: ["small", "key", "large"].map(column).into(),
    }
}

/// A row as the stream has it; none of the large value where that did not change.
struct Sent {
    frame: String,
    slots: [ValueSlot; 3],
}

impl Sent {
    fn new(small: Option<u32>, key: Key, large: Option<u32>) -> Self {
        let mut frame = String::new();
        let mut slot = |text: Option<String>, missing| {
            let Some(text) = text else { return missing };
            let start = u32::try_from(frame.len()).expect("short");
            frame.push_str(&text);
            ValueSlot::Text { start, length: u32::try_from(text.len()).expect("short") }
        };
        let slots = [
            slot(small.map(|small| small.to_string()), ValueSlot::Null),
            slot(Some(text(key)), ValueSlot::Null),
            slot(large.map(|large| large.to_string()), ValueSlot::UnchangedToast),
        ];
        Self { frame, slots }
    }

    fn tuple(&self) -> Tuple<'_> {
        Tuple::new(self.frame.as_bytes(), &self.slots)
    }
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut server = Server::new(&mut random);
        // Some are open, and some committed and not yet visible, before the pipeline begins: the
        // slot's own position lies behind all of them.
        for _ in 0..random.usize(..60) {
            server.step(&mut random, true);
        }
        let is_full = random.bool();
        let identity = if is_full { ReplicaIdentity::Full } else { ReplicaIdentity::Default };
        let checkpoint = server.log_end;
        let topic = Topic { told: Vec::new(), checkpoint, record: due_record() };
        let is_filtered = random.bool();
        let way = [1, 5, 30][random.usize(..3)];
        let mut simulation = Self {
            random,
            way,
            seed,
            server,
            topic,
            identity,
            is_filtered,
            backfills: Backfills::default(),
            reading: None,
            waited_for: HashSet::new(),
            told: Vec::new(),
            received: 0,
            ops_received: 0,
            is_in_transaction: false,
            now: Instant::now(),
            found: (0, 0),
        };
        simulation.start();
        simulation
    }

    /// Goes on from what is visible.
    fn start(&mut self) {
        let bounds = Bounds {
            rows_first: self.random.usize(1..6),
            rows_max: 5,
            keys_max: self.random.usize(1..4),
            outstanding_max: self.random.usize(1..12),
            outstanding_bytes_max: [200, 1_000, 100_000][self.random.usize(..3)],
            memory: Memory {
                keys_of_one_max: [2, 5, 1_000][self.random.usize(..3)],
                remembered_max: [6, 20, 1_000][self.random.usize(..3)],
            },
        };
        self.backfills = Backfills { bounds, ..Backfills::default() };
        if self.topic.record.state.is_unfinished() {
            self.backfills.push(self.topic.record.clone(), Table::new);
        }
        let primary_key = PrimaryKey::Columns(vec!["key".to_owned()]);
        self.backfills.observe_relation(&relation(self.identity), &primary_key);
        self.server.readers = 0;
        (self.reading, self.told) = (None, Vec::new());
        (self.is_in_transaction, self.ops_received) = (false, 0);
        let checkpoint = self.topic.checkpoint;
        let is_out = |one: &&Written| one.committed.is_some_and(|(begin, _)| begin < checkpoint);
        self.received = self.server.log().into_iter().filter(is_out).count();
    }

    fn step(&mut self, may_write: bool) {
        self.now += Duration::from_millis(self.random.u64(..30));
        match self.random.u8(..12) {
            0..4 => self.server.step(&mut self.random, may_write),
            4..8 => self.stream(),
            8..11 => self.read(),
            _ => {
                if self.random.bool() {
                    self.commit_cut();
                }
            }
        }
    }

    /// The stream says one thing more.
    fn stream(&mut self) {
        if self.backfills.holds_stream(self.now) {
            return;
        }
        let log = self.server.log();
        let Some(next) = log.get(self.received).map(|next| Written::clone(next)) else {
            // A keepalive: everything was sent.
            self.backfills.observe_passed(lsn(self.server.log_end));
            return self.release();
        };
        let (begin, end) = next.committed.expect("it is in the log");
        if !self.is_in_transaction {
            self.backfills.observe_passed(lsn(begin));
            self.release();
            self.is_in_transaction = true;
            self.backfills.begin(Transaction {
                commit_lsn: CommitLsn(lsn(begin)),
                xid: Xid(next.xid),
                committed_at: PgTimestamp(0),
            });
            return;
        }
        if let Some(op) = next.ops.get(self.ops_received) {
            let before = self.rows_received(self.ops_received);
            self.ops_received += 1;
            self.told.push(Told::Stream { op: *op, large: self.old_large(*op, &before) });
            return self.observe(*op, &before);
        }
        self.backfills.commit();
        self.backfills.observe_passed(lsn(end));
        (self.is_in_transaction, self.ops_received) = (false, 0);
        self.received += 1;
        self.release();
    }

    /// The table as the stream has told it, with so many changes of the next transaction.
    fn rows_received(&self, ops: usize) -> Rows {
        let log = self.server.log();
        let mut rows = self.server.initial.clone();
        for one in log.iter().take(self.received) {
            one.ops.iter().for_each(|op| op.apply(&mut rows));
        }
        if let Some(next) = log.get(self.received) {
            next.ops.iter().take(ops).for_each(|op| op.apply(&mut rows));
        }
        rows
    }

    fn old_large(&self, op: Op, before: &Rows) -> Option<u32> {
        let key = match op {
            Op::Update { key, .. } | Op::Move { from: key, .. } => key,
            Op::Insert { .. } | Op::Rewrite { .. } | Op::Delete { .. } | Op::Truncate => {
                return None;
            }
        };
        (self.identity == ReplicaIdentity::Full).then(|| before[&key].large)
    }

    fn observe(&mut self, op: Op, before: &Rows) {
        let is_full = self.identity == ReplicaIdentity::Full;
        let old = |key: Key, is_moved: bool| {
            let row = before[&key];
            match is_full {
                true => Some(Sent::new(Some(row.small), key, Some(row.large))),
                false => is_moved.then(|| Sent::new(None, key, None)),
            }
        };
        let (old, new) = match op {
            Op::Truncate => return self.backfills.truncate(&[TABLE]),
            Op::Insert { key, row } => {
                (None, Some(Sent::new(Some(row.small), key, Some(row.large))))
            }
            Op::Update { key, small } => (old(key, false), Some(Sent::new(Some(small), key, None))),
            Op::Rewrite { key, row } => {
                (old(key, false), Some(Sent::new(Some(row.small), key, Some(row.large))))
            }
            Op::Move { from, to, small } => {
                (old(from, true), Some(Sent::new(Some(small), to, None)))
            }
            Op::Delete { key } => (old(key, true), None),
        };
        let of_old = |old: &'_ Sent| -> OldTuple<'_> {
            // Only the lifetime of the reference counts.
            let tuple = Tuple::new(
                Box::leak(old.frame.clone().into_boxed_str()).as_bytes(),
                Box::leak(Box::new(old.slots)),
            );
            if is_full { OldTuple::Full(tuple) } else { OldTuple::Key(tuple) }
        };
        let change = match (&old, &new) {
            (old, Some(new)) if matches!(op, Op::Insert { .. }) => {
                assert!(old.is_none());
                RowChange::Insert { new: new.tuple() }
            }
            (old, Some(new)) => {
                RowChange::Update { old: old.as_ref().map(of_old), new: new.tuple() }
            }
            (Some(old), None) => RowChange::Delete { old: of_old(old) },
            (None, None) => unreachable!("a delete has an old row"),
        };
        self.backfills.change(TABLE, change);
    }

    /// A step of what is being read.
    fn read(&mut self) {
        self.reading = match self.reading.take() {
            None => self.backfills.next_job(self.now).map(Reading::Asked),
            Some(Reading::Asked(job)) => Some(self.begin_job(job)),
            Some(Reading::Settling(mut waited_for)) => {
                waited_for.retain(|xid| self.server.open.iter().any(|one| one.xid == *xid));
                let snapshot = self.server.snapshot();
                if waited_for.is_empty() {
                    self.backfills.done(Outcome::Settled(snapshot));
                    None
                } else if self.random.bool() {
                    let settling = Settling {
                        open: OpenTransactions::below(0),
                        looks: 1,
                        blockers: Vec::new(),
                    };
                    self.backfills.done(Outcome::Unsettled(settling, snapshot));
                    self.waited_for = waited_for;
                    None
                } else {
                    Some(Reading::Settling(waited_for))
                }
            }
            Some(Reading::Read(chunk)) => {
                self.server.readers -= 1;
                Some(Reading::Sent(chunk))
            }
            Some(Reading::Sent(chunk)) if self.random.u32(..self.way) > 0 => {
                Some(Reading::Sent(chunk))
            }
            Some(Reading::Sent(chunk)) => {
                if self.random.u8(..10) == 0 {
                    // The connection broke.
                    self.backfills.failed(self.now);
                } else {
                    self.backfills.done(Outcome::Read(chunk));
                    if !self.is_in_transaction {
                        self.release();
                    }
                }
                None
            }
        };
    }

    fn begin_job(&mut self, job: Job) -> Reading {
        let shape = Arc::new(shape(self.identity));
        match &job.work {
            Work::Describe => {
                self.backfills.done(Outcome::Described(shape));
                // What comes of it is the next step's.
                Reading::Settling(HashSet::new())
            }
            Work::Settle { since: None } => {
                Reading::Settling(self.server.open.iter().map(|one| one.xid).collect())
            }
            Work::Settle { since: Some(_) } => Reading::Settling(self.waited_for.clone()),
            Work::Range { .. } | Work::Keys { .. } if self.server.truncating.is_some() => {
                Reading::Asked(job)
            }
            Work::Range { behind, rows_max } => {
                let rows = self.visible_rows();
                let rows: Vec<(bool, Key, &RowValue)> = rows
                    .iter()
                    .filter(|(key, _)| !is_within(behind, **key))
                    .take(*rows_max)
                    .map(|(key, row)| (self.is_meant(*key), *key, row))
                    .collect();
                let block = if self.is_filtered {
                    let last = rows.len();
                    let numbered = rows.into_iter().zip(1..);
                    let rows = numbered.filter(|((is_meant, ..), at)| *is_meant || *at == last);
                    let line = |((is_meant, key, row), at): ((bool, Key, &RowValue), usize)| {
                        let (sign, key) = (if is_meant { "" } else { "-" }, text(key));
                        format!("{}\t{key}\t{}\t{sign}{at}\n", row.small, row.large)
                    };
                    RowBlock::of_numbered_lines(3, &rows.map(line).collect::<Vec<_>>())
                } else {
                    let line = |(_, key, row): (bool, Key, &RowValue)| {
                        format!("{}\t{}\t{}\n", row.small, text(key), row.large)
                    };
                    RowBlock::of_lines(3, &rows.into_iter().map(line).collect::<Vec<_>>())
                };
                Reading::Read(self.chunk(shape, block))
            }
            Work::Keys { keys, end } => {
                let rows = self.visible_rows();
                let lines: Vec<String> = rows
                    .iter()
                    .filter(|(key, _)| keys.contains(&vec![text(**key)]) && self.is_meant(**key))
                    .map(|(key, row)| {
                        let is_within = if is_within(end, *key) { "t" } else { "f" };
                        let key = text(*key);
                        format!("{}\t{key}\t{}\t{is_within}\n", row.small, row.large)
                    })
                    .collect();
                Reading::Read(self.chunk(shape, RowBlock::of_lines(4, &lines)))
            }
        }
    }

    /// Whether the condition lets that row through.
    fn is_meant(&self, key: Key) -> bool {
        !self.is_filtered || !key.is_multiple_of(3)
    }

    fn visible_rows(&self) -> Rows {
        self.server.rows(|one| self.server.open.iter().all(|open| open.xid != one.xid))
    }

    fn chunk(&mut self, shape: Arc<Shape>, rows: RowBlock) -> Chunk {
        self.server.readers += 1;
        let description = Arc::new(Description {
            schema: "public".to_owned(),
            name: "t".to_owned(),
            replica_identity: self.identity,
            columns: Vec::new(),
            primary_key: PrimaryKey::Columns(Vec::new()),
        });
        Chunk {
            moment: Moment {
                snapshot: self.server.snapshot(),
                position: lsn(self.server.log_end),
                timeline: 1,
                stamp: String::new(),
            },
            shape,
            description,
            rows,
            read_at: PgTimestamp(0),
        }
    }

    /// Rows go out where they may. Each must be what the stream has told up to here.
    fn release(&mut self) {
        assert!(!self.is_in_transaction);
        while let Some(due) = self.backfills.next_due(self.now) {
            let told = self.rows_received(0);
            let rows: Vec<Tuple<'_>> = due.chunk().rows.rows().collect();
            let request = self.backfills.records().next().expect("a table").request.clone();
            for selected in due.rows() {
                let value = |place| match rows[selected.index].get(place) {
                    Some(crate::change::TupleValue::Text(text)) => {
                        String::from_utf8(text.to_vec()).expect("text").parse().expect("a number")
                    }
                    _ => panic!("no NULL here"),
                };
                let (small, key, large) = (value(0), value(1), value(2));
                let row = RowValue { small, large };
                assert_eq!(told.get(&key), Some(&row), "row {key}, seed {}", self.seed);
                let (request, moved_at) = (request.clone(), selected.moved_at);
                self.found.1 += usize::from(moved_at.is_some());
                self.told.push(Told::Row { request, key, row, moved_at });
            }
            self.found.0 += 1;
            let bytes = due.rows().len() << self.random.u32(8..22);
            self.backfills.out(due, bytes, self.now);
            if self.backfills.records().next().is_none() {
                self.told.push(Told::Done);
            }
        }
    }

    /// A cut behind the last whole transaction, committed at once.
    fn commit_cut(&mut self) {
        if self.is_in_transaction {
            return;
        }
        let log = self.server.log();
        let end = self.received.checked_sub(1).and_then(|last| log[last].committed);
        self.topic.checkpoint = self.topic.checkpoint.max(end.map_or(0, |(_, end)| end));
        self.topic.told.append(&mut self.told);
        for record in self.backfills.take_changed() {
            self.topic.record = record;
        }
    }

    fn run(&mut self) {
        let (writes, crashes) = (self.random.usize(200..3_000), self.random.usize(..6));
        let crash_at: BTreeSet<usize> =
            (0..crashes).map(|_| self.random.usize(..writes + 500)).collect();
        let mut step = 0;
        loop {
            if crash_at.contains(&step) {
                self.start();
            }
            self.step(step < writes);
            step += 1;
            let is_done = self.topic.record.state == SnapshotState::Done;
            let is_told = self.received == self.server.log().len() && self.told.is_empty();
            if step > writes + 500 && is_done && is_told && self.server.open.is_empty() {
                break;
            }
            if step > writes {
                // Whoever is still there comes to an end.
                self.server.commit(&mut self.random);
                self.server.end(&mut self.random);
            }
            assert!(step < STEPS_MAX, "it never ends, seed {}", self.seed);
        }
        self.judge();
    }

    /// Who applies everything in its order has the table, and each row that was there comes once.
    fn judge(&self) {
        let seed = self.seed;
        // A row of which the large value is not known is one that only updates spoke of.
        let mut copy: BTreeMap<Key, (u32, Option<u32>)> = BTreeMap::new();
        let mut ids = HashSet::new();
        // Rows that came, and of which the stream said nothing since.
        let mut as_read = HashSet::new();
        let mut is_done = false;
        // Rows moved by then need not come any more.
        let mut unknown_for_good = HashSet::new();
        let table = {
            let mut table = Rows::new();
            let log = self.server.log();
            table.clone_from(&self.server.initial);
            for one in log {
                one.ops.iter().for_each(|op| op.apply(&mut table));
            }
            table
        };
        for told in &self.topic.told {
            match told {
                Told::Done => is_done = true,
                Told::Row { request, key, row, moved_at } => {
                    assert!(self.is_meant(*key), "row {key} was left out, seed {seed}");
                    assert!(ids.insert((request, key, moved_at)), "row {key} twice, seed {seed}");
                    assert!(as_read.insert((request, *key)), "row {key} again, seed {seed}");
                    copy.insert(*key, (row.small, Some(row.large)));
                }
                Told::Stream { op, large } => {
                    as_read.retain(|(_, key)| !op.is_of(*key));
                    match *op {
                        Op::Insert { key, row } | Op::Rewrite { key, row } => {
                            copy.insert(key, (row.small, Some(row.large)));
                        }
                        Op::Update { key, small } => {
                            let former = copy.get(&key).and_then(|(_, large)| *large);
                            copy.insert(key, (small, large.or(former)));
                        }
                        Op::Move { from, to, small } => {
                            copy.remove(&from);
                            copy.insert(to, (small, *large));
                            if is_done {
                                unknown_for_good.insert(to);
                            }
                        }
                        Op::Delete { key } => _ = copy.remove(&key),
                        Op::Truncate => copy.clear(),
                    }
                }
            }
        }
        for (key, row) in table.iter().filter(|(key, _)| self.is_meant(**key)) {
            let (small, large) = copy.get(key).unwrap_or_else(|| panic!("no {key}, seed {seed}"));
            assert_eq!(*small, row.small, "row {key}, seed {seed}");
            match large {
                Some(large) => assert_eq!(*large, row.large, "row {key}, seed {seed}"),
                None => assert!(unknown_for_good.contains(key), "row {key} lacks, seed {seed}"),
            }
        }
        assert!(copy.keys().all(|key| table.contains_key(key)), "seed {seed}");
    }
}

fn seeds() -> Vec<u64> {
    match std::env::var("TAILWATER_SEED") {
        Ok(seed) => vec![seed.parse().expect("a seed is a number")],
        Err(_) => (0..RUNS).map(|_| fastrand::u64(..)).collect(),
    }
}

#[test]
fn whoever_applies_all_events_has_the_table_and_each_row_comes_once() {
    let (mut chunks, mut moved) = (0, 0);
    for seed in seeds() {
        let mut simulation = Simulation::new(seed);
        simulation.run();
        chunks += simulation.found.0;
        moved += simulation.found.1;
    }
    // The rare things were there too.
    if std::env::var("TAILWATER_SEED").is_err() {
        assert!(chunks > 1_500 && moved > 50, "{chunks} chunks, {moved} moved rows");
    }
}

/// A table of which so much can be remembered, described, and the work that comes first.
fn begun(remembered_max: usize) -> (Backfills, Work) {
    let memory = Memory { remembered_max, ..Memory::default() };
    let bounds = Bounds { memory, ..Bounds::default() };
    let mut backfills = Backfills { bounds, ..Backfills::default() };
    backfills.add_due(due_record());
    let identity = ReplicaIdentity::Default;
    let primary_key = PrimaryKey::Columns(vec!["key".to_owned()]);
    backfills.observe_relation(&relation(identity), &primary_key);
    assert_eq!(next_work(&mut backfills), Some(Work::Describe));
    backfills.done(Outcome::Described(Arc::new(shape(identity))));
    let work = next_work(&mut backfills).expect("something to do");
    (backfills, work)
}

fn next_work(backfills: &mut Backfills) -> Option<Work> {
    backfills.next_job(Instant::now()).map(|job| job.work)
}

/// The stream tells a transaction that touches a key of its own.
fn tell(backfills: &mut Backfills, xid: u32) {
    let commit_lsn = CommitLsn(lsn(1_000 + u64::from(xid)));
    backfills.begin(Transaction { commit_lsn, xid: Xid(xid), committed_at: PgTimestamp(0) });
    let new = Sent::new(Some(1), xid, Some(1));
    backfills.change(TABLE, RowChange::Insert { new: new.tuple() });
    backfills.commit();
}

fn snapshot(text: &str) -> Snapshot {
    Snapshot::parse(text).expect("a snapshot")
}

/// A batch is open for long, and others write meanwhile.
#[test]
fn waiting_for_a_transaction_ends_however_much_is_written_meanwhile() {
    let (mut backfills, work) = begun(10);
    assert_eq!(work, Work::Settle { since: None });
    for look in 1..50 {
        let xid = 10 * look;
        // Half of them are told before a snapshot shows them, and half of them later.
        (xid..xid + 5).for_each(|xid| tell(&mut backfills, xid));
        let settling =
            Settling { open: OpenTransactions::below(5), looks: look, blockers: Vec::new() };
        let shown = snapshot(&format!("4:{}:4", xid + 10));
        backfills.done(Outcome::Unsettled(settling.clone(), shown));
        (xid + 5..xid + 10).for_each(|xid| tell(&mut backfills, xid));
        assert_eq!(next_work(&mut backfills), Some(Work::Settle { since: Some(settling) }));
    }
    backfills.done(Outcome::Settled(snapshot("500:500:")));
    assert!(matches!(next_work(&mut backfills), Some(Work::Range { .. })));
}

/// More than can be remembered, and no snapshot shows it: who is waited for must be asked anew.
#[test]
fn waiting_begins_anew_where_something_was_forgotten() {
    let (mut backfills, _) = begun(10);
    let settling = Settling { open: OpenTransactions::below(5), looks: 1, blockers: Vec::new() };
    let shown = snapshot("4:10:4");
    backfills.done(Outcome::Unsettled(settling.clone(), shown.clone()));
    (10..30).for_each(|xid| tell(&mut backfills, xid));
    assert_eq!(next_work(&mut backfills), Some(Work::Settle { since: None }));
    // What is under way then began too early.
    (30..50).for_each(|xid| tell(&mut backfills, xid));
    backfills.done(Outcome::Settled(shown));
    assert_eq!(next_work(&mut backfills), Some(Work::Settle { since: None }));
}

/// Rows that were read at a position, under a snapshot that shows what was committed before.
fn chunk_at(position: u64, rows: RowBlock) -> Chunk {
    Chunk {
        moment: Moment {
            snapshot: snapshot("1000:1000:"),
            position: lsn(position),
            timeline: 1,
            stamp: String::new(),
        },
        shape: Arc::new(shape(ReplicaIdentity::Default)),
        description: Arc::new(Description {
            schema: "public".to_owned(),
            name: "t".to_owned(),
            replica_identity: ReplicaIdentity::Default,
            columns: Vec::new(),
            primary_key: PrimaryKey::Columns(Vec::new()),
        }),
        rows,
        read_at: PgTimestamp(0),
    }
}

/// The slot lags: the stream tells much that the snapshot of every chunk shows.
#[test]
fn what_a_chunk_shows_does_not_make_it_useless_however_much_it_is() {
    let (mut backfills, _) = begun(10);
    backfills.done(Outcome::Settled(snapshot("5:5:")));
    assert!(matches!(next_work(&mut backfills), Some(Work::Range { .. })));
    let row = format!("1\t{}\t1\n", text(3));
    let chunk = chunk_at(2_000, RowBlock::of_lines(3, &[row]));
    backfills.done(Outcome::Read(chunk));
    (10..900).for_each(|xid| tell(&mut backfills, xid));
    tell(&mut backfills, 1_001);
    backfills.observe_passed(lsn(2_001));
    let due = backfills.next_due(Instant::now()).expect("rows");
    assert_eq!(due.rows().len(), 1);
}

/// Few of those that are looked at are meant: their records say nothing of how many to look at.
#[test]
fn a_chunk_with_few_matches_looks_at_no_fewer_rows() {
    let (mut backfills, _) = begun(10);
    backfills.done(Outcome::Settled(snapshot("5:5:")));
    let next = |backfills: &mut Backfills| match next_work(backfills) {
        Some(Work::Range { rows_max, .. }) => rows_max,
        other => panic!("{other:?}"),
    };
    let first = Bounds::default().rows_first;
    assert_eq!(next(&mut backfills), first);
    let rows = [format!("1\t{}\t1\t7\n", text(3)), format!("1\t{}\t1\t-256\n", text(9))];
    let rows = RowBlock::of_numbered_lines(3, &rows);
    assert_eq!((rows.len(), rows.scanned()), (1, 256));
    backfills.done(Outcome::Read(chunk_at(2_000, rows)));
    // Before it is known how long records are nothing is read ahead.
    assert_eq!(next_work(&mut backfills), None);
    backfills.observe_passed(lsn(2_001));
    let due = backfills.next_due(Instant::now()).expect("a row");
    backfills.out(due, 100_000, Instant::now());
    assert_eq!(next(&mut backfills), 8 * first);
}

/// A condition may be slow to look at rows, none of which it lets through.
#[test]
fn a_chunk_that_failed_is_tried_again_with_half_of_its_rows() {
    let (mut backfills, _) = begun(10);
    backfills.done(Outcome::Settled(snapshot("5:5:")));
    let first = Bounds::default().rows_first;
    let mut now = Instant::now();
    for rows in [first, first / 2, first / 4] {
        let job = backfills.next_job(now).expect("something to do");
        assert!(matches!(job.work, Work::Range { rows_max, .. } if rows_max == rows), "{job:?}");
        backfills.failed(now);
        now += Duration::from_secs(60);
    }
}

/// So that they do not take all of the memory, however short they were as text.
#[test]
fn rows_of_long_records_come_in_small_chunks() {
    let (mut backfills, _) = begun(10);
    backfills.done(Outcome::Settled(snapshot("5:5:")));
    assert!(matches!(next_work(&mut backfills), Some(Work::Range { .. })));
    let rows: Vec<String> = (0..256).map(|key| format!("1\t{}\t1\n", text(key))).collect();
    backfills.done(Outcome::Read(chunk_at(2_000, RowBlock::of_lines(3, &rows))));
    backfills.observe_passed(lsn(2_001));
    let due = backfills.next_due(Instant::now()).expect("rows");
    backfills.out(due, 256 * 100_000, Instant::now());
    match next_work(&mut backfills) {
        Some(Work::Range { rows_max, .. }) => assert_eq!(rows_max, 15),
        other => panic!("{other:?}"),
    }
}

/// Whatever comes of the table first: its rows cannot be read at once any more, and a start must know.
#[test]
fn a_change_of_a_table_marks_its_record() {
    let (mut backfills, _) = begun(10);
    let marks = |backfills: &mut Backfills| -> Vec<bool> {
        backfills.take_changed().iter().map(|record| record.has_events).collect()
    };
    assert_eq!(marks(&mut backfills), [false]);
    tell(&mut backfills, 7);
    assert_eq!(marks(&mut backfills), [true]);
    // Before its record was there.
    let mut backfills = Backfills::default();
    tell(&mut backfills, 7);
    backfills.add_due(due_record());
    assert_eq!(marks(&mut backfills), [true]);
    assert!(!backfills.is_untouched(TABLE));
}

#[test]
fn a_request_whose_row_was_refused_is_given_up_and_no_other_table() {
    let refused = RefusedRows { request: due_record().request, reason: "too large".to_owned() };
    let mut backfills = Backfills::of([due_record()]);
    backfills.give_up_request(&refused);
    assert_eq!(backfills.take_given_up(), []);
    let mut backfills = Backfills::of([SnapshotRecord { is_requested: true, ..due_record() }]);
    backfills.give_up_request(&refused);
    let given_up = backfills.take_given_up();
    assert_eq!(given_up.len(), 1);
    assert_eq!(given_up[0].reason, Unfit::Row("too large".to_owned()));
    let written = backfills.take_changed();
    assert_eq!(written[0].state, SnapshotState::Failed);
    assert_eq!(written[0].failure.as_deref(), Some("a row cannot be published: too large"));
}

/// Rows that were read at once at 500, all of them out.
fn contained() -> SnapshotRecord {
    let position = Lsn::from_wire(500).expect("a position");
    SnapshotRecord {
        state: SnapshotState::Done,
        is_at_once: true,
        contained: Some(Contained { below: EndLsn(position), timeline: 1 }),
        ..due_record()
    }
}

fn left_out(backfills: &Backfills, position: u64) -> Vec<RelationId> {
    let position = Lsn::from_wire(position).expect("a position");
    backfills.contained(CommitLsn(position)).collect()
}

fn pass(backfills: &mut Backfills, position: u64) {
    backfills.pass(EndLsn(Lsn::from_wire(position).expect("a position")));
}

#[test]
fn what_rows_contain_is_left_out_until_a_checkpoint_is_past_it() {
    let mut backfills = Backfills::of([contained()]);
    assert_eq!(left_out(&backfills, 499), [TABLE]);
    assert!(left_out(&backfills, 500).is_empty());
    // The next start must know it, though no row is to come.
    assert_eq!(backfills.take_names(), Some(vec![contained().table]));
    assert!(backfills.records().next().is_none() && !backfills.has_changed());
    pass(&mut backfills, 499);
    assert_eq!((backfills.take_names(), backfills.has_changed()), (None, false));
    pass(&mut backfills, 500);
    assert!(left_out(&backfills, 1).is_empty());
    assert_eq!(backfills.take_names(), Some(Vec::new()));
    let written = backfills.take_changed();
    assert_eq!(written.len(), 1);
    assert!(written.iter().all(|record| record.contained.is_none()));
}

/// The table got a key, and somebody asks for its rows again.
#[test]
fn what_rows_contain_is_left_out_of_a_later_request_too() {
    let mut backfills = Backfills::of([contained()]);
    backfills.add_due(due_record());
    assert_eq!(left_out(&backfills, 499), [TABLE]);
    assert_eq!(backfills.take_names().map(|names| names.len()), Some(1));
    let written = backfills.take_changed();
    assert!(written.iter().all(|record| record.contained == contained().contained));
    pass(&mut backfills, 600);
    assert!(left_out(&backfills, 499).is_empty());
    assert!(backfills.take_changed().iter().all(|record| record.contained.is_none()));
    assert_eq!(backfills.take_names(), None);
}

#[test]
fn what_is_read_for_a_table_that_is_over_means_nothing_to_its_next_request() {
    let now = Instant::now();
    let mut backfills = Backfills::default();
    backfills.add_due(due_record());
    assert!(backfills.next_job(now).is_some());
    backfills.keep(|_, _| false);
    backfills.add_due(due_record());
    assert!(backfills.next_job(now).is_none(), "one job at a time");
    backfills.refused(Unfit::Condition("of the former request".to_owned()));
    assert_eq!(backfills.records().count(), 1);
    assert!(backfills.next_job(now).is_some());
}

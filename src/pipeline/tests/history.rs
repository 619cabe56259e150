//! What the server's log holds: transactions in commit order, and what pgoutput says of them.

/// The outbox table and another table of the same publication, by OID.
const OUTBOX: u32 = 16_384;
const OTHER: u32 = 16_390;

/// How far apart records lie in the log, at least.
const RECORD_BYTES: u64 = 16;

/// A change of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Change {
    /// A row of the outbox table: an event.
    Event { id: String, payload_bytes: usize },
    /// A row of the other table.
    Other,
    /// Rows of the outbox table are gone: no event.
    Truncate,
    /// A logical message that nobody configured.
    Message,
}

/// A committed transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Scripted {
    pub(super) commit_lsn: u64,
    pub(super) end_lsn: u64,
    xid: u32,
    changes: Vec<(u64, Change)>,
}

impl Scripted {
    /// The ids of its events, in order.
    pub(super) fn events(&self) -> impl Iterator<Item = &str> {
        self.changes.iter().filter_map(|(_, change)| match change {
            Change::Event { id, .. } => Some(id.as_str()),
            Change::Other | Change::Truncate | Change::Message => None,
        })
    }

    /// Its messages, each with its place in the log; `knows_tables` tells whether this stream has
    /// described the tables.
    pub(super) fn messages(&self, knows_tables: &mut bool) -> Vec<(u64, Vec<u8>)> {
        let first = self.changes.first().map_or(self.commit_lsn, |(lsn, _)| *lsn);
        let mut messages = vec![(first, self.begin())];
        for (lsn, change) in &self.changes {
            if !*knows_tables && !matches!(change, Change::Message) {
                *knows_tables = true;
                messages.push((0, relation(OUTBOX, "outbox_events")));
                messages.push((0, relation(OTHER, "audit_log")));
            }
            messages.push((*lsn, change.encode(*lsn)));
        }
        messages.push((self.commit_lsn, self.commit()));
        messages
    }

    fn committed_at(&self) -> [u8; 8] {
        (800_000_000_000_000 + i64::from(self.xid)).to_be_bytes()
    }

    fn begin(&self) -> Vec<u8> {
        let xid = self.xid.to_be_bytes();
        [&b"B"[..], &self.commit_lsn.to_be_bytes(), &self.committed_at(), &xid].concat()
    }

    fn commit(&self) -> Vec<u8> {
        let positions = [self.commit_lsn, self.end_lsn].map(u64::to_be_bytes).concat();
        [&b"C\0"[..], &positions, &self.committed_at()].concat()
    }
}

impl Change {
    fn encode(&self, lsn: u64) -> Vec<u8> {
        match self {
            Self::Event { id, payload_bytes } => {
                let payload = format!("{{\"x\":\"{}\"}}", "y".repeat(*payload_bytes));
                insert(OUTBOX, &[id, "order-1", "order.placed", &payload])
            }
            Self::Other => insert(OTHER, &["1", "2", "3", "4"]),
            Self::Truncate => {
                let relations = [1, OUTBOX].map(u32::to_be_bytes);
                [&b"T"[..], &relations[0], b"\0", &relations[1]].concat()
            }
            Self::Message => {
                let length = 2_u32.to_be_bytes();
                [&b"M\x01"[..], &lsn.to_be_bytes(), b"unheard\0", &length, b"{}"].concat()
            }
        }
    }
}

fn relation(oid: u32, name: &str) -> Vec<u8> {
    // uuid, text, text, jsonb.
    let columns = [("id", 2950_u32), ("aggregate_id", 25), ("event_type", 25), ("payload", 3802)];
    let mut message =
        [&b"R"[..], &oid.to_be_bytes(), b"public\0", name.as_bytes(), b"\0d"].concat();
    message.extend_from_slice(&4_u16.to_be_bytes());
    for (column, column_type) in columns {
        message.push(u8::from(column == "id"));
        message.extend_from_slice(column.as_bytes());
        message.push(0);
        message.extend_from_slice(&column_type.to_be_bytes());
        message.extend_from_slice(&(-1_i32).to_be_bytes());
    }
    message
}

fn insert(oid: u32, values: &[&str]) -> Vec<u8> {
    let mut message = [&b"I"[..], &oid.to_be_bytes(), b"N"].concat();
    message.extend_from_slice(&u16::try_from(values.len()).expect("few").to_be_bytes());
    for value in values {
        message.push(b't');
        message.extend_from_slice(&u32::try_from(value.len()).expect("short").to_be_bytes());
        message.extend_from_slice(value.as_bytes());
    }
    message
}

/// The whole log.
#[derive(Clone, Debug)]
pub(super) struct History {
    pub(super) transactions: Vec<Scripted>,
    /// Where the log ends.
    pub(super) end: u64,
    next_xid: u32,
}

impl History {
    /// An empty log that begins somewhere.
    pub(super) fn new() -> Self {
        Self { transactions: Vec::new(), end: 0x1000, next_xid: 700 }
    }

    /// Lets the log grow by what no slot of ours is sent.
    pub(super) fn grow_silently(&mut self, random: &mut fastrand::Rng) {
        self.end += RECORD_BYTES * random.u64(1..500);
    }

    /// Appends what random applications do; `count` transactions.
    pub(super) fn grow(&mut self, count: usize, random: &mut fastrand::Rng) {
        for _ in 0..count {
            // Commit records may touch: the next one begins where the last one ended.
            let touches = random.u8(0..3) == 0;
            let changes = match random.u8(0..10) {
                0 => 0,
                1 => random.usize(20..80),
                _ => random.usize(1..6),
            };
            self.append(changes, if touches { 0 } else { random.u64(1..200) }, random);
        }
        // Other databases write too.
        self.end += RECORD_BYTES * random.u64(1..50);
    }

    /// Appends one transaction, `gap` records behind the log's end.
    pub(super) fn append(&mut self, changes: usize, gap: u64, random: &mut fastrand::Rng) {
        let (begins, xid) = (self.end, self.next_xid);
        let is_wide = random.u8(0..if changes < 20 { 20 } else { 4 }) == 0;
        let is_of_others = random.u8(0..6) == 0;
        let change = |index: usize, random: &mut fastrand::Rng| match random.u8(0..12) {
            _ if is_of_others => Change::Other,
            0 => Change::Other,
            1 => Change::Truncate,
            2 => Change::Message,
            _ => Change::Event {
                id: format!("{begins:08x}-{xid:04x}-4000-8000-{index:012x}"),
                payload_bytes: if is_wide { random.usize(..60_000) } else { random.usize(..60) },
            },
        };
        let changes = (0..changes).map(|index| change(index, random)).collect();
        self.commit(changes, gap, random);
    }

    /// Appends one transaction of the table that is not configured.
    pub(super) fn append_of_others(&mut self, changes: usize, random: &mut fastrand::Rng) {
        self.commit(vec![Change::Other; changes], 1, random);
    }

    /// Appends one transaction of events of that size.
    pub(super) fn append_events(
        &mut self,
        count: usize,
        payload_bytes: usize,
        random: &mut fastrand::Rng,
    ) {
        let (begins, xid) = (self.end, self.next_xid);
        let event = |index: usize| Change::Event {
            id: format!("{begins:08x}-{xid:04x}-4000-8000-{index:012x}"),
            payload_bytes,
        };
        self.commit((0..count).map(event).collect(), 1, random);
    }

    fn commit(&mut self, changes: Vec<Change>, gap: u64, random: &mut fastrand::Rng) {
        let commit_lsn = self.end + gap * RECORD_BYTES;
        let end_lsn = commit_lsn + RECORD_BYTES * random.u64(1..4);
        // Records of a transaction lie before its commit record; rows of a COPY share one.
        let mut lsn = || commit_lsn.saturating_sub(RECORD_BYTES * random.u64(1..100)).max(1);
        let changes = changes.into_iter().map(|change| (lsn(), change)).collect();
        let xid = self.next_xid;
        self.next_xid += 1;
        self.transactions.push(Scripted { commit_lsn, end_lsn, xid, changes });
        self.end = end_lsn;
    }

    /// Another course of things from `switch_point` on: what was not yet in the log never is.
    pub(super) fn fork(&mut self, switch_point: u64, random: &mut fastrand::Rng) {
        self.transactions.retain(|transaction| transaction.end_lsn <= switch_point);
        self.end = switch_point + RECORD_BYTES * random.u64(0..20);
        self.next_xid += 1;
    }
}

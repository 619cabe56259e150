//! What the application committed, as its own bookkeeping says: later updates and deletes of the
//! outbox do not change it.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::postgres::Session;

/// The bookkeeping table, which is in no publication.
pub const CREATE_TABLE: &str = "CREATE TABLE truth (id uuid PRIMARY KEY, aggregate_id text, event_type text, version int, \
     xid bigint, digest bytea)";

/// The digest column's value for rows whose payload reaches Kafka byte for byte.
pub const DIGEST_SQL: &str = "sha256(convert_to(payload::text, 'UTF8'))";

/// Rows of one fetch: a million rows must not be in memory as text all at once.
const FETCH_ROWS: usize = 20_000;

/// One committed row of the outbox.
#[derive(Clone, Debug)]
pub struct Committed {
    pub aggregate_id: String,
    pub event_type: String,
    /// Rises with each event of the aggregate, in the order of commits.
    pub version: u32,
    pub xid: u32,
    /// Of the payload as the server prints it; none where the event may differ from it.
    pub digest: Option<[u8; 32]>,
}

impl Committed {
    /// Whether `text` is the payload, byte for byte.
    pub fn is_payload(&self, text: &[u8]) -> bool {
        self.digest.is_none_or(|digest| Sha256::digest(text).as_slice() == digest)
    }
}

/// All that was committed so far, by id.
pub fn read(session: &Session) -> HashMap<String, Committed> {
    session.run(
        "BEGIN; DECLARE all_rows NO SCROLL CURSOR FOR \
         SELECT id, aggregate_id, event_type, version, xid, encode(digest, 'hex') FROM truth",
    );
    let mut committed = HashMap::new();
    loop {
        let rows = session.rows(&format!("FETCH {FETCH_ROWS} FROM all_rows"));
        if rows.is_empty() {
            break;
        }
        committed.extend(rows.into_iter().map(|row| parse(&row)));
    }
    session.run("COMMIT");
    committed
}

fn parse(row: &[Option<String>]) -> (String, Committed) {
    let [Some(id), Some(aggregate_id), Some(event_type), Some(version), Some(xid), digest] = row
    else {
        panic!("truth has a NULL: {row:?}");
    };
    let committed = Committed {
        aggregate_id: aggregate_id.clone(),
        event_type: event_type.clone(),
        version: version.parse().expect("a number"),
        xid: xid.parse().expect("a number"),
        digest: digest.as_deref().map(bytes),
    };
    (id.clone(), committed)
}

fn bytes(hexadecimal: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    assert_eq!(hexadecimal.len(), 2 * bytes.len(), "{hexadecimal}");
    for (index, byte) in bytes.iter_mut().enumerate() {
        let digits = &hexadecimal[2 * index..2 * index + 2];
        *byte = u8::from_str_radix(digits, 16).expect("hexadecimal digits");
    }
    bytes
}

//! A table's rows under one snapshot, as the stream would have sent them: the text of each value, in
//! the forms that a walsender's session pins.
//!
//! ```text
//! waiting ─► rows that waited for a poller, in one transaction, one by one
//! chunk ───► some rows of a table with a key, in a transaction of their own
//!            condition (of who asked for them, before any is read)
//! whole ───► all rows of a table without a key, in one transaction, one by one
//! ```
//!
//! A table is locked (ACCESS SHARE) before the snapshot is taken, because a rewrite is not safe
//! there: to a snapshot that was taken before it the table is empty (manual page mvcc-caveats).

mod chunk;
mod chunk_reader;
mod condition;
mod copy_text;
mod moment;
mod open_transactions;
mod shape;
mod waiting;
mod whole;

pub use chunk::{Bound, ChunkQuery, Part, RowBlock};
pub use chunk_reader::{ChunkReader, Prepared};
pub use condition::ConditionError;
pub use moment::{Moment, Snapshot};
pub use open_transactions::{Look, OpenTransactions, mark};
pub use shape::{KeyColumn, Shape};
pub use waiting::{After, Row, Rows, RowsQuery, SnapshotReader, is_partitioned};
pub use whole::WholeTable;

use super::{PostgresError, Settings, sql::Sql};

/// No bound on the statement that reads, nor on a pause of ours while Kafka is slow (see also
/// [`UNBOUNDED_TRANSACTION`]). Rows that a policy would hide are an error, and never silently left
/// out.
const SESSION_OPTIONS: &str = "-c statement_timeout=0 -c idle_in_transaction_session_timeout=0 \
    -c lock_timeout=10s -c row_security=off -c client_encoding=UTF8";

/// The same for the transaction. PostgreSQL 17 and later have the setting; a session that names it
/// where it is not there is refused.
const UNBOUNDED_TRANSACTION: &str = "SELECT set_config(name, '0', false) FROM pg_settings WHERE name \
    = 'transaction_timeout'";

/// A session that reads rows.
async fn connect(settings: &Settings) -> Result<Sql, PostgresError> {
    let sql = Sql::connect_with(settings, SESSION_OPTIONS).await?;
    sql.execute("begin a session that reads rows", UNBOUNDED_TRANSACTION).await?;
    Ok(sql)
}

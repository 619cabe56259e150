//! All rows of a table, under a snapshot that somebody exported: of a table without a key, whose rows
//! have no order in which they could be read piece by piece.

use super::{
    Shape, SnapshotReader,
    copy_text::{Lines, read_line},
};
use crate::{
    change::ValueSlot,
    postgres::{PostgresError, TableName, name::quote_identifier, sql::Sql},
};

/// What a frame may keep of its memory from one row to the next.
const FRAME_CAPACITY_MAX: usize = 1 << 20;

/// Rows on their way: they wait in the socket, and nothing is gathered here, however many they are.
pub struct WholeTable {
    lines: Lines,
    width: usize,
}

impl SnapshotReader {
    /// The session: what it is asked it answers as of the snapshot.
    pub fn sql(&self) -> &Sql {
        &self.sql
    }

    /// The rows of a table as the publication delivers them, in whichever order the server has them.
    ///
    /// # Errors
    /// Where the server refuses, or the connection breaks.
    pub async fn whole_table(
        &self,
        table: &TableName,
        shape: &Shape,
    ) -> Result<WholeTable, PostgresError> {
        let statement = format!("COPY ({}) TO STDOUT", rows_sql(table, shape));
        let lines = Lines::of(&self.sql, format!("read table {table}"), &statement).await?;
        Ok(WholeTable { lines, width: shape.table.columns.len() })
    }
}

fn rows_sql(table: &TableName, shape: &Shape) -> String {
    let columns = shape.table.columns.iter().map(|column| quote_identifier(&column.name));
    let columns = columns.collect::<Vec<_>>().join(", ");
    // A child table's rows are published under its own name; a partition's under the root's.
    let only = if shape.is_partitioned { "" } else { "ONLY " };
    let row_filter = shape.table.row_filter.as_ref();
    let row_filter = row_filter.map_or(String::new(), |filter| format!(" WHERE ({filter})"));
    format!("SELECT {columns} FROM {only}{}{row_filter}", table.quoted())
}

impl WholeTable {
    /// Puts the values of the next row into `frame`, and their places into `slots`. False behind the
    /// last row.
    ///
    /// # Cancel safety
    /// A row is read whole or stays queued.
    ///
    /// # Errors
    /// Where the server refuses, or the connection breaks.
    pub async fn next(
        &mut self,
        frame: &mut Vec<u8>,
        slots: &mut Vec<ValueSlot>,
    ) -> Result<bool, PostgresError> {
        let Some(line) = self.lines.next().await? else { return Ok(false) };
        frame.clear();
        slots.clear();
        // A huge row must not take twice its size, nor keep it for those behind it.
        if frame.capacity() > FRAME_CAPACITY_MAX {
            *frame = Vec::new();
        }
        frame.reserve(line.len());
        read_line(&line, self.width, frame, slots)?;
        Ok(true)
    }
}

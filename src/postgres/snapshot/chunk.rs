//! One chunk: some rows of a table with a key, by one `COPY`.

use super::{
    KeyColumn, Shape,
    copy_text::{Lines, read_line},
};
use crate::{
    change::{Tuple, TupleValue, ValueSlot},
    postgres::{
        PostgresError, TableName,
        name::{quote_identifier, quote_literal},
        sql::Sql,
    },
};

/// Which rows.
#[derive(Clone, Copy, Debug)]
pub struct ChunkQuery<'a> {
    /// Of which table.
    pub table: &'a TableName,
    /// What it is.
    pub shape: &'a Shape,
    /// An SQL condition of who asked for them.
    pub condition: Option<&'a str>,
    /// Which of those.
    pub part: Part<'a>,
    /// Once the rows that are read take so many bytes, the rest is left.
    pub bytes_max: usize,
    /// The same of so many rows, those that are left out not counted.
    pub meant_rows_max: usize,
}

/// Which part of a table's rows.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// The next ones in the order of the key.
    Behind {
        /// The keys before theirs.
        bound: Bound<'a>,
        /// How many are looked at, at most: those that row filter and condition leave out count too.
        /// Few matching rows in a large table would otherwise be looked for until its end.
        rows_max: usize,
    },
    /// Those with these keys.
    Of {
        /// The texts of their columns.
        keys: &'a [Vec<String>],
        /// Of each row it is told whether its key is among these.
        bound: Bound<'a>,
    },
}

/// The first keys in their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound<'a> {
    /// None of them.
    Nothing,
    /// Up to and with this one: the texts of its columns.
    UpTo(&'a [String]),
    /// All.
    Everything,
}

/// Rows, each value as its text.
#[derive(Debug, Default)]
pub struct RowBlock {
    frame: Vec<u8>,
    slots: Vec<ValueSlot>,
    /// Values of a row.
    width: usize,
    is_cut_off: bool,
    /// How many rows were looked at.
    scanned: usize,
    /// The last row is none of those that were asked for. It only says how far it was looked.
    is_last_left_out: bool,
}

impl RowBlock {
    /// With room for so many bytes.
    fn new(width: usize, bytes: usize) -> Self {
        Self { width, frame: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.scanned_rows().len() - usize::from(self.is_last_left_out)
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many rows were looked at to find these.
    pub fn scanned(&self) -> usize {
        self.scanned
    }

    /// The last row that was looked at, whether it is one of these or not.
    pub fn last_scanned(&self) -> Option<Tuple<'_>> {
        self.scanned_rows().last()
    }

    fn scanned_rows(&self) -> impl ExactSizeIterator<Item = Tuple<'_>> {
        self.slots.chunks_exact(self.width.max(1)).map(|slots| Tuple::new(&self.frame, slots))
    }

    /// All are read. Where some may have been left out the place of each among those that were looked
    /// at is its last value, below zero where it is left out itself.
    fn finish(&mut self, are_numbered: bool) -> Result<(), PostgresError> {
        let count = self.scanned_rows().len();
        self.scanned = count;
        let Some(last) = self.last_scanned().filter(|_| are_numbered) else { return Ok(()) };
        let number = match last.iter().last() {
            Some(TupleValue::Text(text)) => std::str::from_utf8(text).ok(),
            Some(TupleValue::Null | TupleValue::UnchangedToast) | None => None,
        };
        let number: i64 = number
            .and_then(|number| number.parse().ok())
            .ok_or_else(|| PostgresError::Protocol { what: "a row came without number".into() })?;
        self.scanned = usize::try_from(number.unsigned_abs()).unwrap_or(usize::MAX);
        self.is_last_left_out = number < 0;
        Ok(())
    }

    /// The memory that they take.
    pub fn bytes(&self) -> usize {
        self.frame.capacity() + self.slots.capacity() * size_of::<ValueSlot>()
    }

    /// The bytes of all values.
    pub(super) fn frame_bytes(&self) -> usize {
        self.frame.len()
    }

    /// So much of it as they fill.
    pub fn filled_bytes(&self) -> usize {
        self.frame.len() + size_of_val(self.slots.as_slice())
    }

    /// True where more rows were asked for than there was room for.
    pub fn is_cut_off(&self) -> bool {
        self.is_cut_off
    }

    /// The rows, in their order: a value for each column that is delivered, perhaps with one more
    /// behind them; always of [`Part::Of`].
    pub fn rows(&self) -> impl ExactSizeIterator<Item = Tuple<'_>> {
        self.scanned_rows().take(self.len())
    }

    /// Of a row of [`Part::Of`], whether its key is at or before the bound.
    pub fn is_within_bound(row: Tuple<'_>) -> bool {
        row.iter().last() == Some(TupleValue::Text(b"t"))
    }
}

#[cfg(test)]
impl RowBlock {
    /// Rows of a test: the lines of a COPY.
    pub(crate) fn of_lines(width: usize, lines: &[String]) -> Self {
        let mut block = Self::new(width, 0);
        for line in lines {
            let read = read_line(line.as_bytes(), width, &mut block.frame, &mut block.slots);
            read.expect("a line");
        }
        block.finish(false).expect("no numbers");
        block
    }

    /// The same, with their numbers behind them.
    pub(crate) fn of_numbered_lines(width: usize, lines: &[String]) -> Self {
        let mut block = Self::of_lines(width + 1, lines);
        block.finish(true).expect("numbers");
        block
    }
}

impl ChunkQuery<'_> {
    /// How many values a row has.
    fn width(&self) -> usize {
        let columns = self.shape.table.columns.len();
        match self.part {
            Part::Behind { .. } => columns + usize::from(self.are_rows_numbered()),
            Part::Of { .. } => columns + 1,
        }
    }

    /// Of the rows that are looked at some may be left out.
    fn are_rows_numbered(&self) -> bool {
        matches!(self.part, Part::Behind { .. })
            && (self.shape.table.row_filter.is_some() || self.condition.is_some())
    }

    /// The rows in one statement.
    pub(super) fn sql(&self) -> String {
        let key = Comparison { key: &self.shape.key };
        let columns = self.shape.table.columns.iter().map(|column| quote_identifier(&column.name));
        let mut columns = columns.collect::<Vec<_>>().join(", ");
        let mut conditions = Vec::new();
        // On lines of their own: a condition may end with a comment.
        conditions.extend(self.shape.table.row_filter.as_ref().map(|filter| format!("({filter})")));
        conditions.extend(self.condition.map(|condition| format!("(\n{condition}\n)")));
        match self.part {
            Part::Behind { bound, rows_max } => {
                let behind = match bound {
                    Bound::Nothing => String::new(),
                    Bound::UpTo(last) => format!(" WHERE ({})", key.is_behind(last)),
                    Bound::Everything => " WHERE false".to_owned(),
                };
                let (from, order) = (self.from(), key.columns());
                let rest = format!("FROM {from}{behind} ORDER BY {order} LIMIT {rows_max}");
                return match conditions.as_slice() {
                    [] => format!("SELECT {columns} {rest}"),
                    conditions => {
                        let is_meant = format!("({}) IS TRUE", conditions.join(" AND "));
                        numbered(self.width() - 1, &format!("SELECT {columns}, {is_meant} {rest}"))
                    }
                };
            }
            Part::Of { keys, bound } => {
                let keys: Vec<String> = keys.iter().map(|texts| key.is(texts)).collect();
                conditions.push(format!("({})", keys.join(" OR ")));
                let is_within = match bound {
                    Bound::Nothing => "false".to_owned(),
                    Bound::UpTo(last) => format!("NOT ({})", key.is_behind(last)),
                    Bound::Everything => "true".to_owned(),
                };
                columns.push_str(&format!(", {is_within}"));
            }
        }
        format!("SELECT {columns} FROM {} WHERE {}", self.from(), conditions.join(" AND "))
    }

    /// What reading them is called in errors.
    pub(super) fn action(&self) -> String {
        format!("read table {}", self.table)
    }

    /// The rows that come, about so many bytes.
    pub(super) async fn take(
        &self,
        lines: &mut Lines,
        bytes: usize,
    ) -> Result<RowBlock, PostgresError> {
        let mut block = RowBlock::new(self.width(), bytes);
        while let Some(line) = lines.next().await? {
            if block.frame.len() >= self.bytes_max
                || block.scanned_rows().len() >= self.meant_rows_max
            {
                block.is_cut_off = true;
                break;
            }
            read_line(&line, block.width, &mut block.frame, &mut block.slots)?;
        }
        block.finish(self.are_rows_numbered())?;
        Ok(block)
    }

    /// The table as a statement reads it.
    pub(super) fn from(&self) -> String {
        // A child table's rows are published under its own name; a partition's under the root's.
        let only = if self.shape.is_partitioned { "" } else { "ONLY " };
        format!("{only}{}", self.table.quoted())
    }

    /// Asks the server whether it can read these rows, without reading any.
    ///
    /// # Errors
    /// Where it refuses, or the connection breaks.
    pub async fn check(&self, sql: &Sql) -> Result<(), PostgresError> {
        let action = self.action();
        // As the reader has it: rows must not be hidden from it.
        sql.execute(&action, "SET row_security = off").await?;
        // Prepared, so that it is one statement and no more.
        sql.rows(&action, format!("SELECT FROM ({}) rows LIMIT 0", self.sql()).as_str(), &[])
            .await
            .map(drop)
    }
}

/// Of rows with so many columns, and behind them whether they are meant, those that are and the last
/// one, each with its number; below zero where it is not meant.
fn numbered(columns: usize, rows: &str) -> String {
    let names = (0..columns).map(|index| format!("c{index}")).collect::<Vec<_>>().join(", ");
    format!(
        "SELECT {names}, CASE WHEN is_meant THEN number ELSE -number END FROM ( \
            SELECT *, row_number() OVER () AS number, lead(true) OVER () IS NULL AS is_last \
            FROM ({rows}) scanned ({names}, is_meant) \
         ) numbered WHERE is_meant OR is_last"
    )
}

/// Compares the key of rows with texts. These are written without a type: beside a column they are of
/// its type, but for composite types, and are compared in the collation that is written there.
#[derive(Clone, Copy)]
struct Comparison<'a> {
    key: &'a [KeyColumn],
}

impl Comparison<'_> {
    fn columns(self) -> String {
        self.key.iter().map(ordered).collect::<Vec<_>>().join(", ")
    }

    fn is(self, texts: &[String]) -> String {
        let columns = self.key.iter().zip(texts);
        let equals = columns.map(|(column, text)| compare(column, "=", text));
        format!("({})", equals.collect::<Vec<_>>().join(" AND "))
    }

    /// As one comparison of rows, which an index takes, where their operators lie in one schema.
    fn is_behind(self, texts: &[String]) -> String {
        let [first, rest @ ..] = self.key else { return "false".to_owned() };
        if rest.iter().all(|column| column.operator_schema == first.operator_schema) {
            let values = self.key.iter().zip(texts);
            let texts: Vec<String> = values.map(|(column, text)| literal(column, text)).collect();
            let operator = operator(first, ">");
            return format!("({}) {operator} ({})", self.columns(), texts.join(", "));
        }
        let Some((text, texts)) = texts.split_first() else { return "false".to_owned() };
        let [not_before, behind, equal] =
            [">=", ">", "="].map(|symbol| compare(first, symbol, text));
        let rest = Comparison { key: rest }.is_behind(texts);
        // The first one alone is what an index takes.
        format!("{not_before} AND ({behind} OR {equal} AND ({rest}))")
    }
}

fn compare(column: &KeyColumn, symbol: &str, text: &str) -> String {
    format!("{} {} {}", ordered(column), operator(column, symbol), literal(column, text))
}

/// The column as the key's index orders it.
fn ordered(column: &KeyColumn) -> String {
    let name = quote_identifier(&column.name);
    column.collate.as_ref().map_or(name.clone(), |collation| format!("{name} COLLATE {collation}"))
}

fn literal(column: &KeyColumn, text: &str) -> String {
    let literal = quote_literal(text);
    column.cast.as_ref().map_or(literal.clone(), |type_name| format!("{literal}::{type_name}"))
}

/// An extension's operators need not be on the search path, and that is not ours to change: the text
/// of some values depends on it.
fn operator(column: &KeyColumn, symbol: &str) -> String {
    match &column.operator_schema {
        Some(schema) => format!("OPERATOR({}.{symbol})", quote_identifier(schema)),
        None => symbol.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        change::{Oid, RelationId, ReplicaIdentity},
        postgres::{
            catalog::{Table, TableColumn},
            identity::RowIdentity,
        },
    };

    fn shape(key: &[(&str, Option<&str>)], row_filter: Option<&str>) -> Shape {
        let column = |name: &str| TableColumn {
            name: name.to_owned(),
            own_type_oid: Oid(23),
            type_oid: Oid(23),
        };
        let key_column = |(name, schema): &(&str, Option<&str>)| KeyColumn {
            name: (*name).to_owned(),
            number: 1,
            type_oid: Oid(23),
            collation: Oid(0),
            index: 0,
            operator_schema: schema.map(str::to_owned),
            collate: None,
            cast: None,
        };
        Shape {
            oid: RelationId(1),
            is_partitioned: false,
            table: Table {
                columns: ["id", "b\"c"].map(column).into(),
                withheld: Vec::new(),
                row_filter: row_filter.map(str::to_owned),
            },
            identity: RowIdentity {
                replica_identity: ReplicaIdentity::Default,
                columns: Vec::new(),
                primary_key: Vec::new(),
            },
            key: key.iter().map(key_column).collect(),
            estimate: None,
        }
    }

    fn sql(shape: &Shape, condition: Option<&str>, part: Part<'_>) -> String {
        let table = &TableName { schema: "public".to_owned(), name: "t".to_owned() };
        ChunkQuery { table, shape, condition, part, bytes_max: 1, meant_rows_max: 1 }.sql()
    }

    #[test]
    fn the_next_rows_are_behind_the_cursor_in_the_order_of_the_key() {
        let first = Part::Behind { bound: Bound::Nothing, rows_max: 7 };
        assert_eq!(
            sql(&shape(&[("id", None)], None), None, first),
            "SELECT \"id\", \"b\"\"c\" FROM ONLY \"public\".\"t\" ORDER BY \"id\" LIMIT 7"
        );
        let cursor = &["o'1".to_owned(), "2".to_owned()];
        let next = Part::Behind { bound: Bound::UpTo(cursor), rows_max: 7 };
        assert_eq!(
            sql(
                &shape(&[("b\"c", None), ("id", None)], Some("id > 3")),
                Some("status = 'x' -- only"),
                next
            ),
            "SELECT c0, c1, CASE WHEN is_meant THEN number ELSE -number END FROM ( SELECT *, \
             row_number() OVER () AS number, lead(true) OVER () IS NULL AS is_last FROM (SELECT \
             \"id\", \"b\"\"c\", ((id > 3) AND (\nstatus = 'x' -- only\n)) IS TRUE FROM ONLY \
             \"public\".\"t\" WHERE ((\"b\"\"c\", \"id\") > ('o''1', '2')) ORDER BY \"b\"\"c\", \
             \"id\" LIMIT 7) scanned (c0, c1, is_meant) ) numbered WHERE is_meant OR is_last"
        );
    }

    #[test]
    fn the_last_row_says_how_far_it_was_looked_also_where_it_is_left_out() {
        let lines = ["1\ta\t2\n", "2\tb\t7\n", "3\tc\t-9\n"].map(str::to_owned);
        let ids = |block: &RowBlock| -> Vec<Vec<u8>> {
            let id = |row: Tuple<'_>| match row.get(0) {
                Some(TupleValue::Text(text)) => text.to_vec(),
                _ => panic!("no id"),
            };
            block.rows().chain(block.last_scanned()).map(id).collect()
        };
        let all = RowBlock::of_numbered_lines(2, &lines);
        assert_eq!(ids(&all), [b"1", b"2", b"3"]);
        assert_eq!((all.len(), all.scanned()), (2, 9));
        let meant = RowBlock::of_numbered_lines(2, &lines[..2]);
        assert_eq!(ids(&meant), [b"1", b"2", b"2"]);
        assert_eq!((meant.len(), meant.scanned()), (2, 7));
        let none = RowBlock::of_numbered_lines(2, &lines[2..]);
        assert_eq!((none.is_empty(), none.scanned(), ids(&none).len()), (true, 9, 1));
        let nothing = RowBlock::of_numbered_lines(2, &[]);
        assert_eq!((nothing.is_empty(), nothing.scanned()), (true, 0));
        assert!(nothing.last_scanned().is_none());
    }

    #[test]
    fn single_rows_are_told_whether_they_are_within_the_bound() {
        let keys = &[vec!["1".to_owned()], vec!["2".to_owned()]];
        let shape = Shape { is_partitioned: true, ..shape(&[("id", None)], None) };
        let bound = ["5".to_owned()];
        assert_eq!(
            sql(&shape, None, Part::Of { keys, bound: Bound::UpTo(&bound) }),
            "SELECT \"id\", \"b\"\"c\", NOT ((\"id\") > ('5')) FROM \"public\".\"t\" WHERE \
             ((\"id\" = '1') OR (\"id\" = '2'))"
        );
        let all = sql(&shape, None, Part::Of { keys, bound: Bound::Everything });
        assert!(all.starts_with("SELECT \"id\", \"b\"\"c\", true FROM"), "{all}");
    }

    #[test]
    fn a_column_is_compared_as_its_index_orders_it_and_a_text_as_its_type_reads_it() {
        let mut key = shape(&[("a", None), ("b", None)], None).key;
        key[0].collate = Some("\"s\".\"C\"".to_owned());
        key[1].cast = Some("\"s\".pair".to_owned());
        let texts = ["x".to_owned(), "(1,2)".to_owned()];
        let key = Comparison { key: &key };
        assert_eq!(key.columns(), "\"a\" COLLATE \"s\".\"C\", \"b\"");
        assert_eq!(
            key.is_behind(&texts),
            "(\"a\" COLLATE \"s\".\"C\", \"b\") > ('x', '(1,2)'::\"s\".pair)"
        );
        assert_eq!(
            key.is(&texts),
            "(\"a\" COLLATE \"s\".\"C\" = 'x' AND \"b\" = '(1,2)'::\"s\".pair)"
        );
    }

    #[test]
    fn operators_of_extensions_are_named_with_their_schema() {
        let behind = |schemas: [Option<&str>; 2]| {
            let [a, b] = schemas;
            let key = shape(&[("a", a), ("b", b)], None).key;
            Comparison { key: &key }.is_behind(&["x".to_owned(), "y".to_owned()])
        };
        assert_eq!(behind([Some("my ext"); 2]), "(\"a\", \"b\") OPERATOR(\"my ext\".>) ('x', 'y')");
        assert_eq!(
            behind([None, Some("e")]),
            "\"a\" >= 'x' AND (\"a\" > 'x' OR \"a\" = 'x' AND ((\"b\") OPERATOR(\"e\".>) ('y')))"
        );
    }
}

//! A domain table as it stands in the stream: settings, compiled against its columns.

use crate::{
    change::{OldTuple, Place, RelationId, ReplicaIdentity, RowChange, Transaction},
    event::{
        ColumnAt, DomainEvent, ExtraHeaders, Payload, Raw, Reason, Route, Row, Unmapped, id,
        outbox::Shared,
        table::{
            DataForm, Description, Held, Mask, RowView, Scratch, Settings, TableChange,
            TableProblem,
            key::Key,
            kind::Kind,
            row_view::{ColumnView, Shown},
            steps::{Step, default_steps},
        },
    },
    value::Form,
};

/// The version of an event that says nothing of it.
const VERSION: &str = "1.0";

/// Ready to map changes.
#[derive(Debug)]
pub(in crate::event) struct Table {
    /// `schema.table`.
    name: String,
    columns: Vec<ColumnView>,
    /// A whole old row is one. Else it is of a partition whose identity is another one than the
    /// table's, and may hold no more than the key.
    has_whole_old_rows: bool,
    key: Key,
    data: DataForm,
    tombstone: bool,
    kinds: Kinds,
}

/// What its changes are without rules.
#[derive(Debug)]
struct Kinds {
    created: Kind,
    updated: Kind,
    deleted: Kind,
    truncated: Kind,
}

/// Where a change stands.
#[derive(Clone, Copy, Debug)]
pub(in crate::event) struct At<'a> {
    pub(in crate::event) relation: RelationId,
    pub(in crate::event) transaction: &'a Transaction,
    pub(in crate::event) place: Place,
}

impl Table {
    /// Compiles `settings` against the table.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub(in crate::event) fn compile(
        settings: &Settings,
        routes: &[Route],
        table: &Description,
    ) -> Result<Self, TableProblem> {
        let Description { schema, name, .. } = table;
        let columns = columns(settings, table)?;
        let find = |column: &str, role: &str| find(&columns, column, role);
        let key = Key::compile(settings, table, find)?;
        check_hidden_key(&columns, &key)?;
        let template = settings.topic.filled(schema, name);
        let kind = |what: &str| {
            let event_type = format!("{name}.{what}");
            Kind::compile(event_type, &template, routes, |column| find(column, "topic"))
        };
        let kinds = Kinds {
            created: kind("created")?,
            updated: kind("updated")?,
            deleted: kind("deleted")?,
            truncated: kind("truncated")?,
        };
        Ok(Self {
            name: format!("{schema}.{name}"),
            columns,
            has_whole_old_rows: table.replica_identity == ReplicaIdentity::Full,
            key,
            data: settings.data,
            tombstone: settings.tombstone,
            kinds,
        })
    }

    /// `schema.table`.
    pub(in crate::event) fn name(&self) -> &str {
        &self.name
    }

    /// Whether its events have null keys.
    pub(in crate::event) fn is_keyless(&self) -> bool {
        self.key.is_none()
    }

    /// Whether what deletes carry of the old row is enough for key and topic.
    ///
    /// # Errors
    /// [`TableProblem::NotInIdentity`] for the first column that is missing there.
    pub(in crate::event) fn check_old_rows(&self, table: &Description) -> Result<(), TableProblem> {
        let of_key = self.key.columns().map(|index| (index, "key"));
        let of_topic = self.kinds.deleted.topic_columns();
        let mut needed = of_key.chain(of_topic.map(|column| (column.index(), "topic")));
        let is_missing = |(index, _): &(usize, &str)| {
            self.columns.get(*index).is_some_and(|column| !column.is_identity)
        };
        match needed
            .find(is_missing)
            .and_then(|(index, role)| Some((self.columns.get(index)?, role)))
        {
            Some((column, role)) => Err(TableProblem::NotInIdentity {
                quoted_table: table.quoted(),
                column: column.name.clone(),
                role: role.to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// The events of a change, in their order.
    pub(in crate::event) fn steps(&self, change: TableChange<'_>) -> &'static [Step] {
        default_steps(change, self.moves(change), self.tombstone)
    }

    /// Whether the change gives a row another key.
    fn moves(&self, change: TableChange<'_>) -> bool {
        let TableChange::Row(RowChange::Update { old: Some(old), new }) = change else {
            return false;
        };
        let (old, new) = (self.old_row(old), RowView::new_row(&self.columns, new, None));
        self.key.columns().any(|index| match (old.at(index), new.at(index)) {
            // What was not sent is what it was.
            (Held::NotSent | Held::Unavailable, _) | (_, Held::NotSent | Held::Unavailable) => {
                false
            }
            (old, new) => old != new,
        })
    }

    fn old_row<'a>(&'a self, old: OldTuple<'a>) -> RowView<'a> {
        match self.old_tuple(old) {
            OldTuple::Key(tuple) => RowView::identity(&self.columns, tuple),
            OldTuple::Full(tuple) => RowView::whole(&self.columns, tuple),
        }
    }

    fn old_tuple<'a>(&self, old: OldTuple<'a>) -> OldTuple<'a> {
        match old {
            OldTuple::Full(tuple) if !self.has_whole_old_rows => OldTuple::Key(tuple),
            old => old,
        }
    }

    /// Old and new row, as far as there are such.
    fn rows<'a>(&'a self, change: TableChange<'a>) -> (Option<RowView<'a>>, Option<RowView<'a>>) {
        match change {
            TableChange::Row(RowChange::Insert { new }) => {
                (None, Some(RowView::new_row(&self.columns, new, None)))
            }
            TableChange::Row(RowChange::Update { old, new }) => {
                let sent = old.map(|old| self.old_tuple(old));
                let new = RowView::new_row(&self.columns, new, sent);
                (old.map(|old| self.old_row(old)), Some(new))
            }
            TableChange::Row(RowChange::Delete { old }) => (Some(self.old_row(old)), None),
            TableChange::Truncate => (None, None),
        }
    }

    /// One of the events of a change.
    pub(in crate::event) fn event<'a>(
        &'a self,
        step: Step,
        change: TableChange<'a>,
        shared: Shared<'a>,
        at: At<'_>,
        scratch: &'a mut Scratch,
    ) -> Result<DomainEvent<'a>, Reason> {
        scratch.shrink();
        scratch.of_transaction.enter(at.transaction);
        let Scratch { id, topic, key, of_transaction } = scratch;
        let of_transaction = &*of_transaction;
        let (old, new) = self.rows(change);
        let kind = self.kind(step);
        let row = match step {
            Step::Created | Step::Updated => new,
            Step::Deleted | Step::Tombstone => old,
            Step::Truncated => None,
        };
        let payload = match (step, self.data) {
            (Step::Tombstone, _) => Payload::Bare(None),
            (Step::Truncated, _) => Payload::Data("null"),
            (Step::Created, DataForm::Change) => Payload::Change { before: None, after: new },
            (Step::Updated, DataForm::Change) => Payload::Change { before: old, after: new },
            (Step::Deleted, DataForm::Change) => Payload::Change { before: old, after: None },
            (Step::Created | Step::Updated | Step::Deleted, DataForm::Row) => {
                row.map_or(Payload::Data("null"), Payload::Row)
            }
        };
        let context = shared.context;
        Ok(DomainEvent {
            id: id::of_change(
                id::Happened {
                    system_id: &shared.identity.system_id,
                    at,
                    is_truncate: matches!(change, TableChange::Truncate),
                    event_type: &kind.event_type,
                    condition: "",
                },
                id,
            ),
            event_type: &kind.event_type,
            version: VERSION,
            source: shared.source,
            correlation_id: context
                .correlation_id()
                .unwrap_or_else(|| of_transaction.correlation_id()),
            causation_id: context.causation_id(),
            occurred_at: of_transaction.occurred_at()?,
            traceparent: context.traceparent(),
            key: match row {
                Some(row) => self.key.write(row, key)?,
                None => None,
            },
            topic: kind.topic(|column| topic_text(column, row), topic)?,
            payload,
            headers: ExtraHeaders::none(),
            partition: match step {
                Step::Truncated => Some(0),
                Step::Created | Step::Updated | Step::Deleted | Step::Tombstone => None,
            },
        })
    }

    fn kind(&self, step: Step) -> &Kind {
        let Kinds { created, updated, deleted, truncated } = &self.kinds;
        match step {
            Step::Created => created,
            Step::Updated => updated,
            Step::Deleted | Step::Tombstone => deleted,
            Step::Truncated => truncated,
        }
    }

    /// Which row it is, for errors.
    pub(in crate::event) fn locate(
        &self,
        change: TableChange<'_>,
        transaction: &Transaction,
    ) -> Box<Row> {
        let (old, new) = self.rows(change);
        let mut memory = Vec::new();
        let key = new.or(old).and_then(|row| self.key.write(row, &mut memory).ok().flatten());
        Box::new(Row {
            table: self.name.clone(),
            id: key.map(|key| String::from_utf8_lossy(key).into_owned()),
            commit_lsn: transaction.commit_lsn,
            xid: transaction.xid,
        })
    }

    /// What is known of a change of which an event could not be made.
    pub(in crate::event) fn unmapped<'a>(
        &'a self,
        step: Step,
        change: TableChange<'a>,
        scratch: &'a mut Scratch,
    ) -> Unmapped<'a> {
        scratch.shrink();
        let Scratch { topic, key, .. } = scratch;
        let (old, new) = self.rows(change);
        let row = match step {
            Step::Created | Step::Updated => new,
            Step::Deleted | Step::Tombstone => old,
            Step::Truncated => None,
        };
        Unmapped {
            topic: self.kind(step).topic(|column| topic_text(column, row), topic).ok(),
            key: row.and_then(|row| self.key.write(row, key).ok().flatten()),
            raw: Raw::Change { table: &self.name, old, new },
        }
    }
}

fn topic_text<'a>(column: &ColumnAt, row: Option<RowView<'a>>) -> Result<&'a str, Reason> {
    let column_name = || column.owned_name();
    match row.map_or(Held::NotSent, |row| row.at(column.index())) {
        Held::Text(text) => {
            std::str::from_utf8(text).map_err(|_| Reason::NotUtf8 { column: column_name() })
        }
        Held::Null => Err(Reason::Null { column: column_name() }),
        Held::Unavailable | Held::NotSent => Err(Reason::NotSent { column: column_name() }),
    }
}

fn columns(settings: &Settings, table: &Description) -> Result<Vec<ColumnView>, TableProblem> {
    let view = |column: &super::DescribedColumn| {
        let name = column.name.clone();
        let word = settings.column_types.iter().find(|(named, _)| *named == name);
        let word = word.map(|(_, word)| *word);
        let form = Form::of_column(&column.column_type, settings.types, word)
            .map_err(|problem| TableProblem::Form { column: name.clone(), problem })?;
        let mask = settings.masks.iter().find(|(named, _)| *named == name);
        let shown = match mask {
            _ if settings.excluded.contains(&name) => Shown::Never,
            Some((_, mask)) => Shown::Masked(Mask::clone(mask)),
            None => Shown::Plainly,
        };
        Ok(ColumnView::new(name, form, shown, column.is_replica_identity))
    };
    let columns: Vec<ColumnView> = table.columns.iter().map(view).collect::<Result<_, _>>()?;
    // Of a pattern's tables not each one has each column.
    if settings.name.exact().is_some() {
        for (role, name) in named(settings) {
            find(&columns, name, role)?;
        }
    }
    Ok(columns)
}

/// The columns that the settings name, beside those of key and topic.
fn named(settings: &Settings) -> impl Iterator<Item = (&'static str, &str)> {
    let excluded = settings.excluded.iter().map(|name| ("columns.exclude", name.as_str()));
    let masked = settings.masks.iter().map(|(name, _)| ("columns.mask", name.as_str()));
    let typed = settings.column_types.iter().map(|(name, _)| ("types.columns", name.as_str()));
    excluded.chain(masked).chain(typed)
}

fn find(columns: &[ColumnView], name: &str, role: &str) -> Result<ColumnAt, TableProblem> {
    match columns.iter().position(|column| column.name == name) {
        Some(index) => Ok(ColumnAt::new(index, name)),
        None => Err(TableProblem::Missing {
            column: name.to_owned(),
            role: role.to_owned(),
            nearest: nearest(columns, name),
        }),
    }
}

/// Below it, the nearest name is probably not what was meant (`strsim::jaro_winkler`, 0 to 1).
const LIKENESS_MIN: f64 = 0.8;

fn nearest(columns: &[ColumnView], name: &str) -> Option<String> {
    let likeness = |column: &ColumnView| strsim::jaro_winkler(&column.name, name);
    columns
        .iter()
        .map(|column| (likeness(column), column))
        .filter(|(likeness, _)| *likeness > LIKENESS_MIN)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, column)| column.name.clone())
}

/// What is to be hidden must not be in each record's key.
fn check_hidden_key(columns: &[ColumnView], key: &Key) -> Result<(), TableProblem> {
    let is_hidden = |index: &usize| {
        columns.get(*index).is_some_and(|column| matches!(column.shown, Shown::Masked(_)))
    };
    match key.columns().find(is_hidden).and_then(|index| columns.get(index)) {
        Some(column) => Err(TableProblem::ShownByKey { column: column.name.clone() }),
        None => Ok(()),
    }
}

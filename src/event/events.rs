//! The events of one change, one after the other.

use tracing::warn;

use crate::{
    change::{Place, RelationId, RowChange, Transaction, Tuple},
    event::{
        DomainEvent, EventError, LogicalMessage, Mapping, Raw, Unmapped,
        mapping::Known,
        outbox::{self, Shared},
        route,
        table::{At, TableChange},
        unmapped::type_and_key,
    },
    lsn::CommitLsn,
    value::Written,
};

/// A change, and what it is of.
#[derive(Clone, Copy, Debug)]
pub enum Happening<'a> {
    /// Of a row.
    Row {
        /// Its table.
        relation: RelationId,
        /// What happened to it.
        change: RowChange<'a>,
    },
    /// Tables were emptied.
    Truncate {
        /// Which ones.
        relations: &'a [RelationId],
    },
    /// A transactional message.
    Message(LogicalMessage<'a>),
    /// Nothing: a row of the table that [`Mapping::observe_snapshot`] saw last is there.
    Snapshot(SnapshotRow<'a>),
}

/// A row that was read, and not streamed.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotRow<'a> {
    /// The row, whole.
    pub row: Tuple<'a>,
    /// What names it: the texts of the columns of its key, each preceded by its length in bytes as a
    /// 64-bit big-endian number. Of a table without a key its ordinal number among the rows of the
    /// request, such a number too.
    pub key: &'a [u8],
    /// For which request it was read.
    pub request: &'a str,
    /// Where the transaction was committed that moved the row to its key, where it was looked for
    /// because of that: another row may have come under the same key.
    pub moved_at: Option<CommitLsn>,
}

impl Happening<'_> {
    /// The tables that it is of.
    pub fn relations(&self) -> &[RelationId] {
        match self {
            Self::Row { relation, .. } => std::slice::from_ref(relation),
            Self::Truncate { relations } => relations,
            Self::Message(_) | Self::Snapshot(_) => &[],
        }
    }
}

/// The events of a change. Each one borrows from here until the next one is asked for.
#[derive(Debug)]
pub struct Events<'a> {
    mapping: &'a mut Mapping,
    transaction: &'a Transaction,
    place: Place,
    next: Next<'a>,
    /// What the latest event was made of, or should have been.
    latest: Latest<'a>,
    /// Tables of a truncate that are still to come.
    truncated: &'a [RelationId],
}

/// What comes next. Tables go by their places in the mapping, steps by theirs in the plan.
#[derive(Clone, Copy, Debug)]
enum Next<'a> {
    Nothing,
    Outbox {
        index: usize,
        row: Tuple<'a>,
    },
    Message(LogicalMessage<'a>),
    Table {
        at: TableAt,
        change: TableChange<'a>,
        step: usize,
    },
    /// It is said once.
    Unfit {
        at: TableAt,
    },
}

/// Which table.
#[derive(Clone, Copy, Debug)]
enum TableAt {
    /// As the stream described it last, by its place.
    Stream(usize),
    /// As those who read its rows do.
    Snapshot,
}

impl TableAt {
    fn of<'m>(
        self,
        tables: &'m [(RelationId, Known)],
        snapshot: &'m Option<(RelationId, Known)>,
    ) -> Option<&'m (RelationId, Known)> {
        match self {
            Self::Stream(index) => tables.get(index),
            Self::Snapshot => snapshot.as_ref(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Latest<'a> {
    Nothing,
    Outbox { index: usize, row: Tuple<'a> },
    Message(LogicalMessage<'a>),
    Table { at: TableAt, change: TableChange<'a>, step: usize },
}

impl<'a> Events<'a> {
    pub(super) fn of(
        mapping: &'a mut Mapping,
        happening: Happening<'a>,
        transaction: &'a Transaction,
        place: Place,
    ) -> Self {
        let (next, truncated): (_, &[RelationId]) = match happening {
            Happening::Row { relation, change } => (Next::of_row(mapping, relation, change), &[]),
            Happening::Truncate { relations } => (Next::Nothing, relations),
            Happening::Message(message) => (Next::Message(message), &[]),
            Happening::Snapshot(row) => {
                let (at, change) = (TableAt::Snapshot, TableChange::Snapshot(row));
                (Next::of_table(mapping, at, change), &[])
            }
        };
        Self { mapping, transaction, place, next, latest: Latest::Nothing, truncated }
    }

    /// The next event; none after the last one. After an error the next call goes on behind the event
    /// that could not be made.
    ///
    /// # Errors
    /// [`EventError::Unmappable`] where the row cannot be an event, [`EventError::UnmappableMessage`]
    /// where a message or its transaction's context cannot be read, [`EventError::Column`] and
    /// [`EventError::Table`] where no row of the table's present shape can.
    #[allow(clippy::should_implement_trait, reason = "an event borrows from the one who makes it")]
    pub fn next(&mut self) -> Result<Option<DomainEvent<'_>>, EventError> {
        while let [relation, rest @ ..] = self.truncated
            && matches!(self.next, Next::Nothing)
        {
            self.truncated = rest;
            self.next = Next::of_truncate(self.mapping, *relation);
        }
        match self.next {
            Next::Nothing => Ok(None),
            Next::Outbox { index, row } => {
                (self.next, self.latest) = (Next::Nothing, Latest::Outbox { index, row });
                self.of_outbox(index, row).map(Some)
            }
            Next::Message(message) => {
                (self.next, self.latest) = (Next::Nothing, Latest::Message(message));
                self.of_message(message)
            }
            Next::Table { at, change, step } => {
                self.latest = Latest::Table { at, change, step };
                self.next = match step + 1 < self.mapping.table_scratch.steps.len() {
                    true => Next::Table { at, change, step: step + 1 },
                    false => Next::Nothing,
                };
                self.of_table(at, change, step).map(Some)
            }
            Next::Unfit { at } => {
                (self.next, self.latest) = (Next::Nothing, Latest::Nothing);
                match at.of(&self.mapping.tables, &self.mapping.snapshot) {
                    Some((_, Known::Outbox(Err(error)) | Known::Table(Err(error)))) => {
                        Err(error.clone())
                    }
                    Some(_) | None => Ok(None),
                }
            }
        }
    }

    fn of_outbox(&mut self, index: usize, row: Tuple<'a>) -> Result<DomainEvent<'_>, EventError> {
        let Mapping { settings, identity, tables, context, outbox_scratch, .. } =
            &mut *self.mapping;
        let Some((_, Known::Outbox(Ok(table)))) = tables.get_mut(index) else {
            unreachable!("its place was just found")
        };
        context.check()?;
        table.observe_key(row);
        let table = &*table;
        let (source, routes) = (&settings.source, &settings.routes);
        let shared = Shared { source, identity, routes, context };
        table.map(shared, row, self.transaction, outbox_scratch).map_err(|reason| {
            EventError::Unmappable { row: table.locate(row, self.transaction), reason }
        })
    }

    fn of_message(
        &mut self,
        message: LogicalMessage<'a>,
    ) -> Result<Option<DomainEvent<'_>>, EventError> {
        let Mapping { settings, identity, warned, context, outbox_scratch, .. } =
            &mut *self.mapping;
        let mut configured = settings.messages.iter().zip(warned);
        let found = configured.find(|(settings, _)| settings.prefix == message.prefix);
        let Some((outbox, warned)) = found else { return Ok(None) };
        context.check()?;
        let (source, routes) = (&settings.source, &settings.routes);
        let shared = Shared { source, identity, routes, context };
        let event =
            outbox::map_message(&outbox.topic, shared, message, self.transaction, outbox_scratch)
                .map_err(|reason| message.locate(self.transaction, reason))?;
        if event.key.is_none() && !std::mem::replace(&mut warned.of_null_key, true) {
            warn!(
                prefix = message.prefix,
                "a message has no aggregateId: its event gets a null key, and no order with others"
            );
        }
        Ok(Some(event))
    }

    fn of_table(
        &mut self,
        at: TableAt,
        change: TableChange<'a>,
        step: usize,
    ) -> Result<DomainEvent<'_>, EventError> {
        let Mapping { settings, identity, tables, snapshot, context, table_scratch, .. } =
            &mut *self.mapping;
        let Some((relation, Known::Table(Ok(table)))) = at.of(tables, snapshot) else {
            unreachable!("its place was just found")
        };
        context.check()?;
        let (source, routes) = (&settings.source, &settings.routes);
        let shared = Shared { source, identity, routes, context };
        let at = At { relation: *relation, transaction: self.transaction, place: self.place };
        table.event(step, change, shared, at, table_scratch).map_err(|reason| {
            EventError::Unmappable { row: table.locate(change, self.transaction), reason }
        })
    }

    /// Whether a composite in the `data` that a rule made has other fields than its type.
    pub fn has_other_fields(&self) -> bool {
        match self.latest {
            Latest::Table { .. } => self.mapping.table_scratch.written == Written::OtherFields,
            Latest::Nothing | Latest::Message(_) | Latest::Outbox { .. } => false,
        }
    }

    /// Whether there may be another one.
    pub fn may_go_on(&self) -> bool {
        !matches!(self.next, Next::Nothing) || !self.truncated.is_empty()
    }

    /// The table that the latest event is of.
    pub fn relation(&self) -> Option<RelationId> {
        match self.latest {
            Latest::Nothing | Latest::Message(_) => None,
            Latest::Outbox { index, .. } => {
                self.mapping.tables.get(index).map(|(relation, _)| *relation)
            }
            Latest::Table { at, .. } => {
                let known = at.of(&self.mapping.tables, &self.mapping.snapshot);
                known.map(|(relation, _)| *relation)
            }
        }
    }

    /// What is known of the event that the latest call made, or could not make, for a reason that
    /// other rows of its table need not have.
    pub fn unmapped(&mut self) -> Option<Unmapped<'_>> {
        let Mapping {
            settings, tables, snapshot, outbox_scratch, table_scratch, unmapped_key, ..
        } = &mut *self.mapping;
        match self.latest {
            Latest::Nothing => None,
            Latest::Outbox { index, row } => {
                let Some((_, Known::Outbox(Ok(table)))) = tables.get(index) else { return None };
                Some(table.unmapped(&settings.routes, row, &mut outbox_scratch.topic))
            }
            Latest::Table { at, change, step } => {
                let Some((_, Known::Table(Ok(table)))) = at.of(tables, snapshot) else {
                    return None;
                };
                Some(table.unmapped(step, change, table_scratch))
            }
            Latest::Message(LogicalMessage { prefix, content, .. }) => {
                let outbox = settings.messages.iter().find(|outbox| outbox.prefix == prefix)?;
                let (event_type, key) = type_and_key(content);
                *unmapped_key = key;
                let topic = match event_type {
                    None => outbox.topic.literal(),
                    Some(event_type) => {
                        let route = route::find(&settings.routes, &event_type);
                        let topic = route.map_or(&outbox.topic, |route| &route.topic);
                        topic.resolve(&event_type, &mut outbox_scratch.topic).ok()
                    }
                };
                let key = unmapped_key.as_deref().map(str::as_bytes);
                Some(Unmapped { topic, key, raw: Raw::Message { prefix, content } })
            }
        }
    }
}

impl<'a> Next<'a> {
    fn of_row(mapping: &mut Mapping, relation: RelationId, change: RowChange<'a>) -> Self {
        let Some(index) = place_of(mapping, relation) else { return Self::Nothing };
        match (mapping.tables.get(index), change) {
            (Some((_, Known::Outbox(Ok(_)))), RowChange::Insert { new: row }) => {
                Self::Outbox { index, row }
            }
            (Some((_, Known::Outbox(Err(_)))), RowChange::Insert { .. }) => {
                Self::Unfit { at: TableAt::Stream(index) }
            }
            // An application may update and delete the rows of its outbox as it likes.
            (Some((_, Known::Outbox(_))) | None, _) => Self::Nothing,
            (Some((_, Known::Table(_))), change) => {
                Self::of_table(mapping, TableAt::Stream(index), TableChange::Row(change))
            }
        }
    }

    fn of_truncate(mapping: &mut Mapping, relation: RelationId) -> Self {
        match place_of(mapping, relation) {
            Some(index) => Self::of_table(mapping, TableAt::Stream(index), TableChange::Truncate),
            None => Self::Nothing,
        }
    }

    fn of_table(mapping: &mut Mapping, at: TableAt, change: TableChange<'a>) -> Self {
        match at.of(&mapping.tables, &mapping.snapshot) {
            Some((_, Known::Table(Ok(table)))) => {
                let change = table.as_logged(change);
                table.plan(change, &mut mapping.table_scratch);
                match mapping.table_scratch.steps.is_empty() {
                    true => Self::Nothing,
                    false => Self::Table { at, change, step: 0 },
                }
            }
            Some((_, Known::Table(Err(_)))) => Self::Unfit { at },
            Some((_, Known::Outbox(_))) | None => Self::Nothing,
        }
    }
}

fn place_of(mapping: &Mapping, relation: RelationId) -> Option<usize> {
    if mapping.left_out.contains(&relation) {
        return None;
    }
    mapping.table_ids.iter().position(|id| *id == relation)
}

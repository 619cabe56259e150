//! Back-fills that somebody asks for: judged here, begun with the next cut.

use super::{
    super::{
        backfill::due,
        requests::{Ask, Asked, RequestRefused, SnapshotProgress},
    },
    End, StreamLoop,
};
use crate::{checkpoint::SnapshotRecord, postgres::TableName, sink::Sink};

/// A table's request is under way, and it is the same one.
struct Known {
    requested_at: String,
}

impl<S: Sink> StreamLoop<S> {
    pub(super) fn on_request(&mut self, asked: Asked) -> Result<(), End> {
        let (ask, is_checked) = match asked {
            Asked::New(ask) => (ask, false),
            Asked::Checked(ask, Ok(())) => (ask, true),
            Asked::Checked(ask, Err(refused)) => {
                ask.refuse(refused);
                return Ok(());
            }
        };
        // Also what the server was asked about: much may have come meanwhile.
        let (table, known) = match self.judge_request(&ask) {
            Ok(judged) => judged,
            Err(refused) => {
                ask.refuse(refused);
                return Ok(());
            }
        };
        let Some(inbox) = &mut self.beside.inbox else { return Ok(()) };
        match known {
            Some(Known { requested_at }) => {
                inbox.await_written(ask, (table.to_string(), requested_at), true);
            }
            None if !is_checked => inbox.check(ask, table),
            None => return self.begin_backfill(ask, &table),
        }
        Ok(())
    }

    /// What needs no server to be said.
    fn judge_request(&mut self, ask: &Ask) -> Result<(TableName, Option<Known>), RequestRefused> {
        let table = TableName::try_from(ask.table.clone())?;
        if self.settings.outbox(&table.schema, &table.name).is_some() {
            return Err(RequestRefused::Outbox { table });
        }
        if self.settings.table(&table.schema, &table.name).is_none() {
            return Err(RequestRefused::NotConfigured { table });
        }
        let name = table.to_string();
        let publication = self.assembler.checkpoint_mut().publication();
        if !publication.tables.contains_key(&name) {
            let publication = publication.name.clone();
            return Err(RequestRefused::NotPublished { table, publication });
        }
        let mut records = self.assembler.backfills().records();
        match records.find(|record| record.table == name) {
            None => Ok((table, None)),
            Some(record) if record.condition == ask.condition => {
                Ok((table, Some(Known { requested_at: record.requested_at.clone() })))
            }
            Some(record) => Err(RequestRefused::UnderWay(SnapshotProgress::of(record).into())),
        }
    }

    /// Its record goes out with the next cut.
    fn begin_backfill(&mut self, ask: Ask, table: &TableName) -> Result<(), End> {
        let name = table.to_string();
        let publication = self.assembler.checkpoint_mut().publication();
        let Some(oid) = publication.tables.get(&name).map(|table| table.oid) else { return Ok(()) };
        let record = SnapshotRecord {
            is_requested: true,
            ..due::record(&self.settings.source, &name, oid, ask.condition.clone())
        };
        if let Some(inbox) = &mut self.beside.inbox {
            inbox.await_written(ask, (name, record.requested_at.clone()), false);
        }
        self.assembler.backfills_mut().add_due(record);
        self.hand_over_rows()
    }

    /// What cuts said of rows that are durable by now.
    pub(super) fn tell_delivered(&mut self, delivered: Vec<SnapshotProgress>) {
        if let Some(inbox) = &mut self.beside.inbox {
            delivered.into_iter().for_each(|progress| inbox.tell(progress));
        }
    }
}

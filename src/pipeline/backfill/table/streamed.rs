//! What the stream does to a table whose rows are being read.

use tracing::warn;

use super::{
    super::row_key::{Changed, KeyPlaces},
    Table,
};
use crate::{
    change::{Relation, ReplicaIdentity, RowChange, Transaction},
    checkpoint::SnapshotKeyColumn,
};

impl Table {
    /// The table as the changes that follow know it.
    pub(in crate::pipeline::backfill) fn observe_relation(
        &mut self,
        relation: &Relation,
        primary_key: &[String],
    ) {
        self.described = Some((relation.clone(), primary_key.to_vec()));
        self.find_places();
    }

    /// The stream's key must be the one that rows are ordered by. It is another one only before the
    /// key was altered, or after it.
    pub(super) fn find_places(&mut self) {
        self.places = self.described.as_ref().and_then(|(relation, primary_key)| {
            let columns = &relation.columns;
            let count = match relation.replica_identity {
                ReplicaIdentity::Default | ReplicaIdentity::Index => {
                    columns.iter().filter(|column| column.is_replica_identity).count()
                }
                ReplicaIdentity::Full | ReplicaIdentity::Nothing => primary_key.len(),
            };
            let place = |column: &SnapshotKeyColumn| {
                let place = columns.iter().position(|found| found.name == column.name)?;
                let is_of_key = match relation.replica_identity {
                    ReplicaIdentity::Default | ReplicaIdentity::Index => {
                        columns.get(place)?.is_replica_identity
                    }
                    ReplicaIdentity::Full | ReplicaIdentity::Nothing => {
                        primary_key.contains(&column.name)
                    }
                };
                is_of_key.then_some(place)
            };
            let places: Option<Vec<usize>> = self.record.key.iter().map(place).collect();
            places.filter(|places| places.len() == count).map(KeyPlaces)
        });
    }

    /// A change of the open transaction.
    pub(in crate::pipeline::backfill) fn change(
        &mut self,
        transaction: &Transaction,
        change: RowChange<'_>,
    ) {
        self.observe_event();
        if !self.has_begun() && !self.is_remembering() {
            return;
        }
        let xid = transaction.xid;
        let changed = self.places.as_ref().map_or(Changed::Unknown, |at| at.of_change(change));
        let (keys, moved) = match changed {
            Changed::Unknown => {
                let may_move = matches!(change, RowChange::Update { old: Some(_), .. });
                if may_move && self.has_begun() {
                    // To where the cursor has been, perhaps, and nobody knows which row.
                    self.is_moved_unknown = true;
                }
                return self.touch_all(transaction);
            }
            Changed::Key(key) => ([Some(key.hash(&self.hasher)), None], None),
            Changed::Moved { from, to } => {
                let hashes = [from, to].map(|key| Some(key.hash(&self.hasher)));
                // A range may yet be read under a snapshot that does not show it.
                (hashes, to.to_key())
            }
        };
        if self.is_remembering() {
            keys.into_iter().flatten().for_each(|key| self.touches.touch(xid, key));
        }
        if let Some(key) = moved {
            self.moved_bytes += key.bytes();
            self.is_moved_overflown |=
                self.outstanding.bytes() + self.moved_bytes > self.bounds.outstanding_bytes_max;
            match self.is_moved_overflown {
                true => self.moved = Vec::new(),
                false => self.moved.push(key),
            }
        }
    }

    /// The open transaction emptied the table.
    pub(in crate::pipeline::backfill) fn truncate(&mut self, transaction: &Transaction) {
        self.observe_event();
        self.touch_all(transaction);
    }

    fn observe_event(&mut self) {
        self.is_changed |= !std::mem::replace(&mut self.record.has_events, true);
    }

    /// The open transaction may have changed every row.
    fn touch_all(&mut self, transaction: &Transaction) {
        if self.is_remembering() {
            self.touches.touch_all(transaction.xid);
        }
    }

    /// The open transaction came to its end.
    pub(in crate::pipeline::backfill) fn commit(&mut self, transaction: &Transaction) {
        for key in std::mem::take(&mut self.moved) {
            self.outstanding.insert(key, Some(transaction.commit_lsn), &self.hasher);
            self.is_changed = true;
        }
        self.moved_bytes = 0;
        if std::mem::take(&mut self.is_moved_overflown) {
            self.start_over("more keys were changed than can be looked for one by one");
        }
        if std::mem::take(&mut self.is_moved_unknown) && self.has_begun() {
            self.start_over("rows were changed while their key had other columns than is known");
        }
        if self.touches.take_overflow() {
            warn!(
                table = %self.name,
                "more changes of the table came than can be remembered before a snapshot showed \
                 them: what was read and is not out is read again, once the transactions have ended \
                 that are open now"
            );
            self.settle_anew();
        }
    }
}

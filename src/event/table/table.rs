//! A domain table as it stands in the stream: settings, compiled against its columns.

use crate::{
    change::{OldTuple, Place, RelationId, ReplicaIdentity, RowChange, Transaction},
    event::{
        ColumnAt, DomainEvent, ExtraHeaders, Payload, Raw, Reason, Route, Row, RowOrigin,
        SnapshotRow, TopicTemplate, Unmapped,
        id::{self, Happened, WasThere},
        outbox::Shared,
        table::{
            DataForm, Description, Held, Mask, Otherwise, RowView, Scratch, Settings, TableChange,
            TableProblem,
            key::Key,
            kind::Kind,
            row_view::{ColumnView, Shown},
            rules::{self, NamedColumn, OldValue, Rule, RuleFailure, Rules},
            steps::{Made, Step, push_default},
        },
    },
    value::{Form, Written},
};

/// The version of an event that says nothing of it.
pub(super) const VERSION: &str = "1.0";

/// Ready to map changes.
#[derive(Debug)]
pub(in crate::event) struct Table {
    /// `schema.table`.
    name: String,
    pub(super) columns: Vec<ColumnView>,
    /// A whole old row is one. Else it is of a partition whose identity is another one than the
    /// table's, and may hold no more than the key.
    has_whole_old_rows: bool,
    pub(super) key: Key,
    pub(super) data: DataForm,
    pub(super) tombstone: bool,
    pub(super) kinds: Kinds,
    pub(super) rules: Rules,
    /// A column of the key of which updates and deletes do not carry the old value.
    key_beyond_identity: Option<String>,
    /// What the events of each rule are.
    pub(super) rule_kinds: Vec<Kind>,
    pub(super) otherwise: Otherwise,
}

/// What its changes are without rules.
#[derive(Debug)]
pub(super) struct Kinds {
    pub(super) created: Kind,
    pub(super) updated: Kind,
    pub(super) deleted: Kind,
    pub(super) truncated: Kind,
    pub(super) snapshot: Kind,
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
        beyond_identity: OldValue,
    ) -> Result<Self, TableProblem> {
        let Description { schema, name, .. } = table;
        let columns = columns(settings, table)?;
        let find = |column: &str, role: &str| find(&columns, column, role);
        let key = Key::compile(settings, table, find)?;
        check_hidden_key(&columns, &key)?;
        let kind = |event_type: String, topic: &TopicTemplate| {
            let template = topic.filled(schema, name);
            Kind::compile(event_type, &template, routes, |column| find(column, "topic"))
        };
        let own = |what: &str| kind(format!("{name}.{what}"), &settings.topic);
        let kinds = Kinds {
            created: own("created")?,
            updated: own("updated")?,
            deleted: own("deleted")?,
            truncated: own("truncated")?,
            snapshot: own("snapshot")?,
        };
        let rules = rules(settings, table, &columns, beyond_identity)?;
        let rule_kinds = rules.iter().map(|rule| {
            kind(rule.event_type().to_owned(), rule.topic().unwrap_or(&settings.topic))
        });
        let rule_kinds = rule_kinds.collect::<Result<_, _>>()?;
        let key_beyond_identity = beyond_identity_of(&columns, &key);
        Ok(Self {
            name: format!("{schema}.{name}"),
            columns,
            has_whole_old_rows: table.replica_identity == ReplicaIdentity::Full,
            key,
            data: settings.data,
            tombstone: settings.tombstone,
            kinds,
            key_beyond_identity,
            rules,
            rule_kinds,
            otherwise: settings.otherwise,
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

    /// Makes the list of the events of a change, in their order.
    pub(in crate::event) fn plan(&self, change: TableChange<'_>, scratch: &mut Scratch) {
        scratch.begin();
        let steps = &mut scratch.steps;
        if !self.rules.is_empty() {
            self.apply_rules(change, steps);
        }
        match (steps.is_empty(), self.otherwise) {
            (false, _) => {
                let is_delete = matches!(change, TableChange::Row(RowChange::Delete { .. }));
                if is_delete && self.tombstone {
                    self.push_tombstones(steps);
                }
            }
            (true, Otherwise::Default) => {
                push_default(steps, change, self.moves(change), self.tombstone);
            }
            (true, Otherwise::Skip) => {}
        }
    }

    fn apply_rules(&self, change: TableChange<'_>, steps: &mut Vec<Step>) {
        let place_of = |rule: &Rule| {
            let place = self.rules.iter().position(|known| std::ptr::eq(known, rule));
            place.expect("it is one of these")
        };
        for outcome in self.rules.matching(change.row()) {
            let (rule, made) = match outcome {
                Ok(rule) if rule.has_data() => (rule, Made::Data),
                Ok(rule) => (rule, Made::OwnData),
                Err(RuleFailure { rule, reason }) => (rule, Made::Nothing(reason)),
            };
            steps.push(Step::Rule { index: place_of(rule), made });
        }
    }

    /// One null record for each topic that events of the delete go to.
    fn push_tombstones(&self, steps: &mut Vec<Step>) {
        let mut told: Vec<usize> = Vec::new();
        for step in &*steps {
            let Step::Rule { index, made: Made::OwnData | Made::Data } = step else { continue };
            let kind = |index: usize| self.rule_kinds.get(index).expect("each rule has a kind");
            if !told.iter().any(|other| kind(*other).shares_topic(kind(*index))) {
                told.push(*index);
            }
        }
        steps.extend(told.into_iter().map(|index| Step::RuleTombstone { index }));
    }

    fn write_column(
        &self,
        named: NamedColumn<'_>,
        target: &mut Vec<u8>,
    ) -> Result<Written, Reason> {
        let column = self.columns.get(named.index).expect("a column of this table");
        column.write(named.text, target)
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

    /// The change as it is to be read: with no more of the old row than all partitions log.
    pub(in crate::event) fn as_logged<'a>(&self, change: TableChange<'a>) -> TableChange<'a> {
        let logged = |old| match old {
            OldTuple::Full(tuple) if !self.has_whole_old_rows => OldTuple::Key(tuple),
            old => old,
        };
        match change {
            TableChange::Row(RowChange::Update { old, new }) => {
                TableChange::Row(RowChange::Update { old: old.map(logged), new })
            }
            TableChange::Row(RowChange::Delete { old }) => {
                TableChange::Row(RowChange::Delete { old: logged(old) })
            }
            TableChange::Row(RowChange::Insert { .. })
            | TableChange::Truncate
            | TableChange::Snapshot(_) => change,
        }
    }

    fn old_row<'a>(&'a self, old: OldTuple<'a>) -> RowView<'a> {
        match old {
            OldTuple::Key(tuple) => RowView::identity(&self.columns, tuple),
            OldTuple::Full(tuple) => RowView::whole(&self.columns, tuple),
        }
    }

    /// Old and new row, as far as there are such.
    fn rows<'a>(&'a self, change: TableChange<'a>) -> (Option<RowView<'a>>, Option<RowView<'a>>) {
        match change {
            TableChange::Row(RowChange::Insert { new }) => {
                (None, Some(RowView::new_row(&self.columns, new, None)))
            }
            TableChange::Row(RowChange::Update { old, new }) => {
                let new = RowView::new_row(&self.columns, new, old);
                (old.map(|old| self.old_row(old)), Some(new))
            }
            TableChange::Row(RowChange::Delete { old }) => (Some(self.old_row(old)), None),
            TableChange::Truncate => (None, None),
            TableChange::Snapshot(SnapshotRow { row, .. }) => {
                (None, Some(RowView::new_row(&self.columns, row, None)))
            }
        }
    }

    /// One of the events of a change, by its place in the plan.
    pub(in crate::event) fn event<'a>(
        &'a self,
        step: usize,
        change: TableChange<'a>,
        shared: Shared<'a>,
        at: At<'_>,
        scratch: &'a mut Scratch,
    ) -> Result<DomainEvent<'a>, Reason> {
        scratch.shrink();
        scratch.of_transaction.enter(at.transaction);
        let Scratch { id, topic, key, steps, data, written, of_transaction } = scratch;
        let of_transaction = &*of_transaction;
        let step = steps.get(step).expect("a step of the plan");
        let (old, new) = self.rows(change);
        let Meant { kind, version, condition } = self.meant(step);
        let row = subject(step, old, new);
        self.check_key_is_whole(step, change)?;
        let payload = self.payload(step, change, (data, written))?;
        let context = shared.context;
        let (system_id, event_type) = (&shared.identity.system_id, &*kind.event_type);
        let (id, own_correlation_id) = match change {
            TableChange::Row(_) | TableChange::Truncate => {
                let is_truncate = matches!(change, TableChange::Truncate);
                let happened = Happened { system_id, at, is_truncate, event_type, condition };
                (id::of_change(happened, id), of_transaction.correlation_id())
            }
            TableChange::Snapshot(row) => {
                let table = &self.name;
                let was_there = WasThere { system_id, table, row, event_type, condition };
                (id::of_snapshot(was_there, id), row.request)
            }
        };
        Ok(DomainEvent {
            id,
            event_type: &kind.event_type,
            version,
            source: shared.source,
            correlation_id: context.correlation_id().unwrap_or(own_correlation_id),
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
            partition: match change {
                TableChange::Truncate => Some(0),
                TableChange::Row(_) | TableChange::Snapshot(_) => None,
            },
        })
    }

    /// An update must show whether it gives the row another key.
    fn check_key_is_whole(&self, step: &Step, change: TableChange<'_>) -> Result<(), Reason> {
        match (step, change, &self.key_beyond_identity) {
            (_, TableChange::Row(RowChange::Update { old: Some(OldTuple::Full(_)), .. }), _) => {
                Ok(())
            }
            (Step::Updated, TableChange::Row(RowChange::Update { .. }), Some(column)) => {
                Err(Reason::NotSent { column: column.clone() })
            }
            _ => Ok(()),
        }
    }

    fn payload<'a>(
        &'a self,
        step: &Step,
        change: TableChange<'a>,
        (data, written): (&'a mut Vec<u8>, &mut Written),
    ) -> Result<Payload<'a>, Reason> {
        let (old, new) = self.rows(change);
        let (before, after) = match step {
            Step::Tombstone | Step::RuleTombstone { .. } => return Ok(Payload::Bare(None)),
            Step::Truncated => return Ok(Payload::Data("null")),
            Step::Rule { made: Made::Nothing(reason), .. } => return Err(reason.clone()),
            Step::Rule { made: Made::Data, index } => {
                let rule = self.rule(*index);
                let matching = self.rules.matching(change.row());
                matching.write_data(rule, data, |named, target| {
                    *written = written.and(self.write_column(named, target)?);
                    Ok(())
                })?;
                let text = std::str::from_utf8(data).expect("JSON is text");
                return Ok(Payload::Data(text));
            }
            Step::Rule { made: Made::OwnData, .. } | Step::Updated => (old, new),
            Step::Created | Step::Snapshot => (None, new),
            Step::Deleted => (old, None),
        };
        Ok(match self.data {
            // TRUNCATE has neither.
            _ if before.is_none() && after.is_none() => Payload::Data("null"),
            DataForm::Change => Payload::Change { before, after },
            DataForm::Row => after.or(before).map_or(Payload::Data("null"), Payload::Row),
        })
    }

    fn rule(&self, index: usize) -> &Rule {
        self.rules.iter().nth(index).expect("a rule of this table")
    }

    fn meant(&self, step: &Step) -> Meant<'_> {
        let Kinds { created, updated, deleted, truncated, snapshot } = &self.kinds;
        let own = |kind| Meant { kind, version: VERSION, condition: "" };
        match step {
            Step::Created => own(created),
            Step::Updated => own(updated),
            Step::Deleted => own(deleted),
            Step::Truncated => own(truncated),
            Step::Snapshot => own(snapshot),
            Step::Tombstone => own(deleted),
            Step::Rule { index, .. } | Step::RuleTombstone { index } => {
                let rule = self.rule(*index);
                Meant {
                    kind: self.rule_kinds.get(*index).expect("each rule has a kind"),
                    version: rule.version().unwrap_or(VERSION),
                    condition: rule.condition(),
                }
            }
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
            origin: match change {
                TableChange::Row(_) | TableChange::Truncate => RowOrigin::of(transaction),
                TableChange::Snapshot(_) => RowOrigin::Snapshot,
            },
        })
    }

    /// What is known of a change of which an event could not be made.
    pub(in crate::event) fn unmapped<'a>(
        &'a self,
        step: usize,
        change: TableChange<'a>,
        scratch: &'a mut Scratch,
    ) -> Unmapped<'a> {
        scratch.shrink();
        let Scratch { topic, key, steps, .. } = scratch;
        let step = steps.get(step).expect("a step of the plan");
        let (old, new) = self.rows(change);
        let row = subject(step, old, new);
        let kind = self.meant(step).kind;
        Unmapped {
            topic: kind.topic(|column| topic_text(column, row), topic).ok(),
            key: row.and_then(|row| self.key.write(row, key).ok().flatten()),
            raw: Raw::Change { table: &self.name, old, new },
        }
    }
}

/// What a step's event says of itself.
struct Meant<'t> {
    kind: &'t Kind,
    version: &'t str,
    condition: &'t str,
}

/// The row that the event is about.
fn subject<'a>(
    step: &Step,
    old: Option<RowView<'a>>,
    new: Option<RowView<'a>>,
) -> Option<RowView<'a>> {
    match step {
        Step::Created | Step::Updated | Step::Snapshot => new,
        Step::Deleted | Step::Tombstone | Step::RuleTombstone { .. } => old,
        Step::Truncated => None,
        Step::Rule { .. } => new.or(old),
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

fn rules(
    settings: &Settings,
    table: &Description,
    columns: &[ColumnView],
    beyond_identity: OldValue,
) -> Result<Rules, TableProblem> {
    let described = table.columns.iter().zip(columns);
    let described: Vec<rules::Column<'_>> = described
        .map(|(column, view)| rules::Column {
            name: &column.name,
            column_type: &column.column_type,
            old: match column.is_replica_identity {
                true => OldValue::Delivered,
                false => beyond_identity,
            },
            shown: match view.shown {
                Shown::Plainly => rules::Shown::Plainly,
                Shown::Masked(_) => rules::Shown::Masked,
                Shown::Never => rules::Shown::Never,
            },
        })
        .collect();
    let quoted_table = table.quoted();
    let columns = rules::Columns { quoted_table: &quoted_table, columns: &described };
    Rules::compile(&settings.rules, columns).map_err(TableProblem::Rules)
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

/// A column of the key of which updates and deletes do not carry the old value.
fn beyond_identity_of(columns: &[ColumnView], key: &Key) -> Option<String> {
    let mut of_key = key.columns().filter_map(|index| columns.get(index));
    of_key.find(|column| !column.is_identity).map(|column| column.name().to_owned())
}

/// What is to be hidden must not be in each record's key.
fn check_hidden_key(columns: &[ColumnView], key: &Key) -> Result<(), TableProblem> {
    let is_hidden = |index: &usize| columns.get(*index).is_some_and(|column| !column.is_plain());
    match key.columns().find(is_hidden).and_then(|index| columns.get(index)) {
        Some(column) => Err(TableProblem::ShownByKey { column: column.name.clone() }),
        None => Ok(()),
    }
}

//! What rules cost a change, beside the interpreter of the crate `cel`: one thread, no I/O. Part of
//! `make bench`; alone by `cargo bench --bench rules`. CHANGES changes the size.

use std::{hint::black_box, sync::Arc};

use cel::{
    Context, Env, Value as CelValue,
    common::{
        types::{CelDouble, CelString},
        value::CowVal,
    },
    context::VariableResolver,
};
use tailwater::{
    change::{Oid, OldTuple, Tuple, ValueSlot},
    event::table::{
        RuleSettings,
        rules::{Column, Columns, OldValue, Operation, Row, Rules, Shown},
    },
    value::{Kind, Type},
};

const ROUNDS: usize = 5;

/// A change before and after: 14 columns of about 450 bytes together.
const COLUMNS: [(&str, u32, &str, &str); 14] = [
    ("id", 20, "4711", "4711"),
    (
        "customer",
        2950,
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    ),
    ("status", 25, "paid", "shipped"),
    ("total", 1700, "1234.50", "1234.50"),
    ("currency", 1042, "EUR", "EUR"),
    ("quantity", 23, "3", "3"),
    ("paid", 16, "t", "t"),
    ("created_at", 1184, "2026-03-01 12:00:00.123456+00", "2026-03-01 12:00:00.123456+00"),
    ("updated_at", 1184, "2026-03-01 12:00:00.123456+00", "2026-03-02 08:30:00.5+00"),
    ("street", 25, "Unter den Linden 1", "Unter den Linden 1"),
    ("city", 25, "Berlin", "Berlin"),
    ("email", 25, "somebody@example.org", "somebody@example.org"),
    ("note", 25, "please ring twice, the bell is weak", "please ring twice, the bell is weak"),
    (
        "payload",
        3802,
        r#"{"carrier": "DHL", "items": [{"sku": "A-1", "qty": 2}, {"sku": "B-2", "qty": 1}]}"#,
        r#"{"carrier": "DHL", "items": [{"sku": "A-1", "qty": 2}, {"sku": "B-2", "qty": 1}]}"#,
    ),
];

const SHIPPED: &str = "old.status != 'shipped' && new.status == 'shipped'";
const LARGE: &str = "new.total > 1000";

/// What is measured: rules, and whether their data is written.
const CASES: [(&str, &[&str], bool); 9] = [
    ("no rules", &[], false),
    ("`new.status == 'placed'` (does not match)", &["new.status == 'placed'"], false),
    (SHIPPED_CELL, &[SHIPPED], false),
    ("`new.total > 1000`", &[LARGE], false),
    (
        "`new.created_at < timestamp('2030-01-01T00:00:00Z')`",
        &["new.created_at < timestamp('2030-01-01T00:00:00Z')"],
        false,
    ),
    ("`new.email.matches('@example[.]org$')`", &["new.email.matches('@example[.]org$')"], false),
    (
        "`new.payload.items.exists(i, i.qty > 1)`",
        &["new.payload.items.exists(i, i.qty > 1)"],
        false,
    ),
    ("five rules", &FIVE, false),
    ("one rule with `data` of three members", &[SHIPPED], true),
];
const SHIPPED_CELL: &str = "`old.status != 'shipped' && new.status == 'shipped'`";
const FIVE: [&str; 5] = [
    "op == 'insert' && new.status == 'placed'",
    "old.status != 'paid' && new.status == 'paid'",
    SHIPPED,
    "old.status != 'cancelled' && new.status == 'cancelled'",
    "new.total > 1000 && new.total != old.total",
];

struct Tuples {
    frame: Vec<u8>,
    slots: Vec<ValueSlot>,
}

impl Tuples {
    fn of(texts: impl Iterator<Item = &'static str>) -> Self {
        let (mut frame, mut slots) = (Vec::new(), Vec::new());
        for text in texts {
            let start = u32::try_from(frame.len()).expect("a short row");
            let length = u32::try_from(text.len()).expect("a short text");
            frame.extend_from_slice(text.as_bytes());
            slots.push(ValueSlot::Text { start, length });
        }
        Self { frame, slots }
    }

    fn tuple(&self) -> Tuple<'_> {
        Tuple::new(&self.frame, &self.slots)
    }
}

fn compile(conditions: &[&str], has_data: bool) -> Rules {
    let types: Vec<Type> = COLUMNS
        .iter()
        .map(|(name, oid, ..)| Type { oid: Oid(*oid), name: (*name).to_owned(), kind: Kind::Base })
        .collect();
    let columns: Vec<Column<'_>> = types
        .iter()
        .map(|column_type| Column {
            name: &column_type.name,
            column_type,
            old: OldValue::Delivered,
            shown: Shown::Plainly,
        })
        .collect();
    let data = [("order", "new.id"), ("carrier", "new.payload.carrier"), ("total", "new.total")];
    let data = data.map(|(name, expression)| (name.to_owned(), expression.to_owned()));
    let settings: Vec<RuleSettings> = conditions
        .iter()
        .map(|when| RuleSettings {
            event_type: "order.told".to_owned(),
            when: Some((*when).to_owned()),
            version: None,
            data: has_data.then(|| data.to_vec()),
            topic: None,
        })
        .collect();
    let columns = Columns { quoted_table: "\"public\".\"orders\"", columns: &columns };
    Rules::compile(&settings, columns).expect("rules that fit")
}

/// What this thread has had of a processor: a shared machine does not show in it.
fn processor_nanoseconds() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to the one structure that it is given.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0, "a thread has a clock");
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Nanoseconds a call, the median of some rounds.
fn nanoseconds(changes: u64, mut call: impl FnMut()) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = processor_nanoseconds();
            for _ in 0..changes {
                call();
            }
            (processor_nanoseconds() - start) as f64 / changes as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds.get(ROUNDS / 2).copied().unwrap_or(f64::NAN)
}

/// Values by name, as cheap as the crate allows: borrowed texts, and no map.
struct Values<'a> {
    old_status: &'a str,
    new_status: &'a str,
    total: f64,
}

impl VariableResolver for Values<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        match name {
            "old_status" => Some(CowVal::owned(CelString::from(self.old_status))),
            "new_status" => Some(CowVal::owned(CelString::from(self.new_status))),
            "new_total" => Some(CowVal::owned(CelDouble::from(self.total))),
            _ => None,
        }
    }
}

/// The crate's interpreter with values at hand, of which it reads no column.
fn interpreter(changes: u64, condition: &str) -> f64 {
    let environment = Arc::new(Env::stdlib());
    let program = environment.compile(condition).expect("CEL");
    nanoseconds(changes, || {
        let (old_status, new_status) = (black_box("paid"), black_box("shipped"));
        let values = Values { old_status, new_status, total: black_box(1234.5) };
        let mut context = Context::with_env(Arc::clone(&environment));
        context.set_variable_resolver(&values);
        black_box(CelValue::resolve_val(program.expression(), &context).is_ok());
    })
}

fn main() {
    let changes = std::env::var("CHANGES").ok().and_then(|text| text.parse().ok());
    let changes = changes.unwrap_or(500_000);
    let old = Tuples::of(COLUMNS.iter().map(|(_, _, old, _)| *old));
    let new = Tuples::of(COLUMNS.iter().map(|(.., new)| *new));
    println!("| an update with its old row | ns | matching |\n|---|---|---|");
    for (name, conditions, has_data) in CASES {
        let rules = compile(conditions, has_data);
        let (mut target, mut matches) = (Vec::with_capacity(1024), 0);
        let cost = nanoseconds(changes, || {
            let row = Row {
                operation: Operation::Update,
                old: Some(OldTuple::Full(black_box(&old).tuple())),
                new: Some(black_box(&new).tuple()),
            };
            matches = 0;
            let mut matching = rules.matching(row);
            while let Some(rule) = matching.next() {
                let rule = rule.expect("an answer");
                matches += 1;
                if rule.has_data() {
                    target.clear();
                    let written = matching.write_data(rule, &mut target, |named, target| {
                        target.extend_from_slice(named.text);
                        Ok(())
                    });
                    written.expect("data");
                }
            }
            black_box((&target, matches));
        });
        println!("| {name} | {cost:.0} | {matches} |");
    }
    println!("\n| the crate's interpreter, values at hand | ns |\n|---|---|");
    for (name, condition) in [
        (SHIPPED_CELL, "old_status != 'shipped' && new_status == 'shipped'"),
        ("`new.total > 1000`", "new_total > 1000"),
    ] {
        println!("| {name} | {:.0} |", interpreter(changes, condition));
    }
}

//! An event's own `data`: expressions, written as members of an object.
//!
//! A column that is named alone, also within a list, a map or a branch, is written by the caller in
//! the form that the table's `data` gives it, so that every digit stays. All else is computed.

use cel::common::ast::{EntryExpr, Expr, IdedExpr, MapExpr, operators};

use crate::{
    event::{
        Reason,
        table::rules::{
            NoAnswer, Part, Place, Problem, Side,
            cel_type::CelType,
            check::{Checker, Flaw, Typed, check_keys},
            columns::Shown,
            evaluation::Evaluation,
            node::Node,
            row::Held,
            value::Value,
            write,
        },
    },
    value::string,
};

/// A column that is named alone, and the text that it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NamedColumn<'a> {
    /// Whose value it is.
    pub side: Side,
    /// The column's place in the tuple.
    pub index: usize,
    /// The value's text form.
    pub text: &'a [u8],
}

/// One member of the object.
#[derive(Debug)]
pub(super) struct Member {
    /// Its name.
    pub(super) name: String,
    /// Name and colon, as JSON has them.
    start: Vec<u8>,
    pub(super) value: Written,
}

/// How a value is written.
#[derive(Debug)]
pub(super) enum Written {
    /// The column of that slot, as the caller writes it.
    Column {
        slot: usize,
        place: Place,
    },
    List(Vec<Written>),
    Map(Vec<(Node, Written)>),
    Choice {
        condition: Node,
        one: Box<Written>,
        other: Box<Written>,
    },
    /// What is computed, and what is known of it before.
    Computed(Node, CelType),
}

impl Member {
    pub(super) fn compile(name: &str, checker: &mut Checker<'_>) -> Result<Self, Flaw> {
        let mut start = Vec::new();
        string::write(&mut start, name);
        start.push(b':');
        let root = checker.expression.root();
        Ok(Self { name: name.to_owned(), start, value: compile(checker, root)? })
    }
}

fn compile(checker: &mut Checker<'_>, part: &IdedExpr) -> Result<Written, Flaw> {
    if let Some((side, column)) = checker.column_of(part) {
        let place = checker.start(part);
        let slot = checker.slot(place, side, column, Shown::Masked)?;
        return Ok(Written::Column { slot, place });
    }
    match &part.expr {
        Expr::List(list) => {
            let elements = list.elements.iter().map(|element| compile(checker, element));
            Ok(Written::List(elements.collect::<Result<_, _>>()?))
        }
        Expr::Map(map) => compile_map(checker, part, map),
        Expr::Call(call) if call.func_name == operators::CONDITIONAL => {
            let [condition, one, other] = call.args.as_slice() else {
                return Err(checker.unsupported(part, "such parts"));
            };
            Ok(Written::Choice {
                condition: checker.condition(condition)?,
                one: Box::new(compile(checker, one)?),
                other: Box::new(compile(checker, other)?),
            })
        }
        _ => {
            let Typed { node, cel_type } = checker.check(part)?;
            // An array's type does not say whether its elements are lists in their turn.
            let cel_type = if checker.asks_for_arrays { CelType::Dynamic } else { cel_type };
            Ok(Written::Computed(node, cel_type))
        }
    }
}

fn compile_map(checker: &mut Checker<'_>, part: &IdedExpr, map: &MapExpr) -> Result<Written, Flaw> {
    let mut entries = Vec::with_capacity(map.entries.len());
    for entry in &map.entries {
        let EntryExpr::MapEntry(entry) = &entry.expr else {
            return Err(checker.unsupported(part, "messages"));
        };
        let key = checker.key(&entry.key)?;
        entries.push((key, compile(checker, &entry.value)?));
    }
    check_keys(entries.iter().map(|(key, _)| key))?;
    Ok(Written::Map(entries))
}

/// Appends the object of all members.
///
/// # Errors
/// Where a member has no value, or `write_column` fails. The target's end is then undefined.
pub(super) fn write_members<'a>(
    members: &'a [Member],
    event_type: &str,
    evaluation: &Evaluation<'a>,
    target: &mut Vec<u8>,
    mut write_column: impl FnMut(NamedColumn<'_>, &mut Vec<u8>) -> Result<(), Reason>,
) -> Result<(), Reason> {
    target.push(b'{');
    for (index, member) in members.iter().enumerate() {
        if index > 0 {
            target.push(b',');
        }
        target.extend_from_slice(&member.start);
        let mut writer = Writer { evaluation, write_column: &mut write_column };
        writer.write(&member.value, target).map_err(|stopped| match stopped {
            Stopped::Column(reason) => reason,
            Stopped::Problem(place, problem) => {
                let part = Part::Data { member: member.name.clone() };
                let event_type = event_type.to_owned();
                Reason::Rule { answer: Box::new(NoAnswer { event_type, part, place, problem }) }
            }
        })?;
    }
    target.push(b'}');
    Ok(())
}

/// Why a member is not written.
enum Stopped {
    Column(Reason),
    Problem(Place, Problem),
}

impl From<(Place, Problem)> for Stopped {
    fn from((place, problem): (Place, Problem)) -> Self {
        Self::Problem(place, problem)
    }
}

struct Writer<'w, 'a, F> {
    evaluation: &'w Evaluation<'a>,
    write_column: &'w mut F,
}

impl<'a, F: FnMut(NamedColumn<'_>, &mut Vec<u8>) -> Result<(), Reason>> Writer<'_, 'a, F> {
    fn write(&mut self, written: &'a Written, target: &mut Vec<u8>) -> Result<(), Stopped> {
        match written {
            Written::Column { slot, place } => self.write_slot(*slot, *place, target),
            Written::List(elements) => {
                target.push(b'[');
                for (index, element) in elements.iter().enumerate() {
                    if index > 0 {
                        target.push(b',');
                    }
                    self.write(element, target)?;
                }
                target.push(b']');
                Ok(())
            }
            Written::Map(entries) => self.write_map(entries, target),
            Written::Choice { condition, one, other } => {
                match self.evaluation.value(condition)?.plain() {
                    Value::Bool(true) => self.write(one, target),
                    Value::Bool(false) => self.write(other, target),
                    Value::Null => {
                        target.extend_from_slice(b"null");
                        Ok(())
                    }
                    value => {
                        let problem = Problem::NotBool { found: value.type_name() };
                        Err(Stopped::Problem(condition.place, problem))
                    }
                }
            }
            Written::Computed(node, _) => {
                let value = self.evaluation.value(node)?;
                write::write(&value, target).map_err(|problem| (node.place, problem).into())
            }
        }
    }
}

impl<'a, F: FnMut(NamedColumn<'_>, &mut Vec<u8>) -> Result<(), Reason>> Writer<'_, 'a, F> {
    fn write_slot(
        &mut self,
        slot: usize,
        place: Place,
        target: &mut Vec<u8>,
    ) -> Result<(), Stopped> {
        let slot = self.evaluation.slot(slot);
        match self.evaluation.held(slot) {
            Held::Null => {
                target.extend_from_slice(b"null");
                Ok(())
            }
            Held::Text(text) => {
                let named = NamedColumn { side: slot.side, index: slot.index, text };
                (self.write_column)(named, target).map_err(Stopped::Column)
            }
            Held::Unavailable => {
                Err(Stopped::Problem(place, Problem::NotSent { column: slot.name.clone() }))
            }
            Held::Unknown => {
                Err(Stopped::Problem(place, Problem::OldNotSent { column: slot.name.clone() }))
            }
        }
    }

    fn write_map(
        &mut self,
        entries: &'a [(Node, Written)],
        target: &mut Vec<u8>,
    ) -> Result<(), Stopped> {
        let start = target.len();
        let mut names: Vec<String> = Vec::with_capacity(entries.len());
        target.push(b'{');
        for (key, value) in entries {
            let name = match self.evaluation.value(key)?.plain() {
                // As where the map is computed: without a key there is no map.
                Value::Null => {
                    target.truncate(start);
                    target.extend_from_slice(b"null");
                    return Ok(());
                }
                key_value => write::name(&key_value).map_err(|problem| (key.place, problem))?,
            };
            if names.contains(&name) {
                return Err((key.place, Problem::DuplicateKey).into());
            }
            if !names.is_empty() {
                target.push(b',');
            }
            string::write(target, &name);
            target.push(b':');
            self.write(value, target)?;
            names.push(name);
        }
        target.push(b'}');
        Ok(())
    }
}

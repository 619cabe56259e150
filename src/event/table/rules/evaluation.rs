//! Carrying expressions out for one row.
//!
//! A column is read when the first expression asks for it, and never again. What has no value is one
//! of two things: unknown, where CEL refuses an operation because an operand is null, or a problem.
//! Both go up to where they are decided: `false && …` and `true || …` need no other side, and an
//! unknown condition does not hold, as in SQL. A problem beside something unknown stays a problem.

use std::{cell::OnceCell, ops::Deref};

use crate::event::table::rules::{
    Place, Problem, Row,
    columns::Slot,
    json,
    node::{Node, NodeKind},
    operator::Operator,
    row::Held,
    value::{Value, entry},
};

/// Why there is no value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Halt {
    /// An operand is null.
    Unknown,
    /// Something that no row should meet.
    Problem(Box<(Place, Problem)>),
}

impl Halt {
    pub(super) fn problem(place: Place, problem: Problem) -> Self {
        Self::Problem(Box::new((place, problem)))
    }
}

/// One row, with what was read of it.
#[derive(Debug)]
pub(super) struct Evaluation<'a> {
    slots: &'a [Slot],
    row: Row<'a>,
    read: Cells<'a>,
}

/// So many columns of a row are remembered without memory of their own: what rules ask for, most
/// often. (`cargo bench --bench rules`)
const INLINE_CELLS: usize = 8;

/// What was read, by slots.
#[derive(Debug)]
struct Cells<'a> {
    first: [OnceCell<Value<'a>>; INLINE_CELLS],
    more: Box<[OnceCell<Value<'a>>]>,
}

impl<'a> Cells<'a> {
    fn new(slots: usize) -> Self {
        let more = (INLINE_CELLS..slots).map(|_| OnceCell::new()).collect();
        Self { first: [const { OnceCell::new() }; INLINE_CELLS], more }
    }

    fn get(&self, slot: usize) -> &OnceCell<Value<'a>> {
        let cell = self.first.get(slot).or_else(|| self.more.get(slot - INLINE_CELLS));
        cell.expect("there is one for each slot")
    }
}

/// A value, or where it lies.
#[derive(Debug)]
pub(super) enum Seen<'s, 'a> {
    There(&'s Value<'a>),
    Made(Value<'a>),
}

impl<'a> Seen<'_, 'a> {
    pub(super) fn into_value(self) -> Value<'a> {
        match self {
            Self::There(value) => value.clone(),
            Self::Made(value) => value,
        }
    }
}

impl<'a> Deref for Seen<'_, 'a> {
    type Target = Value<'a>;

    fn deref(&self) -> &Value<'a> {
        match self {
            Self::There(value) => value,
            Self::Made(value) => value,
        }
    }
}

/// The macros' variables around the part at hand.
pub(super) type Locals<'a> = Vec<Value<'a>>;

impl<'a> Evaluation<'a> {
    pub(super) fn new(slots: &'a [Slot], row: Row<'a>) -> Self {
        Self { slots, row, read: Cells::new(slots.len()) }
    }

    /// Whether a condition holds.
    pub(super) fn holds(&self, condition: &'a Node) -> Result<bool, (Place, Problem)> {
        match self.decide(condition, &mut Locals::new()) {
            Ok(holds) => Ok(holds),
            Err(Halt::Unknown) => Ok(false),
            Err(Halt::Problem(problem)) => Err(*problem),
        }
    }

    /// An expression's value; null where it is unknown.
    pub(super) fn value(&self, node: &'a Node) -> Result<Value<'a>, (Place, Problem)> {
        match self.evaluate(node, &mut Locals::new()) {
            Ok(value) => Ok(value),
            Err(Halt::Unknown) => Ok(Value::Null),
            Err(Halt::Problem(problem)) => Err(*problem),
        }
    }

    /// What the row holds in a slot's column.
    pub(super) fn held(&self, slot: &Slot) -> Held<'a> {
        match slot.is_unknown {
            true => self.row.at_unless_unknown(slot.index),
            false => self.row.at(slot.side, slot.index),
        }
    }

    /// The slot of that number.
    pub(super) fn slot(&self, slot: usize) -> &'a Slot {
        self.slots.get(slot).expect("the expressions were compiled with these slots")
    }

    fn column(&self, slot: usize) -> Result<&Value<'a>, Problem> {
        let cell = self.read.get(slot);
        if let Some(value) = cell.get() {
            return Ok(value);
        }
        let slot = self.slot(slot);
        let value = match self.held(slot).text(&slot.name)? {
            None => Value::Null,
            Some(text) => slot.coding.read(text.into()).ok_or_else(|| Problem::Malformed {
                column: slot.name.clone(),
                expected: slot.coding.name(),
            })?,
        };
        Ok(cell.get_or_init(|| value))
    }

    pub(super) fn evaluate(
        &self,
        node: &'a Node,
        locals: &mut Locals<'a>,
    ) -> Result<Value<'a>, Halt> {
        let place = node.place;
        let problem = |problem| Halt::problem(place, problem);
        match &node.kind {
            NodeKind::Constant(value) => Ok(value.borrowed()),
            NodeKind::Column(slot) => self.column(*slot).cloned().map_err(problem),
            NodeKind::Operation => Ok(Value::text(self.row.operation.word())),
            NodeKind::Local(local) => {
                Ok(locals.get(*local).cloned().expect("the macro has put its variable there"))
            }
            NodeKind::IsNull(_)
            | NodeKind::Not(_)
            | NodeKind::And(_)
            | NodeKind::Or(_)
            | NodeKind::Equals(_)
            | NodeKind::Matches(..) => self.decide(node, locals).map(Value::Bool),
            NodeKind::Choice(parts) => {
                let [condition, one, other] = &**parts;
                let chosen = if self.decide(condition, locals)? { one } else { other };
                self.evaluate(chosen, locals)
            }
            NodeKind::Operator(operator, sides) => {
                let [left, right] = &**sides;
                let left = match operator {
                    // Null may be looked for in a list like anything else.
                    Operator::In => self.see(left, locals)?,
                    _ => self.operand(left, locals)?,
                };
                let right = self.operand(right, locals)?;
                operator.apply(&left, &right).map_err(problem)
            }
            NodeKind::Negate(operand) => negate(&*self.operand(operand, locals)?).map_err(problem),
            NodeKind::Member(operand, name) => {
                let found = member(&*self.operand(operand, locals)?, name).map_err(problem)?;
                found.ok_or_else(|| problem(Problem::NoMember { name: name.clone() }))
            }
            NodeKind::HasMember(operand, name) => {
                let found = member(&*self.operand(operand, locals)?, name).map_err(problem)?;
                Ok(Value::Bool(found.is_some()))
            }
            NodeKind::Call(function, arguments) => {
                let arguments = arguments.iter().map(|argument| match function.takes_null() {
                    true => self.evaluate(argument, locals).map(Value::plain),
                    false => self.operand(argument, locals).map(Seen::into_value),
                });
                let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
                function.apply(&arguments).map_err(problem)
            }
            NodeKind::List(elements) => {
                let elements = elements.iter().map(|element| self.evaluate(element, locals));
                Ok(Value::List(elements.collect::<Result<_, _>>()?))
            }
            NodeKind::Map(entries) => self.map(place, entries, locals),
            NodeKind::Loop(looped) => self.run_loop(place, looped, locals),
        }
    }

    /// A part's value, without a copy where it is already there.
    fn see<'s>(&'s self, node: &'a Node, locals: &mut Locals<'a>) -> Result<Seen<'s, 'a>, Halt> {
        match &node.kind {
            NodeKind::Constant(value) => Ok(Seen::There(value)),
            NodeKind::Column(slot) => match self.column(*slot) {
                Ok(value) => Ok(Seen::There(value)),
                Err(problem) => Err(Halt::problem(node.place, problem)),
            },
            _ => self.evaluate(node, locals).map(Seen::Made),
        }
    }

    /// A part that an operation takes, which refuses null. JSON is what no scalar is.
    pub(super) fn operand<'s>(
        &'s self,
        node: &'a Node,
        locals: &mut Locals<'a>,
    ) -> Result<Seen<'s, 'a>, Halt> {
        let seen = self.see(node, locals)?;
        let seen = match &*seen {
            Value::Json(_) => Seen::Made(seen.into_value().plain()),
            _ => seen,
        };
        match &*seen {
            Value::Null => Err(Halt::Unknown),
            _ => Ok(seen),
        }
    }

    /// A part that decides.
    pub(super) fn decide(&self, node: &'a Node, locals: &mut Locals<'a>) -> Result<bool, Halt> {
        match &node.kind {
            NodeKind::IsNull(slot) => {
                let slot = self.slot(*slot);
                match self.held(slot) {
                    Held::Unknown => {
                        let column = slot.name.clone();
                        Err(Halt::problem(node.place, Problem::OldNotSent { column }))
                    }
                    held => Ok(held == Held::Null),
                }
            }
            NodeKind::Not(operand) => Ok(!self.decide(operand, locals)?),
            NodeKind::And(sides) => self.either(sides, false, locals),
            NodeKind::Or(sides) => self.either(sides, true, locals),
            NodeKind::Equals(sides) => {
                let [left, right] = &**sides;
                let (left, right) = (self.see(left, locals)?, self.see(right, locals)?);
                left.equals(&right).map_err(|problem| Halt::problem(node.place, problem))
            }
            NodeKind::Matches(operand, pattern) => match &*self.operand(operand, locals)? {
                Value::String(text) => Ok(pattern.is_match(text)),
                other => Err(Halt::problem(
                    node.place,
                    Problem::Operands {
                        operation: "matches()",
                        found: other.type_name().to_owned(),
                    },
                )),
            },
            _ => match &*self.operand(node, locals)? {
                Value::Bool(holds) => Ok(*holds),
                other => {
                    Err(Halt::problem(node.place, Problem::NotBool { found: other.type_name() }))
                }
            },
        }
    }

    /// `&&` and `||`, of which one side alone decides where it is `deciding`.
    fn either(
        &self,
        sides: &'a [Node; 2],
        deciding: bool,
        locals: &mut Locals<'a>,
    ) -> Result<bool, Halt> {
        let [left, right] = sides;
        let left = self.decide(left, locals);
        if left == Ok(deciding) {
            return Ok(deciding);
        }
        undecided(deciding, left, self.decide(right, locals))
    }

    fn map(
        &self,
        place: Place,
        entries: &'a [(Node, Node)],
        locals: &mut Locals<'a>,
    ) -> Result<Value<'a>, Halt> {
        let mut map: Vec<(Value<'a>, Value<'a>)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let key = self.operand(key, locals)?.into_value();
            let known = entry(&map, &key).map_err(|problem| Halt::problem(place, problem))?;
            if known.is_some() {
                return Err(Halt::problem(place, Problem::DuplicateKey));
            }
            map.push((key, self.evaluate(value, locals)?));
        }
        Ok(Value::Map(map.into()))
    }
}

/// What both sides of `&&` or `||` come to. A problem stays one beside what is unknown.
pub(super) fn undecided(
    deciding: bool,
    left: Result<bool, Halt>,
    right: Result<bool, Halt>,
) -> Result<bool, Halt> {
    match (left, right) {
        (Ok(left), _) if left == deciding => Ok(deciding),
        (_, Ok(right)) if right == deciding => Ok(deciding),
        (Err(Halt::Problem(problem)), _) | (_, Err(Halt::Problem(problem))) => {
            Err(Halt::Problem(problem))
        }
        (Err(Halt::Unknown), _) | (_, Err(Halt::Unknown)) => Err(Halt::Unknown),
        (Ok(_), Ok(_)) => Ok(!deciding),
    }
}

fn negate<'a>(operand: &Value<'a>) -> Result<Value<'a>, Problem> {
    let operation = "-";
    match operand {
        Value::Int(int) => {
            int.checked_neg().map(Value::Int).ok_or(Problem::OutOfRange { operation })
        }
        Value::Double(double) => Ok(Value::Double(-*double)),
        other => Err(Problem::Operands { operation, found: other.type_name().to_owned() }),
    }
}

/// The member of that name; `None` where a map has none.
fn member<'a>(of: &Value<'a>, name: &str) -> Result<Option<Value<'a>>, Problem> {
    match of {
        Value::Json(text) if json::is_object(text) => Ok(json::member(text, name)),
        Value::Map(entries) => {
            let key = Value::String(name.to_owned().into());
            Ok(entry(entries, &key)?.cloned())
        }
        other => {
            let found = other.type_name().to_owned();
            Err(Problem::Operands { operation: "a member's name", found })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        change::{Tuple, ValueSlot},
        event::table::rules::{Operation, Side, coding::Coding},
    };

    #[test]
    fn a_column_is_read_once_however_many_there_are() {
        let slots: Vec<Slot> = (0..2 * INLINE_CELLS)
            .map(|index| Slot {
                side: Side::New,
                index,
                name: format!("column_{index}"),
                is_unknown: false,
                coding: Coding::List { element: Box::new(Coding::Int), delimiter: b',' },
            })
            .collect();
        let values = vec![ValueSlot::Text { start: 0, length: 7 }; slots.len()];
        let new = Some(Tuple::new(b"{1,2,3}", &values));
        let evaluation =
            Evaluation::new(&slots, Row { operation: Operation::Insert, old: None, new });
        for slot in 0..slots.len() {
            let elements = || {
                let value = evaluation.column(slot).expect("a list");
                value.elements().expect("a list")
            };
            let (first, second) = (elements(), elements());
            assert_eq!(first.len(), 3);
            assert!(std::sync::Arc::ptr_eq(&first, &second), "{slot}");
        }
    }
}

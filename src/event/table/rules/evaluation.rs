//! Carrying expressions out for one row.
//!
//! A column is read when the first expression asks for it, and never again. What has no value is one
//! of two things: unknown, where CEL refuses an operation because an operand is null, or a problem.
//! Both go up to where they are decided: `false && …` and `true || …` need no other side, and an
//! unknown condition does not hold, as in SQL. A problem beside something unknown stays a problem.

use std::{cell::OnceCell, sync::Arc};

use crate::event::table::rules::{
    Place, Problem, Row,
    columns::Slot,
    json,
    node::{Body, Loop, Node, NodeKind},
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
    read: Box<[OnceCell<Result<Value<'a>, Problem>>]>,
}

/// The macros' variables around the part at hand.
type Locals<'a> = Vec<Value<'a>>;

impl<'a> Evaluation<'a> {
    pub(super) fn new(slots: &'a [Slot], row: Row<'a>) -> Self {
        Self { slots, row, read: slots.iter().map(|_| OnceCell::new()).collect() }
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

    fn column(&self, slot: usize) -> &Result<Value<'a>, Problem> {
        let read = self.read.get(slot).expect("there is one for each slot");
        read.get_or_init(|| {
            let slot = self.slot(slot);
            let Some(text) = self.held(slot).text(&slot.name)? else { return Ok(Value::Null) };
            slot.coding.read(text.into()).ok_or_else(|| Problem::Malformed {
                column: slot.name.clone(),
                expected: slot.coding.name(),
            })
        })
    }

    fn evaluate(&self, node: &'a Node, locals: &mut Locals<'a>) -> Result<Value<'a>, Halt> {
        let place = node.place;
        let problem = |problem| Halt::problem(place, problem);
        match &node.kind {
            NodeKind::Constant(value) => Ok(value.clone()),
            NodeKind::Operation => Ok(Value::text(self.row.operation.word())),
            NodeKind::Column(slot) => self.column(*slot).clone().map_err(problem),
            NodeKind::IsNull(slot) => {
                let slot = self.slot(*slot);
                match self.held(slot) {
                    Held::Unknown => {
                        let column = slot.name.clone();
                        Err(Halt::problem(node.place, Problem::OldNotSent { column }))
                    }
                    held => Ok(Value::Bool(held == Held::Null)),
                }
            }
            NodeKind::Local(local) => {
                Ok(locals.get(*local).cloned().expect("the macro has put its variable there"))
            }
            NodeKind::Not(operand) => Ok(Value::Bool(!self.decide(operand, locals)?)),
            NodeKind::And(sides) => self.either(sides, false, locals).map(Value::Bool),
            NodeKind::Or(sides) => self.either(sides, true, locals).map(Value::Bool),
            NodeKind::Choice(parts) => {
                let [condition, one, other] = &**parts;
                let chosen = if self.decide(condition, locals)? { one } else { other };
                self.evaluate(chosen, locals)
            }
            NodeKind::Equals(sides) => {
                let [left, right] = &**sides;
                let left = self.evaluate(left, locals)?;
                let right = self.evaluate(right, locals)?;
                left.equals(&right).map(Value::Bool).map_err(problem)
            }
            NodeKind::Operator(operator, sides) => {
                let [left, right] = &**sides;
                // Null may be looked for in a list like anything else.
                let left = match operator {
                    Operator::In => self.evaluate(left, locals)?.plain(),
                    _ => self.operand(left, locals)?,
                };
                let right = self.operand(right, locals)?;
                operator.apply(left, right).map_err(problem)
            }
            NodeKind::Negate(operand) => negate(self.operand(operand, locals)?).map_err(problem),
            NodeKind::Member(operand, name) => {
                let found = member(&self.operand(operand, locals)?, name).map_err(problem)?;
                found.ok_or_else(|| problem(Problem::NoMember { name: name.clone() }))
            }
            NodeKind::HasMember(operand, name) => {
                let found = member(&self.operand(operand, locals)?, name).map_err(problem)?;
                Ok(Value::Bool(found.is_some()))
            }
            NodeKind::Call(function, arguments) => {
                let arguments = arguments.iter().map(|argument| match function.takes_null() {
                    true => self.evaluate(argument, locals).map(Value::plain),
                    false => self.operand(argument, locals),
                });
                let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
                function.apply(&arguments).map_err(problem)
            }
            NodeKind::Matches(operand, pattern) => match self.operand(operand, locals)? {
                Value::String(text) => Ok(Value::Bool(pattern.is_match(&text))),
                other => Err(problem(Problem::Operands {
                    operation: "matches()",
                    found: other.type_name().to_owned(),
                })),
            },
            NodeKind::List(elements) => {
                let elements = elements.iter().map(|element| self.evaluate(element, locals));
                Ok(Value::List(elements.collect::<Result<_, _>>()?))
            }
            NodeKind::Map(entries) => self.map(place, entries, locals),
            NodeKind::Loop(looped) => self.run_loop(place, looped, locals),
        }
    }

    /// A part that an operation takes, which refuses null.
    fn operand(&self, node: &'a Node, locals: &mut Locals<'a>) -> Result<Value<'a>, Halt> {
        match self.evaluate(node, locals)?.plain() {
            Value::Null => Err(Halt::Unknown),
            value => Ok(value),
        }
    }

    /// A part that decides.
    fn decide(&self, node: &'a Node, locals: &mut Locals<'a>) -> Result<bool, Halt> {
        match self.operand(node, locals)? {
            Value::Bool(holds) => Ok(holds),
            other => Err(Halt::problem(node.place, Problem::NotBool { found: other.type_name() })),
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
            let key = self.operand(key, locals)?;
            let known = entry(&map, &key).map_err(|problem| Halt::problem(place, problem))?;
            if known.is_some() {
                return Err(Halt::problem(place, Problem::DuplicateKey));
            }
            map.push((key, self.evaluate(value, locals)?));
        }
        Ok(Value::Map(map.into()))
    }

    fn run_loop(
        &self,
        place: Place,
        looped: &'a Loop,
        locals: &mut Locals<'a>,
    ) -> Result<Value<'a>, Halt> {
        let range = self.operand(&looped.range, locals)?;
        let elements: Arc<[Value<'a>]> = match (range.elements(), range.entries()) {
            (Some(elements), _) => elements,
            (None, Some(entries)) => entries.iter().map(|(key, _)| key.clone()).collect(),
            (None, None) => {
                let found = range.type_name().to_owned();
                let operation = "a macro";
                return Err(Halt::problem(place, Problem::Operands { operation, found }));
            }
        };
        locals.truncate(looped.local);
        locals.push(Value::Null);
        let result = self.run_body(&looped.body, &elements, looped.local, locals);
        locals.truncate(looped.local);
        result
    }

    fn run_body(
        &self,
        body: &'a Body,
        elements: &[Value<'a>],
        local: usize,
        locals: &mut Locals<'a>,
    ) -> Result<Value<'a>, Halt> {
        let with = |part: &Value<'a>, locals: &mut Locals<'a>| {
            let variable = locals.get_mut(local).expect("the loop has put its variable there");
            *variable = part.clone();
        };
        match body {
            Body::All(condition) | Body::Exists(condition) => {
                let deciding = matches!(body, Body::Exists(_));
                let mut so_far = Ok(!deciding);
                for element in elements {
                    with(element, locals);
                    let one = self.decide(condition, locals);
                    if one == Ok(deciding) {
                        return Ok(Value::Bool(deciding));
                    }
                    so_far = undecided(deciding, so_far, one);
                }
                so_far.map(Value::Bool)
            }
            Body::ExistsOne(condition) => {
                let mut count = 0;
                for element in elements {
                    with(element, locals);
                    count += usize::from(self.decide(condition, locals)?);
                }
                Ok(Value::Bool(count == 1))
            }
            Body::Filter(condition) => {
                let mut kept = Vec::new();
                for element in elements {
                    with(element, locals);
                    if self.decide(condition, locals)? {
                        kept.push(element.clone());
                    }
                }
                Ok(Value::List(kept.into()))
            }
            Body::Map { condition, becomes } => {
                let mut made = Vec::new();
                for element in elements {
                    with(element, locals);
                    let is_taken = match condition {
                        Some(condition) => self.decide(condition, locals)?,
                        None => true,
                    };
                    if is_taken {
                        made.push(self.evaluate(becomes, locals)?);
                    }
                }
                Ok(Value::List(made.into()))
            }
        }
    }
}

/// What both sides of `&&` or `||` come to. A problem stays one beside what is unknown.
fn undecided(
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

fn negate(operand: Value<'_>) -> Result<Value<'_>, Problem> {
    let operation = "-";
    match operand {
        Value::Int(int) => {
            int.checked_neg().map(Value::Int).ok_or(Problem::OutOfRange { operation })
        }
        Value::Double(double) => Ok(Value::Double(-double)),
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

//! From an expression's tree to what is carried out, with every name and type looked at.
//!
//! A type is what the columns and the text tell; what is within JSON shows its types in the row only,
//! and passes. Whatever is refused here would be refused for every row.

mod call;
mod comparison;
mod macros;

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, MapExpr, SelectExpr};

use crate::event::table::rules::{
    Expression, Mistake, Place, Side,
    cel_type::CelType,
    coding::Coding,
    columns::{Columns, OldValue, Shown, Slot},
    node::{Node, NodeKind},
    value::{Value, entry},
};

/// Below it, the nearest name is probably not what was meant (`strsim::jaro_winkler`, 0 to 1).
const LIKENESS_MIN: f64 = 0.8;

/// What `type()` is compared with: the types that JSON has.
const TYPE_NAMES: [&str; 7] = ["bool", "double", "int", "list", "map", "null_type", "string"];

/// What is wrong, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Flaw {
    pub(super) place: Place,
    pub(super) mistake: Mistake,
}

/// A part that was checked.
#[derive(Debug)]
pub(super) struct Typed {
    pub(super) node: Node,
    pub(super) cel_type: CelType,
}

/// What an expression's value is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Use {
    /// Deciding.
    Condition,
    /// Being shown.
    Data,
}

/// Checks one expression.
pub(super) struct Checker<'c> {
    pub(super) expression: &'c Expression,
    pub(super) columns: Columns<'c>,
    pub(super) used_for: Use,
    /// The columns that are asked for, those of other expressions of the table included.
    pub(super) slots: &'c mut Vec<Slot>,
    /// Whether an array was asked for so far.
    pub(super) asks_for_arrays: bool,
    /// The macros' variables around the part at hand.
    pub(super) locals: Vec<(String, CelType)>,
}

impl<'c> Checker<'c> {
    /// Checks the part, and all below it.
    pub(super) fn check(&mut self, part: &IdedExpr) -> Result<Typed, Flaw> {
        if let Some((side, column)) = self.column_of(part) {
            return self.column(self.start(part), side, column);
        }
        match &part.expr {
            Expr::Literal(literal) => self.literal(part, literal),
            Expr::Ident(name) => self.identifier(part, name),
            Expr::Select(select) => self.member(part, select),
            Expr::Call(call) => self.call(part, call),
            Expr::List(list) => {
                let elements = list.elements.iter().map(|element| self.check(element));
                let elements = elements.collect::<Result<Vec<_>, _>>()?;
                let element = CelType::of_all(elements.iter().map(|element| &element.cel_type));
                let place = self.expression.place(part.id);
                Ok(list_of(place, elements, CelType::List(Box::new(element))))
            }
            Expr::Map(map) => self.map(part, map),
            Expr::Struct(_) => Err(self.unsupported(part, "messages")),
            // The parser makes neither without macros.
            Expr::Comprehension(_) | Expr::Unspecified => Err(self.unsupported(part, "such parts")),
        }
    }

    /// A part that decides.
    pub(super) fn condition(&mut self, part: &IdedExpr) -> Result<Node, Flaw> {
        let Typed { node, cel_type } = self.check(part)?;
        match cel_type.can_be(&[CelType::Bool]) {
            true => Ok(node),
            false => {
                let mistake = Mistake::NotBool { found: cel_type.to_string() };
                Err(Flaw { place: self.start(part), mistake })
            }
        }
    }

    /// The column that the part names: `new.status`, or `new['order-id']`.
    pub(super) fn column_of<'e>(&self, part: &'e IdedExpr) -> Option<(Side, &'e str)> {
        let (row, column) = match &part.expr {
            Expr::Select(select) => (&*select.operand, select.field.as_str()),
            Expr::Call(call) if call.func_name == cel::common::ast::operators::INDEX => {
                match call.args.as_slice() {
                    [row, IdedExpr { expr: Expr::Literal(LiteralValue::String(name)), .. }] => {
                        (row, name.inner())
                    }
                    _ => return None,
                }
            }
            _ => return None,
        };
        Some((self.side_of(row)?, column))
    }

    /// Which row the part is, where it is `old` or `new`.
    fn side_of(&self, part: &IdedExpr) -> Option<Side> {
        let Expr::Ident(name) = &part.expr else { return None };
        match name.strip_prefix('.') {
            Some(global) => side(global),
            None => side(name).filter(|_| self.local(name).is_none()),
        }
    }

    fn local(&self, name: &str) -> Option<usize> {
        self.locals.iter().rposition(|(known, _)| known == name)
    }

    /// A column of which a value is made, or a decision.
    fn column(&mut self, place: Place, side: Side, column: &str) -> Result<Typed, Flaw> {
        let slot = self.slot(place, side, column, Shown::Plainly)?;
        let cel_type = self.slots.get(slot).map_or(CelType::Dynamic, |slot| slot.coding.cel_type());
        self.asks_for_arrays |= matches!(cel_type, CelType::List(_));
        Ok(Typed { node: Node { place, kind: NodeKind::Column(slot) }, cel_type })
    }

    /// The slot of a column, which data may use where it is `shown` like that or more plainly.
    pub(super) fn slot(
        &mut self,
        place: Place,
        side: Side,
        name: &str,
        shown: Shown,
    ) -> Result<usize, Flaw> {
        let column = name.to_owned();
        let flaw = |mistake| Flaw { place, mistake };
        let found = self.columns.columns.iter().enumerate().find(|(_, known)| known.name == name);
        let Some((index, found)) = found else {
            let names = self.columns.columns.iter().map(|column| column.name);
            let nearest = nearest(name, names).map(str::to_owned);
            return Err(flaw(Mistake::Column { column, nearest }));
        };
        if (side, found.old) == (Side::Old, OldValue::Refused) {
            let quoted_table = self.columns.quoted_table.to_owned();
            return Err(flaw(Mistake::NotDelivered { column, quoted_table }));
        }
        match (self.used_for, found.shown) {
            (Use::Condition, _) | (Use::Data, Shown::Plainly) => {}
            (Use::Data, Shown::Masked) if shown == Shown::Masked => {}
            (Use::Data, Shown::Masked) => return Err(flaw(Mistake::Masked { column })),
            (Use::Data, Shown::Never) => return Err(flaw(Mistake::Excluded { column })),
        }
        let is_unknown = (side, found.old) == (Side::Old, OldValue::Unknown);
        let coding = Coding::of(found.column_type);
        let slot = Slot { side, index, name: column, is_unknown, coding };
        Ok(self.slots.iter().position(|known| *known == slot).unwrap_or_else(|| {
            self.slots.push(slot);
            self.slots.len() - 1
        }))
    }

    fn literal(&self, part: &IdedExpr, literal: &LiteralValue) -> Result<Typed, Flaw> {
        let (value, cel_type) = match literal {
            LiteralValue::Null => (Value::Null, CelType::Null),
            LiteralValue::Boolean(bool) => (Value::Bool(*bool.inner()), CelType::Bool),
            LiteralValue::Int(int) => (Value::Int(*int.inner()), CelType::Int),
            LiteralValue::Double(double) => (Value::Double(*double.inner()), CelType::Double),
            LiteralValue::String(text) => {
                (Value::String(text.inner().to_owned().into()), CelType::String)
            }
            LiteralValue::UInt(_) => return Err(self.unsupported(part, "uint: write 1, not 1u")),
            LiteralValue::Bytes(_) => {
                return Err(self.unsupported(part, "bytes: a bytea is a string, as '\\\\x00ff'"));
            }
        };
        let place = self.expression.place(part.id);
        Ok(Typed { node: Node { place, kind: NodeKind::Constant(value) }, cel_type })
    }

    fn identifier(&self, part: &IdedExpr, written: &str) -> Result<Typed, Flaw> {
        let place = self.expression.place(part.id);
        let global = written.strip_prefix('.');
        if global.is_none()
            && let Some(local) = self.local(written)
        {
            let cel_type = self.locals.get(local).map(|(_, cel_type)| cel_type.clone());
            let cel_type = cel_type.unwrap_or(CelType::Dynamic);
            return Ok(Typed { node: Node { place, kind: NodeKind::Local(local) }, cel_type });
        }
        let name = global.unwrap_or(written);
        if let Some(side) = side(name) {
            return Err(Flaw { place, mistake: Mistake::WholeRow { side } });
        }
        let (kind, cel_type) = match TYPE_NAMES.iter().find(|known| **known == name) {
            Some(name) => (NodeKind::Constant(Value::Type(name)), CelType::Type),
            None if name == "op" => (NodeKind::Operation, CelType::String),
            None => return Err(Flaw { place, mistake: Mistake::Name { name: name.to_owned() } }),
        };
        Ok(Typed { node: Node { place, kind }, cel_type })
    }

    fn member(&mut self, part: &IdedExpr, select: &SelectExpr) -> Result<Typed, Flaw> {
        let place = self.expression.place(part.id);
        let operand = self.check(&select.operand)?;
        let cel_type = member_type(place, &operand.cel_type)?;
        let kind = NodeKind::Member(Box::new(operand.node), select.field.clone());
        Ok(Typed { node: Node { place, kind }, cel_type })
    }

    fn map(&mut self, part: &IdedExpr, map: &MapExpr) -> Result<Typed, Flaw> {
        let place = self.expression.place(part.id);
        let (mut entries, mut types) = (Vec::new(), Vec::new());
        for map_entry in &map.entries {
            let EntryExpr::MapEntry(map_entry) = &map_entry.expr else {
                return Err(self.unsupported(part, "messages"));
            };
            let key = self.typed_key(&map_entry.key)?;
            let value = self.check(&map_entry.value)?;
            types.push((key.cel_type, value.cel_type));
            entries.push((key.node, value.node));
        }
        let key = CelType::of_all(types.iter().map(|(key, _)| key));
        let value = CelType::of_all(types.iter().map(|(_, value)| value));
        let cel_type = CelType::Map(Box::new(key), Box::new(value));
        check_keys(entries.iter().map(|(key, _)| key))?;
        Ok(Typed { node: Node { place, kind: NodeKind::Map(entries) }, cel_type })
    }

    /// A map's key.
    pub(super) fn key(&mut self, part: &IdedExpr) -> Result<Node, Flaw> {
        self.typed_key(part).map(|key| key.node)
    }

    fn typed_key(&mut self, part: &IdedExpr) -> Result<Typed, Flaw> {
        let key = self.check(part)?;
        match key.cel_type.can_be(&[CelType::String, CelType::Int, CelType::Bool]) {
            true => Ok(key),
            false => {
                let mistake = comparison::unfit("a map's key", &[&key.cel_type]);
                Err(Flaw { place: key.node.place, mistake })
            }
        }
    }

    /// Where the part's first character stands.
    pub(super) fn start(&self, part: &IdedExpr) -> Place {
        match &part.expr {
            Expr::Select(select) => self.start(&select.operand),
            Expr::Call(call) => match (&call.target, call.args.first()) {
                (Some(target), _) => self.start(target),
                (None, Some(first)) if call.func_name.starts_with(['_', '@']) => self.start(first),
                _ => self.expression.place(part.id),
            },
            _ => self.expression.place(part.id),
        }
    }

    pub(super) fn unsupported(&self, part: &IdedExpr, what: &'static str) -> Flaw {
        Flaw { place: self.expression.place(part.id), mistake: Mistake::Unsupported { what } }
    }
}

fn side(name: &str) -> Option<Side> {
    [Side::Old, Side::New].into_iter().find(|side| side.word() == name)
}

/// The name of those that was probably meant.
fn nearest<'n>(written: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    names
        .map(|name| (strsim::jaro_winkler(name, written), name))
        .filter(|(likeness, _)| *likeness > LIKENESS_MIN)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, name)| name)
}

/// The type of a member of what has this type.
fn member_type(place: Place, of: &CelType) -> Result<CelType, Flaw> {
    match of {
        CelType::Dynamic => Ok(CelType::Dynamic),
        CelType::Map(key, value) if key.can_be(&[CelType::String]) => Ok((**value).clone()),
        _ => Err(Flaw { place, mistake: Mistake::NoMembers { found: of.to_string() } }),
    }
}

/// A list of parts; of constants a constant, so that no row makes it anew.
fn list_of(place: Place, elements: Vec<Typed>, cel_type: CelType) -> Typed {
    let constant = |element: &Typed| match &element.node.kind {
        NodeKind::Constant(value) => Some(value.clone()),
        _ => None,
    };
    let constants: Option<Vec<_>> = elements.iter().map(constant).collect();
    let kind = match constants {
        Some(constants) => NodeKind::Constant(Value::List(constants.into())),
        None => NodeKind::List(elements.into_iter().map(|element| element.node).collect()),
    };
    Typed { node: Node { place, kind }, cel_type }
}

/// Refuses a constant key that is there twice.
pub(super) fn check_keys<'n>(keys: impl Iterator<Item = &'n Node>) -> Result<(), Flaw> {
    let mut known: Vec<(Value<'static>, Value<'static>)> = Vec::new();
    for node in keys {
        let NodeKind::Constant(key) = &node.kind else { continue };
        if entry(&known, key).is_ok_and(|found| found.is_some()) {
            return Err(Flaw { place: node.place, mistake: Mistake::DuplicateKey });
        }
        known.push((key.clone(), Value::Null));
    }
    Ok(())
}

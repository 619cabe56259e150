//! Calls: the logical operators, which are carried out in part only, and functions.

use cel::common::ast::{CallExpr, IdedExpr, operators};

use super::{Checker, Flaw, Typed, comparison::unfit, nearest};
use crate::event::table::rules::{
    Mistake, Place,
    cel_type::CelType,
    functions::{self, Function, Miscalled, Style},
    node::{Node, NodeKind},
    operator::Operator,
    value::Value,
};

impl Checker<'_> {
    pub(super) fn call(&mut self, part: &IdedExpr, call: &CallExpr) -> Result<Typed, Flaw> {
        let place = self.expression.place(part.id);
        let name = call.func_name.as_str();
        match (call.target.as_deref(), name, call.args.as_slice()) {
            (None, operators::LOGICAL_AND, [left, right]) => {
                let sides = Box::new([self.condition(left)?, self.condition(right)?]);
                Ok(decision(place, NodeKind::And(sides)))
            }
            (None, operators::LOGICAL_OR, [left, right]) => {
                let sides = Box::new([self.condition(left)?, self.condition(right)?]);
                Ok(decision(place, NodeKind::Or(sides)))
            }
            (None, operators::LOGICAL_NOT, [operand]) => {
                let operand = self.condition(operand)?;
                Ok(decision(place, NodeKind::Not(Box::new(operand))))
            }
            (None, operators::CONDITIONAL, [condition, one, other]) => {
                self.choice(place, [condition, one, other])
            }
            (None, operators::EQUALS, [left, right]) => self.equals(place, "==", [left, right]),
            (None, operators::NOT_EQUALS, [left, right]) => {
                let equals = self.equals(place, "!=", [left, right])?;
                Ok(decision(place, NodeKind::Not(Box::new(equals.node))))
            }
            (None, operators::NEGATE, [operand]) => self.negation(place, operand),
            (None, _, [left, right]) if Operator::of(name).is_some() => {
                let operator = Operator::of(name).expect("it was found above");
                self.operator(place, operator, [left, right])
            }
            (target, _, arguments) => {
                let place = self.expression.place_of_name(part.id, name);
                match self.macro_call(place, name, target, arguments)? {
                    Some(typed) => Ok(typed),
                    None => self.function(place, name, target, arguments),
                }
            }
        }
    }

    fn choice(&mut self, place: Place, parts: [&IdedExpr; 3]) -> Result<Typed, Flaw> {
        let [condition, one, other] = parts;
        let condition = self.condition(condition)?;
        let (one, other) = (self.check(one)?, self.check(other)?);
        let Some(cel_type) = one.cel_type.joined(&other.cel_type) else {
            let (one, other) = (one.cel_type.to_string(), other.cel_type.to_string());
            return Err(Flaw { place, mistake: Mistake::Branches { one, other } });
        };
        let kind = NodeKind::Choice(Box::new([condition, one.node, other.node]));
        Ok(Typed { node: Node { place, kind }, cel_type })
    }

    fn negation(&mut self, place: Place, operand: &IdedExpr) -> Result<Typed, Flaw> {
        let Typed { node, cel_type } = self.check(operand)?;
        if !cel_type.can_be(&[CelType::Int, CelType::Double]) {
            return Err(Flaw { place, mistake: unfit("-", &[&cel_type]) });
        }
        Ok(Typed { node: Node { place, kind: NodeKind::Negate(Box::new(node)) }, cel_type })
    }

    fn function(
        &mut self,
        place: Place,
        name: &str,
        target: Option<&IdedExpr>,
        arguments: &[IdedExpr],
    ) -> Result<Typed, Flaw> {
        let style = if target.is_some() { Style::Member } else { Style::Global };
        let arguments: Vec<&IdedExpr> = target.into_iter().chain(arguments).collect();
        let function = functions::find(name, style, arguments.len())
            .map_err(|miscalled| Flaw { place, mistake: explain(name, miscalled) })?;
        let arguments = arguments.into_iter().map(|argument| self.check(argument));
        let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
        let (nodes, types): (Vec<Node>, Vec<CelType>) =
            arguments.into_iter().map(|argument| (argument.node, argument.cel_type)).unzip();
        let takes_null = function.takes_null() || !types.contains(&CelType::Null);
        let Some(cel_type) = function.result(&types).filter(|_| takes_null) else {
            let types: Vec<&CelType> = types.iter().collect();
            return Err(Flaw { place, mistake: unfit(function.name(), &types) });
        };
        let kind = applied(function, nodes).map_err(|mistake| Flaw { place, mistake })?;
        Ok(Typed { node: Node { place, kind }, cel_type })
    }
}

/// A call, or, where the settings have all that it needs, what it gives.
fn applied(function: Function, mut arguments: Vec<Node>) -> Result<NodeKind, Mistake> {
    let constant = |node: &Node| match &node.kind {
        NodeKind::Constant(value) => Some(value.clone()),
        _ => None,
    };
    let constants: Option<Vec<Value<'static>>> = arguments.iter().map(constant).collect();
    if let Some(constants) = constants {
        let value = function.apply(&constants);
        return match (function, value, constants.as_slice()) {
            (_, Ok(value), _) => Ok(NodeKind::Constant(value)),
            (Function::Matches, Err(_), [_, Value::String(text)]) => Err(pattern_mistake(text)),
            (_, Err(problem), _) => Err(Mistake::Literal { problem }),
        };
    }
    let pattern = match arguments.get(1).map(|pattern| &pattern.kind) {
        Some(NodeKind::Constant(Value::String(text))) if function == Function::Matches => {
            Some(functions::pattern(text).map_err(|_| pattern_mistake(text))?)
        }
        _ => None,
    };
    Ok(match pattern {
        None => NodeKind::Call(function, arguments),
        Some(pattern) => NodeKind::Matches(Box::new(arguments.swap_remove(0)), pattern),
    })
}

fn pattern_mistake(text: &str) -> Mistake {
    let detail = functions::pattern(text).err().unwrap_or_default();
    Mistake::Pattern { detail }
}

fn decision(place: Place, kind: NodeKind) -> Typed {
    Typed { node: Node { place, kind }, cel_type: CelType::Bool }
}

fn explain(name: &str, miscalled: Miscalled) -> Mistake {
    let (style, [fewest, most]) = match miscalled {
        Miscalled::Unknown => {
            let names = functions::names().chain(super::macros::NAMES);
            let nearest = nearest(name, names).map(|name| format!("; the nearest is {name}()"));
            let nearest = nearest.unwrap_or_default();
            return Mistake::Function { name: name.to_owned(), nearest };
        }
        Miscalled::Otherwise { style, arguments } => (style, arguments),
    };
    let call = |arguments: usize| match (style, arguments) {
        (Style::Member, 0) => format!("x.{name}()"),
        (Style::Member, _) => format!("x.{name}(y)"),
        (Style::Global | Style::Both, 1) => format!("{name}(x)"),
        (Style::Global | Style::Both, _) => format!("{name}(x, y)"),
    };
    let usage = if fewest == most { call(fewest) } else { [call(fewest), call(most)].join(" or ") };
    Mistake::Call { usage }
}

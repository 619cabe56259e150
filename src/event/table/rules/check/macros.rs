//! The macros: calls whose arguments are not values.

use cel::common::ast::{Expr, IdedExpr};

use super::{Checker, Flaw, Typed, comparison::unfit, member_type};
use crate::event::table::rules::{
    Mistake, Place,
    cel_type::CelType,
    columns::Shown,
    node::{Body, Loop, Node, NodeKind},
};

/// All of them.
pub(super) const NAMES: [&str; 6] = ["has", "all", "exists", "exists_one", "map", "filter"];

impl Checker<'_> {
    /// The macro that a call is; none where it is a function's.
    pub(super) fn macro_call(
        &mut self,
        place: Place,
        name: &str,
        target: Option<&IdedExpr>,
        arguments: &[IdedExpr],
    ) -> Result<Option<Typed>, Flaw> {
        if !NAMES.contains(&name) {
            return Ok(None);
        }
        match (name, target, arguments) {
            ("has", None, [member]) => self.has(place, member),
            ("map", Some(range), [variable, becomes]) => {
                self.loop_over(place, name, range, [Some(variable), None, Some(becomes)])
            }
            ("map", Some(range), [variable, condition, becomes]) => {
                self.loop_over(place, name, range, [Some(variable), Some(condition), Some(becomes)])
            }
            ("all" | "exists" | "exists_one" | "filter", Some(range), [variable, condition]) => {
                self.loop_over(place, name, range, [Some(variable), Some(condition), None])
            }
            _ => Err(Flaw { place, mistake: usage(name) }),
        }
        .map(Some)
    }

    /// Of a column, whether it is not NULL; of anything else, whether there is such a member.
    fn has(&mut self, place: Place, member: &IdedExpr) -> Result<Typed, Flaw> {
        let boolean = |kind| Typed { node: Node { place, kind }, cel_type: CelType::Bool };
        if let Some((side, column)) = self.column_of(member) {
            let slot = self.slot(self.start(member), side, column, Shown::Plainly)?;
            let is_null = Node { place, kind: NodeKind::IsNull(slot) };
            return Ok(boolean(NodeKind::Not(Box::new(is_null))));
        }
        let Expr::Select(select) = &member.expr else {
            return Err(Flaw { place, mistake: usage("has") });
        };
        let operand = self.check(&select.operand)?;
        member_type(self.expression.place(member.id), &operand.cel_type)?;
        Ok(boolean(NodeKind::HasMember(Box::new(operand.node), select.field.clone())))
    }

    /// A macro of a variable, a condition and what each element becomes.
    fn loop_over(
        &mut self,
        place: Place,
        name: &str,
        range: &IdedExpr,
        [variable, condition, becomes]: [Option<&IdedExpr>; 3],
    ) -> Result<Typed, Flaw> {
        let Some(Expr::Ident(variable)) = variable.map(|variable| &variable.expr) else {
            return Err(Flaw { place, mistake: usage(name) });
        };
        let Typed { node: range, cel_type: range_type } = self.check(range)?;
        let element = match &range_type {
            CelType::Dynamic => CelType::Dynamic,
            CelType::List(element) => (**element).clone(),
            CelType::Map(key, _) => (**key).clone(),
            _ => return Err(Flaw { place, mistake: unfit(spoken(name), &[&range_type]) }),
        };
        let local = self.locals.len();
        self.locals.push((variable.clone(), element.clone()));
        let condition = condition.map(|condition| self.condition(condition)).transpose();
        let becomes = becomes.map(|becomes| self.check(becomes)).transpose();
        self.locals.pop();
        let (body, cel_type) = match (name, condition?, becomes?) {
            ("all", Some(condition), None) => (Body::All(condition), CelType::Bool),
            ("exists", Some(condition), None) => (Body::Exists(condition), CelType::Bool),
            ("exists_one", Some(condition), None) => (Body::ExistsOne(condition), CelType::Bool),
            ("filter", Some(condition), None) => {
                (Body::Filter(condition), CelType::List(Box::new(element)))
            }
            (_, condition, Some(Typed { node, cel_type })) => {
                (Body::Map { condition, becomes: node }, CelType::List(Box::new(cel_type)))
            }
            _ => return Err(Flaw { place, mistake: usage(name) }),
        };
        let kind = NodeKind::Loop(Box::new(Loop { range, local, body }));
        Ok(Typed { node: Node { place, kind }, cel_type })
    }
}

/// A macro's name as errors have it.
fn spoken(name: &str) -> &'static str {
    match name {
        "all" => "all()",
        "exists" => "exists()",
        "exists_one" => "exists_one()",
        "filter" => "filter()",
        _ => "map()",
    }
}

fn usage(name: &str) -> Mistake {
    let usage = match name {
        "has" => "has(new.column) or has(new.column.member)".to_owned(),
        "map" => "list.map(x, …) or list.map(x, condition, …)".to_owned(),
        _ => format!("list.{name}(x, condition)"),
    };
    Mistake::Call { usage }
}

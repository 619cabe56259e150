//! Equality, and what is known of it without the values.

use cel::common::ast::{Expr, IdedExpr, LiteralValue};

use super::{Checker, Flaw, Typed};
use crate::event::table::rules::{
    Mistake, Operation, Place,
    cel_type::CelType,
    columns::Shown,
    node::{Node, NodeKind},
    operator::Operator,
    value::Value,
};

impl Checker<'_> {
    /// `==`, at that place.
    pub(super) fn equals(
        &mut self,
        place: Place,
        operation: &'static str,
        sides: [&IdedExpr; 2],
    ) -> Result<Typed, Flaw> {
        let [left, right] = sides;
        if let Some(is_null) = self.null_test(place, left, right)? {
            return Ok(is_null);
        }
        let (left, right) = (self.check(left)?, self.check(right)?);
        if !left.cel_type.is_comparable_to(&right.cel_type) {
            return Err(Flaw {
                place,
                mistake: unfit(operation, &[&left.cel_type, &right.cel_type]),
            });
        }
        check_operation(&left.node, [&right.node])?;
        check_operation(&right.node, [&left.node])?;
        let kind = NodeKind::Equals(Box::new([left.node, right.node]));
        Ok(Typed { node: Node { place, kind }, cel_type: CelType::Bool })
    }

    /// A column beside `null`: whether it is NULL is known of values that were not sent too.
    fn null_test(
        &mut self,
        place: Place,
        left: &IdedExpr,
        right: &IdedExpr,
    ) -> Result<Option<Typed>, Flaw> {
        let is_null = |part: &IdedExpr| part.expr == Expr::Literal(LiteralValue::Null);
        let column = match (is_null(left), is_null(right)) {
            (false, true) => left,
            (true, false) => right,
            (true, true) | (false, false) => return Ok(None),
        };
        let Some((side, name)) = self.column_of(column) else { return Ok(None) };
        let slot = self.slot(self.start(column), side, name, Shown::Plainly)?;
        let node = Node { place, kind: NodeKind::IsNull(slot) };
        Ok(Some(Typed { node, cel_type: CelType::Bool }))
    }

    /// Any other operator of two operands.
    pub(super) fn operator(
        &mut self,
        place: Place,
        operator: Operator,
        sides: [&IdedExpr; 2],
    ) -> Result<Typed, Flaw> {
        let [left, right] = sides;
        let (left, right) = (self.check(left)?, self.check(right)?);
        let types = [&left.cel_type, &right.cel_type];
        let Some(cel_type) = operator.result(types[0], types[1]) else {
            return Err(Flaw { place, mistake: unfit(operator.symbol(), &types) });
        };
        if operator == Operator::In {
            match &right.node.kind {
                NodeKind::List(elements) => check_operation(&left.node, elements)?,
                NodeKind::Constant(Value::List(elements)) => {
                    check_words(&left.node, right.node.place, elements)?;
                }
                _ => {}
            }
        }
        let kind = NodeKind::Operator(operator, Box::new([left.node, right.node]));
        Ok(Typed { node: Node { place, kind }, cel_type })
    }
}

/// The mistake of types that an operation does not take.
pub(super) fn unfit(operation: &'static str, types: &[&CelType]) -> Mistake {
    let has = |wanted: &CelType| types.contains(&wanted);
    let advice = match (has(&CelType::String), has(&CelType::Null)) {
        (_, true) => ": only == and != compare with null",
        (true, _) if has(&CelType::Timestamp) => ": timestamp('2026-01-31T00:00:00Z') is one",
        (true, _) if has(&CelType::Duration) => ": duration('24h') is one",
        (true, _) if types.iter().any(|one| one.is_number()) => {
            ": string(…), int(…) and double(…) convert"
        }
        _ => "",
    };
    let found: Vec<String> = types.iter().map(|one| one.to_string()).collect();
    Mistake::Operands { operation, found: found.join(" and "), advice }
}

/// Refuses to compare `op` with a word that it never is: such a rule would match nothing, silently.
fn check_operation<'n>(
    node: &Node,
    others: impl IntoIterator<Item = &'n Node>,
) -> Result<(), Flaw> {
    for other in others {
        if let NodeKind::Constant(value) = &other.kind {
            check_words(node, other.place, std::slice::from_ref(value))?;
        }
    }
    Ok(())
}

fn check_words(node: &Node, place: Place, words: &[Value<'static>]) -> Result<(), Flaw> {
    if !matches!(node.kind, NodeKind::Operation) {
        return Ok(());
    }
    for word in words {
        if let Value::String(word) = word
            && Operation::ALL.iter().all(|operation| operation.word() != word)
        {
            let mistake = Mistake::NeverOperation { word: word.clone().into_owned() };
            return Err(Flaw { place, mistake });
        }
    }
    Ok(())
}

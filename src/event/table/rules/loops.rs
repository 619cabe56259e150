//! Macros over the elements of a list or the keys of a map.

use std::sync::Arc;

use crate::event::table::rules::{
    Place, Problem,
    evaluation::{Evaluation, Halt, Locals, undecided},
    node::{Body, Loop},
    value::Value,
};

impl<'a> Evaluation<'a> {
    /// Carries a macro out.
    pub(super) fn run_loop(
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

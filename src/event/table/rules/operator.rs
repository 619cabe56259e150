//! The operators of two operands: which types they take, and what they give.
//!
//! An int beside a double counts as a double: a numeric column is one, and `new.total > 100` must
//! mean what it says.

use std::cmp::Ordering;

use cel::common::ast::operators;

use crate::event::table::rules::{
    Problem,
    cel_type::CelType,
    json,
    value::{Value, entry},
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Index,
}

impl Operator {
    /// The one of that name in the parser's tree.
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            operators::ADD => Self::Add,
            operators::SUBSTRACT => Self::Subtract,
            operators::MULTIPLY => Self::Multiply,
            operators::DIVIDE => Self::Divide,
            operators::MODULO => Self::Remainder,
            operators::LESS => Self::Less,
            operators::LESS_EQUALS => Self::LessOrEqual,
            operators::GREATER => Self::Greater,
            operators::GREATER_EQUALS => Self::GreaterOrEqual,
            operators::IN => Self::In,
            operators::INDEX => Self::Index,
            _ => return None,
        })
    }

    /// As it is written.
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "in",
            Self::Index => "[]",
        }
    }

    /// The result's type; `None` where no values of these types have one.
    pub(super) fn result(self, left: &CelType, right: &CelType) -> Option<CelType> {
        if *left == CelType::Null || *right == CelType::Null {
            return match self {
                Self::In if *right != CelType::Null => self.result(&CelType::Dynamic, right),
                _ => None,
            };
        }
        match self {
            Self::Add => sum(left, right),
            Self::Subtract => difference(left, right),
            Self::Multiply | Self::Divide => product(left, right),
            Self::Remainder => {
                let ints = [CelType::Int];
                (left.can_be(&ints) && right.can_be(&ints)).then_some(CelType::Int)
            }
            Self::Less | Self::LessOrEqual | Self::Greater | Self::GreaterOrEqual => {
                is_ordered(left, right).then_some(CelType::Bool)
            }
            Self::In => contains(left, right).then_some(CelType::Bool),
            Self::Index => element(left, right),
        }
    }

    /// Carries it out. No operand is null but what is looked for in a list, and JSON is what no scalar
    /// is.
    pub(super) fn apply<'a>(
        self,
        left: &Value<'a>,
        right: &Value<'a>,
    ) -> Result<Value<'a>, Problem> {
        match self {
            Self::Add | Self::Subtract | Self::Multiply | Self::Divide | Self::Remainder => {
                self.calculate(left, right)
            }
            Self::Less => self.compare(left, right, Ordering::is_lt),
            Self::LessOrEqual => self.compare(left, right, Ordering::is_le),
            Self::Greater => self.compare(left, right, Ordering::is_gt),
            Self::GreaterOrEqual => self.compare(left, right, Ordering::is_ge),
            Self::In => self.is_in(left, right),
            Self::Index => self.index(left, right),
        }
    }

    fn calculate<'a>(self, left: &Value<'a>, right: &Value<'a>) -> Result<Value<'a>, Problem> {
        let out_of_range = Problem::OutOfRange { operation: self.symbol() };
        Ok(match (left, right) {
            (Value::Int(left), Value::Int(right)) => {
                Value::Int(self.calculate_ints(*left, *right)?)
            }
            (Value::Int(_) | Value::Double(_), Value::Int(_) | Value::Double(_)) => {
                let double = |value: &Value<'_>| match value {
                    Value::Int(int) => *int as f64,
                    Value::Double(double) => *double,
                    _ => unreachable!("both are numbers"),
                };
                match self.calculate_doubles(double(left), double(right)) {
                    Some(double) => Value::Double(double),
                    None => return Err(self.operands(left, right)),
                }
            }
            (Value::String(start), Value::String(end)) if self == Self::Add => {
                Value::String(format!("{start}{end}").into())
            }
            (Value::Timestamp(timestamp), Value::Duration(duration))
            | (Value::Duration(duration), Value::Timestamp(timestamp))
                if self == Self::Add =>
            {
                Value::Timestamp(timestamp.plus(*duration).ok_or(out_of_range)?)
            }
            (Value::Timestamp(timestamp), Value::Duration(duration)) if self == Self::Subtract => {
                Value::Timestamp(timestamp.minus(*duration).ok_or(out_of_range)?)
            }
            (Value::Timestamp(later), Value::Timestamp(earlier)) if self == Self::Subtract => {
                Value::Duration(later.since(*earlier).ok_or(out_of_range)?)
            }
            (Value::Duration(one), Value::Duration(other)) if self == Self::Add => {
                Value::Duration(one.plus(*other).ok_or(out_of_range)?)
            }
            (Value::Duration(one), Value::Duration(other)) if self == Self::Subtract => {
                Value::Duration(one.minus(*other).ok_or(out_of_range)?)
            }
            _ => match (left.elements(), right.elements()) {
                (Some(start), Some(end)) if self == Self::Add => {
                    Value::List(start.iter().chain(end.iter()).cloned().collect())
                }
                _ => return Err(self.operands(left, right)),
            },
        })
    }

    fn calculate_ints(self, left: i64, right: i64) -> Result<i64, Problem> {
        let operation = self.symbol();
        let result = match self {
            Self::Add => left.checked_add(right),
            Self::Subtract => left.checked_sub(right),
            Self::Multiply => left.checked_mul(right),
            Self::Divide | Self::Remainder if right == 0 => {
                return Err(Problem::DivisionByZero { operation });
            }
            Self::Divide => left.checked_div(right),
            Self::Remainder => left.checked_rem(right),
            Self::Less
            | Self::LessOrEqual
            | Self::Greater
            | Self::GreaterOrEqual
            | Self::In
            | Self::Index => unreachable!("only sums and products are calculated"),
        };
        result.ok_or(Problem::OutOfRange { operation })
    }

    /// By IEEE 754, where a division by zero is infinite; there is no remainder.
    fn calculate_doubles(self, left: f64, right: f64) -> Option<f64> {
        match self {
            Self::Add => Some(left + right),
            Self::Subtract => Some(left - right),
            Self::Multiply => Some(left * right),
            Self::Divide => Some(left / right),
            Self::Remainder
            | Self::Less
            | Self::LessOrEqual
            | Self::Greater
            | Self::GreaterOrEqual
            | Self::In
            | Self::Index => None,
        }
    }

    fn compare<'a>(
        self,
        left: &Value<'a>,
        right: &Value<'a>,
        holds: impl Fn(Ordering) -> bool,
    ) -> Result<Value<'a>, Problem> {
        match left.order(right) {
            Some(order) => Ok(Value::Bool(order.is_ok_and(holds))),
            None => Err(self.operands(left, right)),
        }
    }

    fn is_in<'a>(self, wanted: &Value<'a>, container: &Value<'a>) -> Result<Value<'a>, Problem> {
        if let Some(elements) = container.elements() {
            for element in &*elements {
                if element.equals(wanted)? {
                    return Ok(Value::Bool(true));
                }
            }
            return Ok(Value::Bool(false));
        }
        match container.entries() {
            Some(entries) => Ok(Value::Bool(entry(&entries, wanted)?.is_some())),
            None => Err(self.operands(wanted, container)),
        }
    }

    fn index<'a>(self, container: &Value<'a>, index: &Value<'a>) -> Result<Value<'a>, Problem> {
        if let (Value::Json(text), Value::String(name)) = (container, index)
            && json::is_object(text)
        {
            return json::member(text, name).ok_or(Problem::NoElement);
        }
        if let Some(entries) = container.entries() {
            return entry(&entries, index)?.cloned().ok_or(Problem::NoElement);
        }
        let Some(elements) = container.elements() else {
            return Err(self.operands(container, index));
        };
        let at = match index {
            Value::Int(at) => usize::try_from(*at).ok(),
            Value::Double(at) if at.fract() == 0.0 && *at >= 0.0 => Some(*at as usize),
            _ => return Err(self.operands(container, index)),
        };
        at.and_then(|at| elements.get(at)).cloned().ok_or(Problem::NoElement)
    }

    fn operands(self, left: &Value<'_>, right: &Value<'_>) -> Problem {
        let found = format!("{} and {}", left.type_name(), right.type_name());
        Problem::Operands { operation: self.symbol(), found }
    }
}

fn sum(left: &CelType, right: &CelType) -> Option<CelType> {
    use CelType::{Double, Duration, Dynamic, Int, List, String, Timestamp};
    Some(match (left, right) {
        (Int, Int) => Int,
        (Int | Double, Int | Double) => Double,
        (String, String | Dynamic) | (Dynamic, String) => String,
        (List(one), List(other)) => List(Box::new(one.or_dynamic(other))),
        (List(_), Dynamic) | (Dynamic, List(_)) => List(Box::new(Dynamic)),
        (Timestamp, Duration) | (Duration, Timestamp) => Timestamp,
        (Duration, Duration) => Duration,
        (Dynamic, Dynamic | Int | Double) | (Int | Double, Dynamic) => Dynamic,
        _ => return None,
    })
}

fn difference(left: &CelType, right: &CelType) -> Option<CelType> {
    use CelType::{Duration, Timestamp};
    Some(match (left, right) {
        (Timestamp, Timestamp) | (Duration, Duration) => Duration,
        (Timestamp, Duration) => Timestamp,
        _ => return product(left, right),
    })
}

/// Of numbers.
fn product(left: &CelType, right: &CelType) -> Option<CelType> {
    use CelType::{Double, Dynamic, Int};
    Some(match (left, right) {
        (Int, Int) => Int,
        (Int | Double, Int | Double) => Double,
        (Dynamic, Dynamic | Int | Double) | (Int | Double, Dynamic) => Dynamic,
        _ => return None,
    })
}

fn is_ordered(left: &CelType, right: &CelType) -> bool {
    let ordered = [
        CelType::Int,
        CelType::Double,
        CelType::String,
        CelType::Bool,
        CelType::Timestamp,
        CelType::Duration,
    ];
    left.can_be(&ordered) && right.can_be(&ordered) && left.is_comparable_to(right)
}

fn contains(wanted: &CelType, container: &CelType) -> bool {
    match container {
        CelType::Dynamic => true,
        CelType::List(element) => wanted.is_comparable_to(element),
        CelType::Map(key, _) => wanted.is_comparable_to(key),
        _ => false,
    }
}

fn element(container: &CelType, index: &CelType) -> Option<CelType> {
    match container {
        CelType::Dynamic => index
            .can_be(&[CelType::Int, CelType::Double, CelType::String])
            .then_some(CelType::Dynamic),
        CelType::List(element) => index.can_be(&[CelType::Int]).then(|| (**element).clone()),
        CelType::Map(key, value) => index.is_comparable_to(key).then(|| (**value).clone()),
        _ => None,
    }
}

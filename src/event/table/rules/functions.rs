//! The functions: which types they take, and what they give.

use regex::{Regex, RegexBuilder};

use crate::event::table::rules::{
    Problem,
    cel_type::CelType,
    instant::{Duration, Field, Timestamp, minutes_east},
    value::Value,
    write,
};

/// What a compiled pattern may take, in bytes: patterns of hundreds of letters, but not those whose
/// repetitions multiply each other.
const PATTERN_BYTES_MAX: usize = 1024 * 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Function {
    Size,
    Contains,
    StartsWith,
    EndsWith,
    Matches,
    Bool,
    Int,
    Double,
    String,
    Timestamp,
    Duration,
    Dynamic,
    Type,
    Field(Field),
}

/// How a function is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Style {
    /// `size(x)`
    Global,
    /// `x.size()`
    Member,
    /// Either way.
    Both,
}

/// Name, how it is called, the fewest and the most arguments with what it is a member of, function.
type Declaration = (&'static str, Style, [usize; 2], Function);

const FUNCTIONS: [Declaration; 23] = [
    ("size", Style::Both, [1, 1], Function::Size),
    ("contains", Style::Member, [2, 2], Function::Contains),
    ("startsWith", Style::Member, [2, 2], Function::StartsWith),
    ("endsWith", Style::Member, [2, 2], Function::EndsWith),
    ("matches", Style::Both, [2, 2], Function::Matches),
    ("bool", Style::Global, [1, 1], Function::Bool),
    ("int", Style::Global, [1, 1], Function::Int),
    ("double", Style::Global, [1, 1], Function::Double),
    ("string", Style::Global, [1, 1], Function::String),
    ("timestamp", Style::Global, [1, 1], Function::Timestamp),
    ("duration", Style::Global, [1, 1], Function::Duration),
    ("dyn", Style::Global, [1, 1], Function::Dynamic),
    ("type", Style::Global, [1, 1], Function::Type),
    ("getFullYear", Style::Member, [1, 2], Function::Field(Field::FullYear)),
    ("getMonth", Style::Member, [1, 2], Function::Field(Field::Month)),
    ("getDayOfYear", Style::Member, [1, 2], Function::Field(Field::DayOfYear)),
    ("getDayOfMonth", Style::Member, [1, 2], Function::Field(Field::DayOfMonth)),
    ("getDate", Style::Member, [1, 2], Function::Field(Field::Date)),
    ("getDayOfWeek", Style::Member, [1, 2], Function::Field(Field::DayOfWeek)),
    ("getHours", Style::Member, [1, 2], Function::Field(Field::Hours)),
    ("getMinutes", Style::Member, [1, 2], Function::Field(Field::Minutes)),
    ("getSeconds", Style::Member, [1, 2], Function::Field(Field::Seconds)),
    ("getMilliseconds", Style::Member, [1, 2], Function::Field(Field::Milliseconds)),
];

/// The names of all functions.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().map(|(name, ..)| *name)
}

/// Why a call is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Miscalled {
    /// There is no function of that name.
    Unknown,
    /// It is called in another way, or with other arguments than so many behind what it is a member of.
    Otherwise { style: Style, arguments: [usize; 2] },
}

/// The function of that name, called with so many arguments, what it is a member of included.
pub(super) fn find(name: &str, style: Style, arguments: usize) -> Result<Function, Miscalled> {
    let found = FUNCTIONS.iter().find(|(known, ..)| *known == name);
    let Some((_, declared, [fewest, most], function)) = found else {
        return Err(Miscalled::Unknown);
    };
    let is_so = *declared == Style::Both || *declared == style;
    if !is_so || !(*fewest..=*most).contains(&arguments) {
        let itself = usize::from(*declared == Style::Member);
        let arguments = [fewest - itself, most - itself];
        return Err(Miscalled::Otherwise { style: *declared, arguments });
    }
    Ok(*function)
}

impl Function {
    /// As it is called, for errors.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Size => "size()",
            Self::Contains => "contains()",
            Self::StartsWith => "startsWith()",
            Self::EndsWith => "endsWith()",
            Self::Matches => "matches()",
            Self::Bool => "bool()",
            Self::Int => "int()",
            Self::Double => "double()",
            Self::String => "string()",
            Self::Timestamp => "timestamp()",
            Self::Duration => "duration()",
            Self::Dynamic => "dyn()",
            Self::Type => "type()",
            Self::Field(Field::FullYear) => "getFullYear()",
            Self::Field(Field::Month) => "getMonth()",
            Self::Field(Field::DayOfYear) => "getDayOfYear()",
            Self::Field(Field::DayOfMonth) => "getDayOfMonth()",
            Self::Field(Field::Date) => "getDate()",
            Self::Field(Field::DayOfWeek) => "getDayOfWeek()",
            Self::Field(Field::Hours) => "getHours()",
            Self::Field(Field::Minutes) => "getMinutes()",
            Self::Field(Field::Seconds) => "getSeconds()",
            Self::Field(Field::Milliseconds) => "getMilliseconds()",
        }
    }

    /// Whether null is a value like any other to it.
    pub(super) fn takes_null(self) -> bool {
        matches!(self, Self::Dynamic | Self::Type)
    }

    /// The result's type; `None` where no values of these types have one.
    pub(super) fn result(self, arguments: &[CelType]) -> Option<CelType> {
        use CelType::{Bool, Double, Duration, Dynamic, Int, List, Map, String, Timestamp, Type};
        let (first, rest) = arguments.split_first()?;
        let texts = arguments.iter().all(|argument| argument.can_be(&[String]));
        let (is_taken, result) = match self {
            Self::Size => (matches!(first, String | List(_) | Map(..) | Dynamic), Int),
            Self::Contains | Self::StartsWith | Self::EndsWith | Self::Matches => (texts, Bool),
            Self::Bool => (first.can_be(&[Bool, String]), Bool),
            Self::Int => (first.can_be(&[Int, Double, String, Timestamp]), Int),
            Self::Double => (first.can_be(&[Int, Double, String]), Double),
            Self::String => {
                (first.can_be(&[Bool, Int, Double, String, Timestamp, Duration]), String)
            }
            Self::Timestamp => (first.can_be(&[String, Int, Timestamp]), Timestamp),
            Self::Duration => (first.can_be(&[String, Duration]), Duration),
            Self::Dynamic => (true, Dynamic),
            Self::Type => (true, Type),
            Self::Field(field) => {
                let is_of_durations = matches!(
                    field,
                    Field::Hours | Field::Minutes | Field::Seconds | Field::Milliseconds
                );
                let is_duration = is_of_durations && *first == Duration && rest.is_empty();
                let is_timestamp =
                    first.can_be(&[Timestamp]) && rest.iter().all(|zone| zone.can_be(&[String]));
                (is_duration || is_timestamp, Int)
            }
        };
        is_taken.then_some(result)
    }

    /// Carries it out. No argument is null, unless it takes null.
    pub(super) fn apply<'a>(self, arguments: &[Value<'a>]) -> Result<Value<'a>, Problem> {
        let result = match arguments {
            [argument] => self.apply_to_one(argument)?,
            [one, other] => self.apply_to_two(one, other)?,
            _ => None,
        };
        result.ok_or_else(|| {
            let found: Vec<&str> = arguments.iter().map(Value::type_name).collect();
            Problem::Operands { operation: self.name(), found: found.join(" and ") }
        })
    }

    fn apply_to_one<'a>(self, argument: &Value<'a>) -> Result<Option<Value<'a>>, Problem> {
        Ok(match self {
            Self::Size => size(argument),
            Self::Bool => to_bool(argument)?,
            Self::Int => to_int(argument)?.map(Value::Int),
            Self::Double => to_double(argument)?.map(Value::Double),
            Self::String => to_string(argument)?,
            Self::Timestamp => match argument {
                Value::Timestamp(timestamp) => Some(Value::Timestamp(*timestamp)),
                Value::String(text) => Some(Value::Timestamp(Timestamp::parse(text)?)),
                Value::Int(seconds) => Some(Value::Timestamp(Timestamp::from_seconds(*seconds)?)),
                _ => None,
            },
            Self::Duration => match argument {
                Value::Duration(duration) => Some(Value::Duration(*duration)),
                Value::String(text) => Some(Value::Duration(Duration::parse(text)?)),
                _ => None,
            },
            Self::Dynamic => Some(argument.clone()),
            Self::Type => Some(Value::Type(argument.type_name())),
            Self::Field(field) => match argument {
                Value::Timestamp(timestamp) => {
                    Some(Value::Int(timestamp.field(field, 0, self.name())?))
                }
                Value::Duration(duration) => duration.field(field).map(Value::Int),
                _ => None,
            },
            Self::Contains | Self::StartsWith | Self::EndsWith | Self::Matches => None,
        })
    }

    fn apply_to_two<'a>(
        self,
        one: &Value<'a>,
        other: &Value<'a>,
    ) -> Result<Option<Value<'a>>, Problem> {
        Ok(match (one, other) {
            (Value::String(text), Value::String(part)) => match self {
                Self::Contains => Some(Value::Bool(text.contains(&**part))),
                Self::StartsWith => Some(Value::Bool(text.starts_with(&**part))),
                Self::EndsWith => Some(Value::Bool(text.ends_with(&**part))),
                Self::Matches => match pattern(part) {
                    Ok(pattern) => Some(Value::Bool(pattern.is_match(text))),
                    Err(_) => return Err(Problem::NotA { wanted: "regular expression" }),
                },
                _ => None,
            },
            (Value::Timestamp(timestamp), Value::String(zone)) => match self {
                Self::Field(field) => {
                    let minutes = minutes_east(zone)?;
                    Some(Value::Int(timestamp.field(field, minutes, self.name())?))
                }
                _ => None,
            },
            _ => None,
        })
    }
}

/// Compiles a pattern in RE2's syntax, or says what is wrong with it.
pub(super) fn pattern(text: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
        // Several lines, of which the last one says what is wrong.
        error => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            last.trim_start_matches("error: ").to_owned()
        }
    })
}

fn size<'a>(argument: &Value<'a>) -> Option<Value<'a>> {
    let length = match argument {
        // In characters, as CEL has it.
        Value::String(text) => text.chars().count(),
        _ => match argument.elements() {
            Some(elements) => elements.len(),
            None => argument.entries()?.len(),
        },
    };
    Some(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn to_bool<'a>(argument: &Value<'a>) -> Result<Option<Value<'a>>, Problem> {
    Ok(match argument {
        Value::Bool(bool) => Some(Value::Bool(*bool)),
        Value::String(text) => match &**text {
            "true" | "True" | "TRUE" | "t" | "1" => Some(Value::Bool(true)),
            "false" | "False" | "FALSE" | "f" | "0" => Some(Value::Bool(false)),
            _ => return Err(Problem::NotA { wanted: "bool" }),
        },
        _ => None,
    })
}

fn to_int(argument: &Value<'_>) -> Result<Option<i64>, Problem> {
    // 2 to the power of 63: CEL converts what lies between both ends, and neither of them.
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    Ok(match argument {
        Value::Int(int) => Some(*int),
        Value::Double(double) if *double > -BEYOND && *double < BEYOND => Some(*double as i64),
        Value::Double(_) => return Err(Problem::OutOfRange { operation: "int()" }),
        Value::String(text) => match text.parse() {
            Ok(int) => Some(int),
            Err(_) => return Err(Problem::NotA { wanted: "int" }),
        },
        Value::Timestamp(timestamp) => Some(timestamp.seconds()?),
        _ => None,
    })
}

fn to_double(argument: &Value<'_>) -> Result<Option<f64>, Problem> {
    Ok(match argument {
        Value::Int(int) => Some(*int as f64),
        Value::Double(double) => Some(*double),
        Value::String(text) => match text.parse() {
            Ok(double) => Some(double),
            Err(_) => return Err(Problem::NotA { wanted: "double" }),
        },
        _ => None,
    })
}

fn to_string<'a>(argument: &Value<'a>) -> Result<Option<Value<'a>>, Problem> {
    let text = match argument {
        Value::String(text) => return Ok(Some(Value::String(text.clone()))),
        Value::Bool(bool) => bool.to_string(),
        Value::Int(int) => int.to_string(),
        Value::Double(double) => write::double_text(*double),
        Value::Duration(duration) => duration.text(),
        Value::Timestamp(timestamp) => {
            let mut scratch = [0; 27];
            let beyond = Problem::BeyondCalendar { operation: "string()" };
            let text = timestamp.rfc_3339(&mut scratch).ok_or(beyond)?;
            let seconds = text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
            // Only a fraction loses zeros.
            let seconds = if text.ends_with(".000000Z") { &text[..19] } else { seconds };
            format!("{seconds}Z")
        }
        _ => return Ok(None),
    };
    Ok(Some(Value::String(text.into())))
}

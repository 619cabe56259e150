//! Expressions without columns, against the interpreter of the crate `cel`: what is carried out here
//! must be the language that is parsed there.
//!
//! Expressions are random and of a right type, so that most have a value; where one has none there,
//! it must have none here. What differs on purpose does not occur in them: null, and ints that are
//! calculated with doubles, or compared with those that they equal after rounding only.

use std::sync::Arc;

use cel::{Context, Env, ExecutionError, Value, objects::Key};
use serde_json::{Value as Json, json};

use super::fixture::{Table, data_of, inserted, rule_with_data};
use crate::event::{
    Reason,
    table::rules::{Mistake, RuleError},
};

/// What an expression is to be.
#[derive(Clone, Copy)]
enum Wanted {
    Int,
    Double,
    Bool,
    String,
    List,
}

struct Generator {
    random: fastrand::Rng,
    /// Macros' variables, all of them ints.
    variables: Vec<&'static str>,
}

impl Generator {
    fn expression(&mut self, wanted: Wanted, depth: usize) -> String {
        match wanted {
            Wanted::Int => self.int(depth),
            Wanted::Double => self.double(depth),
            Wanted::Bool => self.bool(depth),
            Wanted::String => self.string(depth),
            Wanted::List => self.list(depth),
        }
    }

    fn choose(&mut self, of: &[&str]) -> String {
        self.random.choice(of).copied().unwrap_or_default().to_owned()
    }

    fn int(&mut self, depth: usize) -> String {
        if depth == 0 {
            if !self.variables.is_empty() && self.random.bool() {
                let variables = self.variables.clone();
                return self.choose(&variables);
            }
            return self.choose(&[
                "0",
                "1",
                "2",
                "7",
                "-3",
                "9223372036854775807",
                "-9223372036854775808",
                "0x1F",
            ]);
        }
        let [a, b] = [self.int(depth - 1), self.int(depth - 1)];
        match self.random.u8(0..10) {
            0 => format!("({a} + {b})"),
            1 => format!("({a} - {b})"),
            2 => format!("({a} * {b})"),
            3 => format!("({a} / {b})"),
            4 => format!("({a} % {b})"),
            5 => format!("size({})", self.string(depth - 1)),
            6 => format!("{}.size()", self.list(depth - 1)),
            7 => format!("({} ? {a} : {b})", self.bool(depth - 1)),
            8 => format!("{}[{b}]", self.list(depth - 1)),
            _ => format!("int({})", self.double(depth - 1)),
        }
    }

    fn double(&mut self, depth: usize) -> String {
        if depth == 0 {
            return self.choose(&["0.0", "0.5", "-1.5", "2.0", "1e300", "1e-300", "0.1"]);
        }
        let [a, b] = [self.double(depth - 1), self.double(depth - 1)];
        match self.random.u8(0..7) {
            0 => format!("({a} + {b})"),
            1 => format!("({a} - {b})"),
            2 => format!("({a} * {b})"),
            3 => format!("({a} / {b})"),
            4 => format!("double({})", self.int(depth - 1)),
            5 => format!("({} ? {a} : {b})", self.bool(depth - 1)),
            _ => format!("-({a})"),
        }
    }

    fn bool(&mut self, depth: usize) -> String {
        if depth == 0 {
            return self.choose(&["true", "false"]);
        }
        let comparison = self.choose(&["==", "!=", "<", "<=", ">", ">="]);
        let below = depth - 1;
        match self.random.u8(0..12) {
            0 => format!("({} && {})", self.bool(below), self.bool(below)),
            1 => format!("({} || {})", self.bool(below), self.bool(below)),
            2 => format!("!({})", self.bool(below)),
            3 => format!("({} {comparison} {})", self.int(below), self.int(below)),
            4 => format!("({} {comparison} {})", self.double(below), self.double(below)),
            5 => format!("({} {comparison} {})", self.string(below), self.string(below)),
            6 => format!("({} {comparison} {})", self.bool(below), self.bool(below)),
            7 => format!("({} in {})", self.int(below), self.list(below)),
            8 => format!("({} == {})", self.list(below), self.list(below)),
            9 => {
                let function = self.choose(&["contains", "startsWith", "endsWith"]);
                format!("{}.{function}({})", self.string(below), self.string(below))
            }
            10 => {
                let function = self.choose(&["all", "exists", "exists_one"]);
                let (list, condition) = (self.list(below), self.within(below, Self::bool));
                format!("{list}.{function}({condition})")
            }
            _ => {
                let name = self.choose(&["a", "b"]);
                format!("has({{'a': {}}}.{name})", self.int(below))
            }
        }
    }

    fn string(&mut self, depth: usize) -> String {
        if depth == 0 {
            return self.choose(&["''", "'a'", "'ab'", "\"b\\u00e9\"", "'''x'y'''", "r'\\d'"]);
        }
        let below = depth - 1;
        match self.random.u8(0..5) {
            0 | 1 => format!("({} + {})", self.string(below), self.string(below)),
            2 => format!("string({})", self.int(below)),
            3 => format!("string({})", self.bool(below)),
            _ => {
                let [a, b] = [self.string(below), self.string(below)];
                format!("({} ? {a} : {b})", self.bool(below))
            }
        }
    }

    fn list(&mut self, depth: usize) -> String {
        if depth == 0 {
            return self.choose(&["[1]", "[1, 2]", "[3, 1, 2]", "[0, 0]"]);
        }
        let below = depth - 1;
        match self.random.u8(0..5) {
            0 => format!("[{}, {}]", self.int(below), self.int(below)),
            1 => format!("({} + {})", self.list(below), self.list(below)),
            2 => {
                let (list, becomes) = (self.list(below), self.within(below, Self::int));
                format!("{list}.map({becomes})")
            }
            3 => {
                let (list, condition) = (self.list(below), self.within(below, Self::bool));
                format!("{list}.filter({condition})")
            }
            _ => format!("[{{'k': {}}}['k']]", self.int(below)),
        }
    }

    /// A variable, and an expression that may use it.
    fn within(&mut self, depth: usize, make: impl Fn(&mut Self, usize) -> String) -> String {
        let variable = ["x", "y", "z", "v", "w"].into_iter().nth(self.variables.len());
        let variable = variable.expect("macros lie within each other a few times only");
        self.variables.push(variable);
        let made = make(self, depth);
        self.variables.pop();
        format!("{variable}, {made}")
    }
}

/// What becomes of an expression there.
#[derive(Debug)]
enum There {
    Value(Json),
    Error,
    /// NaN is put in order, which is refused there and false here.
    Unordered,
}

fn there(environment: &Arc<Env>, expression: &str) -> There {
    let program = environment.compile(expression).expect("CEL");
    match program.execute(&Context::with_env(Arc::clone(environment))) {
        Ok(value) => There::Value(to_json(&value)),
        Err(ExecutionError::NoSuchOverload(overload))
            if overload.argument_types() == ["double", "double"] =>
        {
            There::Unordered
        }
        Err(_) => There::Error,
    }
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(bool) => json!(bool),
        Value::Int(int) => json!(int),
        Value::Float(double) if double.is_nan() => json!("NaN"),
        Value::Float(double) if double.is_infinite() => {
            json!(if *double > 0.0 { "Infinity" } else { "-Infinity" })
        }
        Value::Float(double) => json!(double),
        Value::String(text) => json!(**text),
        Value::List(elements) => elements.iter().map(to_json).collect(),
        Value::Map(map) => {
            let entries = map.map.iter().map(|(key, value)| match key {
                Key::String(name) => ((**name).clone(), to_json(value)),
                other => panic!("no such keys are made: {other:?}"),
            });
            Json::Object(entries.collect())
        }
        other => panic!("no such values are made: {other:?}"),
    }
}

/// What becomes of an expression here.
#[derive(Debug)]
enum Here {
    Value(Json),
    Error,
    /// A conversion of a literal fails, which is refused wherever it stands.
    Refused,
}

fn here(table: &Table, expression: &str) -> Here {
    let rule = rule_with_data(&[("m", expression)]);
    if let Err(mistakes) = table.compile(std::slice::from_ref(&rule)) {
        let is_of_value = |error: &RuleError| matches!(error.mistake, Mistake::Literal { .. });
        assert!(mistakes.iter().all(is_of_value), "{expression}: {mistakes:?}");
        return Here::Refused;
    }
    match data_of(table, rule, inserted(&[])) {
        Ok(data) => {
            let mut data: Json = serde_json::from_str(&data).expect("JSON");
            Here::Value(data["m"].take())
        }
        Err(Reason::Rule { .. }) => Here::Error,
        Err(reason) => panic!("{expression}: {reason}"),
    }
}

/// Equal, whether a number is written with a fraction or without.
fn is_same(one: &Json, other: &Json) -> bool {
    match (one, other) {
        (Json::Number(one_number), Json::Number(other_number)) => {
            one == other || one_number.as_f64() == other_number.as_f64()
        }
        (Json::Array(one), Json::Array(other)) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|(one, other)| is_same(one, other))
        }
        _ => one == other,
    }
}

#[test]
fn random_expressions_have_the_values_that_the_interpreter_of_cel_gives() {
    let (environment, table) = (Arc::new(Env::stdlib()), Table::orders());
    let mut with_values = 0;
    for seed in 0..600 {
        let random = fastrand::Rng::with_seed(seed);
        let mut generator = Generator { random, variables: Vec::new() };
        let wanted = [Wanted::Int, Wanted::Double, Wanted::Bool, Wanted::String, Wanted::List];
        let wanted = generator.random.choice(wanted).expect("there are some");
        let depth = generator.random.usize(1..4);
        let expression = generator.expression(wanted, depth);
        match (there(&environment, &expression), here(&table, &expression)) {
            (_, Here::Refused) | (There::Error, Here::Error) | (There::Unordered, _) => {}
            (There::Value(there), Here::Value(here)) if is_same(&there, &here) => with_values += 1,
            (there, here) => panic!("seed {seed}: {expression} is {there:?} there, {here:?} here"),
        }
    }
    assert!(with_values > 300, "{with_values}");
}

#[test]
fn chosen_expressions_have_the_values_that_the_interpreter_of_cel_gives() {
    let (environment, table) = (Arc::new(Env::stdlib()), Table::orders());
    for expression in [
        "1 == 1.0 && 1.0 == 1 && !(1 == 1.5)",
        "1 < 1.5 && 2 > 1.5 && 1 <= 1.0",
        "'a' < 'b' && 'Z' < 'a' && 'é' > 'z'",
        "[1, 'a', true] == [1, 'a', true]",
        "{'a': 1, 'b': [1]} == {'b': [1], 'a': 1}",
        "{'a': 1} == {'a': 2}",
        "[[1, 2], [3]].map(x, size(x))",
        "{'a': 1, 'b': 2}.exists(k, k == 'b')",
        "size({'a': 1})",
        "'a' in {'a': 1} && !('b' in {'a': 1})",
        "[1, 2, 3].map(x, x > 1, x * x)",
        "true || 1 / 0 == 1",
        "1 / 0 == 1 || true",
        "false && 1 / 0 == 1",
        "1 / 0 == 1 && false",
        "1 / 0 == 1 && true",
        "true ? 1 : 1 / 0",
        "[0, 1].all(x, 1 / x == 1)",
        "[0, 2].all(x, 1 / x == 1)",
        "[0, 1].exists(x, 1 / x == 1)",
        "[0, 1].exists_one(x, 1 / x == 1)",
        "{'a': 1}.b",
        "{'a': 1}['b']",
        "{'a': 1}['a']",
        "[1][1]",
        "[1][-1]",
        "-9223372036854775808",
        "-(-9223372036854775807 - 1)",
        "9223372036854775807 + 1",
        "-9223372036854775808 / -1",
        "7 / -2",
        "-7 % 3",
        "7 % -3",
        "1.0 / 0.0",
        "0.0 / 0.0 == 0.0 / 0.0",
        "int(1.9) + int(-1.9)",
        "int('12') + int('-3')",
        "int('x')",
        "int(1e30)",
        "double('1.5') + double(2)",
        "bool('true') && !bool('false')",
        "bool('x')",
        "string(-7) + string(true) + string('x')",
        "size('añb😀')",
        "'abc'.contains('b') && 'abc'.startsWith('ab') && 'abc'.endsWith('c')",
        "''.contains('')",
        "dyn(1) == dyn(1.0)",
        "type(1) == int && type('a') == string && type([]) == list",
        "type(null) == null_type && type({}) == map && type(1.0) == double",
        "has({'a': 1}.a) && !has({'a': 1}.b)",
        "{1: 'a', true: 'b'}[true]",
        "[true, false].exists(x, x) && ![false].exists(x, x)",
        "'\\x41\\101\\n\\t\\\\\\''",
        "r'\\n' + \"\"\"a\"b\"\"\"",
    ] {
        let (there, here) = (there(&environment, expression), here(&table, expression));
        let is_same = match (&there, &here) {
            (There::Value(there), Here::Value(here)) => is_same(there, here),
            (There::Error, Here::Error | Here::Refused) => true,
            _ => false,
        };
        assert!(is_same, "{expression} is {there:?} there, {here:?} here");
    }
}

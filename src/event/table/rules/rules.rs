//! The rules of a table, compiled, and which of them match a change.

use serde_json::Value;

use crate::event::{
    Reason, TopicTemplate,
    table::{
        RuleSettings,
        rules::{
            Expression, Mistake, NamedColumn, NoAnswer, Part, Row, RuleError, RuleFailure,
            check::{Checker, Flaw, Use},
            columns::{Columns, Slot},
            data::{self, Member},
            data_schema::DataSchema,
            evaluation::Evaluation,
            node::Node,
        },
    },
};

/// The rules of one table as it stands, in the order of the file.
#[derive(Debug)]
pub struct Rules {
    rules: Vec<Rule>,
    /// The columns that any of their expressions asks for.
    slots: Vec<Slot>,
}

/// One rule.
#[derive(Debug)]
pub struct Rule {
    settings: RuleSettings,
    /// None where it matches each change.
    when: Option<Node>,
    data: Option<Vec<Member>>,
}

impl Rule {
    /// The event's type.
    pub fn event_type(&self) -> &str {
        &self.settings.event_type
    }

    /// The condition as it was written, which the event's id is made of; empty where nothing is said.
    pub fn condition(&self) -> &str {
        self.settings.when.as_deref().unwrap_or_default()
    }

    /// The envelope's version, where the rule says it.
    pub fn version(&self) -> Option<&str> {
        self.settings.version.as_deref()
    }

    /// Where it goes, where the rule says it.
    pub fn topic(&self) -> Option<&TopicTemplate> {
        self.settings.topic.as_ref()
    }

    /// Whether its events have a `data` of their own, for [`Matching::write_data`].
    pub fn has_data(&self) -> bool {
        self.data.is_some()
    }
}

impl Rules {
    /// Compiles what the settings say against a table's columns.
    ///
    /// # Errors
    /// The first mistake of each expression, in the order of the file.
    pub fn compile(
        settings: &[RuleSettings],
        columns: Columns<'_>,
    ) -> Result<Self, Vec<RuleError>> {
        let (mut rules, mut slots, mut mistakes) = (Vec::new(), Vec::new(), Vec::new());
        for settings in settings {
            let mut compiler = Compiler { settings, columns, slots: &mut slots };
            let compiled = compiler.compile(&mut mistakes);
            rules.push(compiled);
        }
        if mistakes.is_empty() { Ok(Self { rules, slots }) } else { Err(mistakes) }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Rule> {
        self.rules.iter()
    }

    /// A JSON Schema of the `data` that events of that rule have of their own; none where it has none.
    /// `column` is that of a column that is named alone, by its place in the tuple, null included.
    pub fn data_schema(&self, rule: &Rule, column: impl Fn(usize) -> Value) -> Option<Value> {
        let schemas = DataSchema { slots: &self.slots, column };
        rule.data.as_deref().map(|members| schemas.of_members(members))
    }

    /// Those that match a change.
    pub fn matching<'r: 'a, 'a>(&'r self, row: Row<'a>) -> Matching<'r, 'a> {
        Matching { evaluation: Evaluation::new(&self.slots, row), left: self.rules.iter() }
    }
}

struct Compiler<'c> {
    settings: &'c RuleSettings,
    columns: Columns<'c>,
    slots: &'c mut Vec<Slot>,
}

impl Compiler<'_> {
    /// The rule, without those of its expressions that are mistaken.
    fn compile(&mut self, mistakes: &mut Vec<RuleError>) -> Rule {
        let settings = self.settings;
        let mut note = |part: Part, flaw: Flaw| {
            let event_type = settings.event_type.clone();
            let Flaw { place, mistake } = flaw;
            mistakes.push(RuleError { event_type, part, place, mistake });
        };
        let when = settings.when.as_ref().and_then(|text| {
            let root = |checker: &mut Checker<'_>| checker.condition(checker.expression.root());
            self.check(text, Use::Condition, root).map_err(|flaw| note(Part::When, flaw)).ok()
        });
        let data = settings.data.as_ref().map(|members| {
            let mut compiled = Vec::with_capacity(members.len());
            for (member, text) in members {
                let root = |checker: &mut Checker<'_>| Member::compile(member, checker);
                match self.check(text, Use::Data, root) {
                    Ok(member) => compiled.push(member),
                    Err(flaw) => note(Part::Data { member: member.clone() }, flaw),
                }
            }
            compiled
        });
        Rule { settings: settings.clone(), when, data }
    }

    fn check<T>(
        &mut self,
        text: &str,
        used_for: Use,
        check: impl FnOnce(&mut Checker<'_>) -> Result<T, Flaw>,
    ) -> Result<T, Flaw> {
        let expression = Expression::parse(text).map_err(|error| Flaw {
            place: error.place,
            mistake: Mistake::Syntax { problem: error.problem },
        })?;
        check(&mut Checker {
            expression: &expression,
            columns: self.columns,
            used_for,
            slots: self.slots,
            asks_for_arrays: false,
            locals: Vec::new(),
        })
    }
}

/// The rules that match one change, in the order of the file. One that has no answer is an error of
/// its event, and those behind it have theirs.
#[derive(Debug)]
pub struct Matching<'r, 'a> {
    evaluation: Evaluation<'a>,
    left: std::slice::Iter<'r, Rule>,
}

impl<'r: 'a, 'a> Iterator for Matching<'r, 'a> {
    type Item = Result<&'r Rule, RuleFailure<'r>>;

    fn next(&mut self) -> Option<Self::Item> {
        let Self { evaluation, left } = self;
        left.find_map(|rule| match rule.when.as_ref().map(|when| evaluation.holds(when)) {
            None | Some(Ok(true)) => Some(Ok(rule)),
            Some(Ok(false)) => None,
            Some(Err((place, problem))) => {
                let event_type = rule.event_type().to_owned();
                let answer = NoAnswer { event_type, part: Part::When, place, problem };
                let reason = Reason::Rule { answer: Box::new(answer) };
                Some(Err(RuleFailure { rule, reason }))
            }
        })
    }
}

impl<'r: 'a, 'a> Matching<'r, 'a> {
    /// Appends the `data` of an event of that rule, which is one of these and has its own. Columns
    /// that are named alone are for `write_column` to append, in their JSON form; NULL is not.
    ///
    /// # Errors
    /// Where an expression has no value, or `write_column` fails. The target's end is then undefined.
    pub fn write_data(
        &self,
        rule: &'r Rule,
        target: &mut Vec<u8>,
        write_column: impl FnMut(NamedColumn<'_>, &mut Vec<u8>) -> Result<(), Reason>,
    ) -> Result<(), Reason> {
        let members = rule.data.as_deref().unwrap_or_default();
        data::write_members(members, rule.event_type(), &self.evaluation, target, write_column)
    }
}

//! An expression that was checked: what is carried out for a row.

use regex::Regex;

use crate::event::table::rules::{Place, functions::Function, operator::Operator, value::Value};

/// A part of an expression, with the place that an error in it is told of.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) kind: NodeKind,
}

#[derive(Debug)]
pub(super) enum NodeKind {
    Constant(Value<'static>),
    /// `op`
    Operation,
    /// A column, by its slot.
    Column(usize),
    /// Whether the column of that slot is NULL, which is known of values that were not sent too.
    IsNull(usize),
    /// A variable of a macro, by its place on the stack of them.
    Local(usize),
    Not(Box<Node>),
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    /// `condition ? one : other`
    Choice(Box<[Node; 3]>),
    Equals(Box<[Node; 2]>),
    Operator(Operator, Box<[Node; 2]>),
    Negate(Box<Node>),
    Member(Box<Node>, String),
    HasMember(Box<Node>, String),
    Call(Function, Vec<Node>),
    /// `matches()` with a pattern that the settings have.
    Matches(Box<Node>, Regex),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    Loop(Box<Loop>),
}

/// A macro over the elements of a list, or the keys of a map.
#[derive(Debug)]
pub(super) struct Loop {
    pub(super) range: Node,
    /// Where its variable lies on the stack.
    pub(super) local: usize,
    pub(super) body: Body,
}

/// What becomes of the elements.
#[derive(Debug)]
pub(super) enum Body {
    /// Whether the condition holds for each.
    All(Node),
    /// Whether it holds for any.
    Exists(Node),
    /// Whether it holds for exactly one.
    ExistsOne(Node),
    /// Those for which it holds.
    Filter(Node),
    /// What each becomes, of those for which a condition holds.
    Map { condition: Option<Node>, becomes: Node },
}

//! The tree of a query.

use serde_json::Value;

use super::aggregate::Aggregation;
use super::function::Function;

/// A query.
#[derive(Clone, Debug)]
pub struct Query {
    /// What a row looks like.
    pub select: Select,
    /// Most rows (`TOP`, or `LIMIT`).
    pub limit: Option<u64>,
    /// Rows to leave out at first (`OFFSET`).
    pub offset: u64,
    /// Which documents count.
    pub filter: Option<Expr>,
    /// Sort keys.
    pub order: Vec<OrderKey>,
    /// Aggregates, in the order in which [`Expr::Aggregate`] numbers them.
    pub aggregates: Vec<(Aggregation, Expr)>,
}

/// One sort key.
#[derive(Clone, Debug)]
pub struct OrderKey {
    /// What to sort by.
    pub expr: Expr,
    /// Largest first.
    pub descending: bool,
}

/// The shape of a row.
#[derive(Clone, Debug)]
pub enum Select {
    /// The document.
    Star,
    /// One value.
    Value(Expr),
    /// An object of named values.
    List(Vec<(String, Expr)>),
}

/// An expression.
#[derive(Clone, Debug)]
pub enum Expr {
    /// A constant, or a parameter's value.
    Literal(Value),
    /// The constant `undefined`.
    Undefined,
    /// The document.
    Root,
    /// A property of an object.
    Member(Box<Expr>, String),
    /// A property or element whose name or number is computed.
    Index(Box<Expr>, Box<Expr>),
    /// Logical negation.
    Not(Box<Expr>),
    /// Arithmetic negation.
    Negate(Box<Expr>),
    /// Two operands.
    Binary(Operator, Box<Expr>, Box<Expr>),
    /// Equal to one of several.
    In(Box<Expr>, Vec<Expr>),
    /// Between two bounds, both included.
    Between(Box<Expr>, Box<Expr>, Box<Expr>),
    /// `condition ? a : b`.
    Conditional(Box<Expr>, Box<Expr>, Box<Expr>),
    /// A function call.
    Call(Function, Vec<Expr>),
    /// The result of an aggregate, by number.
    Aggregate(usize),
    /// An array.
    Array(Vec<Expr>),
    /// An object.
    Object(Vec<(String, Expr)>),
}

/// An operator between two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Operator {
    Or,
    And,
    Coalesce,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Concatenate,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

//! The tree of a query.
//!
//! Names are resolved while parsing: a name in a `FROM` clause becomes a numbered *slot*. Slot 0 is the document, and each
//! source of a `FROM` clause takes the next free slot, so that a subquery sees the slots around it under the same numbers.
//!
//! Operators of one level are kept as a list and not as a chain of nodes, so the depth of a tree, and with it the stack
//! that evaluating it takes, is bounded by the depth of nesting that the parser accepts.

use serde_json::Value;

use super::aggregate::Aggregation;
use super::error::Span;
use super::function::Function;

/// The slot of the document.
pub const DOCUMENT: usize = 0;

/// A query or subquery.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// Equal rows count once.
    pub distinct: bool,
    /// Most rows.
    pub top: Option<u64>,
    /// What a row looks like.
    pub select: Select,
    /// Slot of the first source.
    pub first_slot: usize,
    /// Where rows come from.
    pub sources: Vec<Source>,
    /// Text of the `FROM` clause.
    pub from: Option<Span>,
    /// Which rows count.
    pub filter: Option<Spanned>,
    /// Group keys.
    pub groups: Vec<Spanned>,
    /// Sort keys.
    pub order: Vec<OrderKey>,
    /// `OFFSET LIMIT`.
    pub window: Option<Window>,
    /// Aggregates, in the order in which [`Expr::Aggregate`] numbers them.
    pub aggregates: Vec<(Aggregation, Spanned)>,
}

impl Query {
    /// Whether rows stand for groups of documents.
    pub fn is_grouped(&self) -> bool {
        !self.groups.is_empty() || !self.aggregates.is_empty()
    }

    /// Rows to leave out at first.
    pub fn offset(&self) -> u64 {
        self.window.as_ref().map_or(0, |window| window.offset)
    }

    /// Most rows, by `TOP` and `LIMIT`.
    pub fn limit(&self) -> u64 {
        let limit = self.window.as_ref().map_or(u64::MAX, |window| window.limit);
        limit.min(self.top.unwrap_or(u64::MAX))
    }

    /// Whether rows are made of the document alone: `FROM c` without joins.
    pub fn is_of_documents(&self) -> bool {
        matches!(self.sources.as_slice(), [source] if source.is_document())
    }

    /// Whether rows are documents, unchanged.
    pub fn selects_documents(&self) -> bool {
        self.select == Select::Star && self.is_of_documents() && !self.is_grouped()
    }
}

/// An expression and its text.
#[derive(Clone, Debug, PartialEq)]
pub struct Spanned {
    /// The expression.
    pub expr: Expr,
    /// Its text.
    pub span: Span,
}

/// `OFFSET` and `LIMIT`.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Rows to leave out at first.
    pub offset: u64,
    /// Most rows after that.
    pub limit: u64,
    /// Text of the clause.
    pub span: Span,
}

/// One source of a `FROM` clause; sources are joined from left to right.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// The name for its values.
    pub alias: String,
    /// Its values.
    pub values: Values,
}

impl Source {
    /// Whether it is the document itself.
    pub fn is_document(&self) -> bool {
        self.values == Values::One(Expr::Slot(DOCUMENT))
    }
}

/// The values of a source.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// A value, if it is defined.
    One(Expr),
    /// The elements of an array.
    Elements(Expr),
    /// The rows of a subquery.
    Rows(Box<Query>),
}

/// One sort key.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderKey {
    /// What to sort by.
    pub key: Spanned,
    /// Largest first.
    pub descending: bool,
}

/// The shape of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Select {
    /// The value of the only source.
    Star,
    /// One value.
    Value(Spanned),
    /// An object of named values.
    List(Vec<(String, Spanned)>),
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// A constant, or a parameter's value.
    Literal(Value),
    /// The constant `undefined`.
    Undefined,
    /// The value of a source.
    Slot(usize),
    /// Something within a value.
    Path(Box<Expr>, Vec<Step>),
    /// Logical negation.
    Not(Box<Expr>),
    /// Arithmetic negation.
    Negate(Box<Expr>),
    /// Operators of one level, applied from left to right.
    Chain(Box<Expr>, Vec<(Operator, Expr)>),
    /// Equal to one of several.
    In(Box<Expr>, Vec<Expr>),
    /// Between two bounds, both included.
    Between(Box<Expr>, Box<Expr>, Box<Expr>),
    /// Text like a pattern, with a character that makes the next one of the pattern literal.
    Like(Box<Expr>, Box<Expr>, Option<char>),
    /// `condition ? a : b`.
    Conditional(Box<Expr>, Box<Expr>, Box<Expr>),
    /// A function call.
    Call(Function, Vec<Expr>),
    /// The result of an aggregate, by number.
    Aggregate(usize),
    /// A group key, by number.
    GroupKey(usize),
    /// An array.
    Array(Vec<Expr>),
    /// An object.
    Object(Vec<(String, Expr)>),
    /// `EXISTS(SELECT ...)`.
    Exists(Box<Query>),
    /// `ARRAY(SELECT ...)`.
    Rows(Box<Query>),
    /// `(SELECT ...)`: the first row.
    First(Box<Query>),
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The member with a name.
    Member(String),
    /// The member or element whose name or number is computed.
    Computed(Expr),
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

impl Expr {
    /// The direct parts of an expression; subqueries are not entered.
    pub fn parts_mut(&mut self) -> Vec<&mut Expr> {
        match self {
            Self::Literal(_) | Self::Undefined | Self::Slot(_) => Vec::new(),
            Self::Aggregate(_) | Self::GroupKey(_) => Vec::new(),
            Self::Exists(_) | Self::Rows(_) | Self::First(_) => Vec::new(),
            Self::Path(base, steps) => {
                let computed = steps.iter_mut().filter_map(|step| match step {
                    Step::Computed(expr) => Some(expr),
                    Step::Member(_) => None,
                });
                std::iter::once(&mut **base).chain(computed).collect()
            }
            Self::Not(inner) | Self::Negate(inner) => vec![inner],
            Self::Chain(first, rest) => std::iter::once(&mut **first)
                .chain(rest.iter_mut().map(|(_, operand)| operand))
                .collect(),
            Self::In(first, items) => std::iter::once(&mut **first).chain(items).collect(),
            Self::Between(a, b, c) | Self::Conditional(a, b, c) => vec![a, b, c],
            Self::Like(text, pattern, _) => vec![text, pattern],
            Self::Call(_, items) | Self::Array(items) => items.iter_mut().collect(),
            Self::Object(members) => members.iter_mut().map(|(_, member)| member).collect(),
        }
    }
}

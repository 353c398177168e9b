//! Values of expressions. `None` is undefined.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::ast::{Expr, Operator};
use super::function;
use super::order;

/// A value that may be undefined, borrowed from the document where it can be.
pub type Maybe<'a> = Option<Cow<'a, Value>>;

/// What an expression can refer to.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// The document.
    pub root: Option<&'a Value>,
    /// Results of aggregates.
    pub aggregates: &'a [Option<Value>],
}

impl<'a> Scope<'a> {
    /// A scope of one document.
    pub fn document(root: &'a Value) -> Self {
        Self {
            root: Some(root),
            aggregates: &[],
        }
    }

    /// Whether an expression is true.
    pub fn holds(self, expr: &'a Expr) -> bool {
        matches!(self.eval(expr).as_deref(), Some(Value::Bool(true)))
    }

    /// The value of an expression.
    pub fn eval(self, expr: &'a Expr) -> Maybe<'a> {
        match expr {
            Expr::Literal(value) => Some(Cow::Borrowed(value)),
            Expr::Undefined => None,
            Expr::Root => self.root.map(Cow::Borrowed),
            Expr::Member(base, name) => {
                pick(self.eval(base)?, |value| value.as_object()?.get(name))
            }
            Expr::Index(base, index) => {
                let index = self.eval(index)?;
                pick(self.eval(base)?, |value| match (value, &*index) {
                    (Value::Object(members), Value::String(name)) => members.get(name),
                    (Value::Array(items), Value::Number(number)) => {
                        items.get(usize::try_from(number.as_u64()?).ok()?)
                    }
                    _ => None,
                })
            }
            Expr::Not(inner) => truth(!self.eval(inner)?.as_bool()?),
            Expr::Negate(inner) => number(-self.eval(inner)?.as_f64()?).map(Cow::Owned),
            Expr::Binary(operator, left, right) => self.binary(*operator, left, right),
            Expr::In(inner, items) => {
                let value = self.eval(inner)?;
                truth(
                    items
                        .iter()
                        .any(|item| self.eval(item).is_some_and(|item| equal(&value, &item))),
                )
            }
            Expr::Between(inner, low, high) => {
                let value = self.eval(inner)?;
                let above = order::within(&value, &*self.eval(low)?)?.is_ge();
                truth(above && order::within(&value, &*self.eval(high)?)?.is_le())
            }
            Expr::Conditional(condition, yes, no) => match self.eval(condition).as_deref() {
                Some(Value::Bool(true)) => self.eval(yes),
                Some(Value::Bool(false)) => self.eval(no),
                _ => None,
            },
            Expr::Call(function, arguments) => {
                let values: Vec<Maybe<'_>> = arguments
                    .iter()
                    .map(|argument| self.eval(argument))
                    .collect();
                function::apply(*function, &values).map(Cow::Owned)
            }
            Expr::Aggregate(index) => self.aggregates.get(*index)?.as_ref().map(Cow::Borrowed),
            Expr::Array(items) => {
                let items = items
                    .iter()
                    .filter_map(|item| self.eval(item).map(Cow::into_owned))
                    .collect();
                Some(Cow::Owned(Value::Array(items)))
            }
            Expr::Object(members) => Some(Cow::Owned(Value::Object(self.object(members)))),
        }
    }

    /// The value of an expression, for keeps.
    pub fn owned(self, expr: &Expr) -> Option<Value> {
        Scope {
            root: self.root,
            aggregates: self.aggregates,
        }
        .eval(expr)
        .map(Cow::into_owned)
    }

    /// An object of the members that are defined.
    pub fn owned_object(self, members: &[(String, Expr)]) -> Value {
        Value::Object(
            Scope {
                root: self.root,
                aggregates: self.aggregates,
            }
            .object(members),
        )
    }

    fn object(self, members: &'a [(String, Expr)]) -> Map<String, Value> {
        members
            .iter()
            .filter_map(|(name, expr)| Some((name.clone(), self.eval(expr)?.into_owned())))
            .collect()
    }

    fn binary(self, operator: Operator, left: &'a Expr, right: &'a Expr) -> Maybe<'a> {
        match operator {
            Operator::And => return self.logic(left, right, false),
            Operator::Or => return self.logic(left, right, true),
            Operator::Coalesce => return self.eval(left).or_else(|| self.eval(right)),
            _ => {}
        }
        let (left, right) = (self.eval(left)?, self.eval(right)?);
        let ordered = |test: fn(Ordering) -> bool| truth(test(order::within(&left, &right)?));
        let arithmetic = |apply: fn(f64, f64) -> f64| {
            number(apply(left.as_f64()?, right.as_f64()?)).map(Cow::Owned)
        };
        match operator {
            Operator::Equal => {
                comparable(&left, &right).then(|| Cow::Owned(Value::Bool(equal(&left, &right))))
            }
            Operator::NotEqual => {
                comparable(&left, &right).then(|| Cow::Owned(Value::Bool(!equal(&left, &right))))
            }
            Operator::Less => ordered(Ordering::is_lt),
            Operator::LessOrEqual => ordered(Ordering::is_le),
            Operator::Greater => ordered(Ordering::is_gt),
            Operator::GreaterOrEqual => ordered(Ordering::is_ge),
            Operator::Concatenate => Some(Cow::Owned(Value::String(
                [left.as_str()?, right.as_str()?].concat(),
            ))),
            Operator::Add => arithmetic(|a, b| a + b),
            Operator::Subtract => arithmetic(|a, b| a - b),
            Operator::Multiply => arithmetic(|a, b| a * b),
            Operator::Divide => arithmetic(|a, b| a / b),
            Operator::Remainder => arithmetic(|a, b| a % b),
            Operator::And | Operator::Or | Operator::Coalesce => None,
        }
    }

    /// AND and OR: `decisive` decides alone, even against undefined.
    fn logic(self, left: &'a Expr, right: &'a Expr, decisive: bool) -> Maybe<'a> {
        let left = self.eval(left).and_then(|value| value.as_bool());
        if left == Some(decisive) {
            return truth(decisive);
        }
        let right = self.eval(right).and_then(|value| value.as_bool());
        match (left, right) {
            (_, Some(right)) if right == decisive => truth(decisive),
            (Some(_), Some(_)) => truth(!decisive),
            _ => None,
        }
    }
}

/// A part of a value, borrowed if the value is.
fn pick<'a>(value: Cow<'a, Value>, part: impl Fn(&Value) -> Option<&Value>) -> Maybe<'a> {
    match value {
        Cow::Borrowed(value) => part(value).map(Cow::Borrowed),
        Cow::Owned(value) => part(&value).cloned().map(Cow::Owned),
    }
}

fn truth<'a>(truth: bool) -> Maybe<'a> {
    Some(Cow::Owned(Value::Bool(truth)))
}

/// A number, whole if it is; undefined if it is not finite.
pub fn number(number: f64) -> Option<Value> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() < EXACT {
        return Some(Value::from(number as i64));
    }
    serde_json::Number::from_f64(number).map(Value::Number)
}

/// Whether two values are of one type.
fn comparable(a: &Value, b: &Value) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

/// Equality; numbers by value, arrays and objects by content.
pub fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(name, a)| b.get(name).is_some_and(|b| equal(a, b)))
        }
        _ => order::within(a, b) == Some(Ordering::Equal),
    }
}

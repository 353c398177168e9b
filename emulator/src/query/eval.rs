//! Values of expressions. `None` is undefined.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::ast::{Expr, Operator, Step};
use super::budget::Budget;
use super::function;
use super::like::like;
use super::order;
use super::rows;

/// A value that may be undefined, borrowed from the document where it can be.
pub type Maybe<'a> = Option<Cow<'a, Value>>;

/// What an expression can refer to.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// Values of sources.
    pub slots: &'a [Option<&'a Value>],
    /// Results of aggregates.
    pub results: &'a [Option<Value>],
    /// Group keys.
    pub keys: &'a [Option<Value>],
    /// What may be spent.
    pub budget: &'a Budget,
}

impl<'a> Scope<'a> {
    /// A scope without aggregates.
    pub fn of(slots: &'a [Option<&'a Value>], budget: &'a Budget) -> Self {
        Self {
            slots,
            results: &[],
            keys: &[],
            budget,
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
            Expr::Slot(slot) => self.slots.get(*slot).copied().flatten().map(Cow::Borrowed),
            Expr::Path(base, steps) => self.path(base, steps),
            Expr::Not(inner) => truth(!self.eval(inner)?.as_bool()?),
            Expr::Negate(inner) => number(-self.eval(inner)?.as_f64()?).map(Cow::Owned),
            Expr::Chain(first, rest) => rest
                .iter()
                .fold(self.eval(first), |left, (operator, right)| {
                    self.binary(left, *operator, right)
                }),
            Expr::In(inner, items) => {
                let value = self.eval(inner)?;
                let mut items = items.iter().filter_map(|item| self.eval(item));
                truth(items.any(|item| equal(&value, &item)))
            }
            Expr::Between(inner, low, high) => {
                let value = self.eval(inner)?;
                let above = order::within(&value, &*self.eval(low)?)?.is_ge();
                truth(above && order::within(&value, &*self.eval(high)?)?.is_le())
            }
            Expr::Like(text, pattern, escape) => {
                let (text, pattern) = (self.eval(text)?, self.eval(pattern)?);
                truth(like(text.as_str()?, pattern.as_str()?, *escape))
            }
            Expr::Conditional(condition, yes, no) => match self.eval(condition).as_deref() {
                Some(Value::Bool(true)) => self.eval(yes),
                _ => self.eval(no),
            },
            Expr::Call(function, arguments) => {
                let values: Vec<Maybe<'_>> = arguments
                    .iter()
                    .map(|argument| self.eval(argument))
                    .collect();
                function::apply(*function, &values, self.budget).map(Cow::Owned)
            }
            Expr::Aggregate(index) => self.results.get(*index)?.as_ref().map(Cow::Borrowed),
            Expr::GroupKey(index) => self.keys.get(*index)?.as_ref().map(Cow::Borrowed),
            Expr::Array(items) => {
                // An element that is undefined is left out, as the SDK's own emulator does it.
                let items: Option<Vec<Value>> = items
                    .iter()
                    .filter_map(|item| self.eval(item))
                    .map(|item| self.keep(item))
                    .collect();
                Some(Cow::Owned(Value::Array(items?)))
            }
            Expr::Object(members) => self
                .object(members.iter().map(|(name, member)| (name, member)))
                .map(Cow::Owned),
            Expr::Exists(query) => truth(rows::exist(query, self.slots, self.budget)),
            Expr::Rows(query) => Some(Cow::Owned(Value::Array(rows::rows(
                query,
                self.slots,
                self.budget,
            )))),
            Expr::First(query) => rows::rows(query, self.slots, self.budget)
                .into_iter()
                .next()
                .map(Cow::Owned),
        }
    }

    /// A value for keeps.
    fn keep(self, value: Cow<'_, Value>) -> Option<Value> {
        match value {
            Cow::Owned(value) => Some(value),
            Cow::Borrowed(value) => {
                self.budget.copy(value)?;
                Some(value.clone())
            }
        }
    }

    /// The value of an expression, for keeps.
    pub fn owned(self, expr: &'a Expr) -> Option<Value> {
        self.keep(self.eval(expr)?)
    }

    /// An object of the members that are defined.
    pub fn object<'e: 'a>(
        self,
        members: impl Iterator<Item = (&'e String, &'e Expr)>,
    ) -> Option<Value> {
        let mut object = Map::new();
        for (name, expr) in members {
            if let Some(value) = self.eval(expr) {
                object.insert(name.clone(), self.keep(value)?);
            }
        }
        Some(Value::Object(object))
    }

    fn path(self, base: &'a Expr, steps: &'a [Step]) -> Maybe<'a> {
        let mut value = self.eval(base)?;
        for step in steps {
            value = match step {
                Step::Member(name) => pick(value, |value| value.as_object()?.get(name))?,
                Step::Computed(index) => {
                    let index = self.eval(index)?;
                    pick(value, |value| match (value, &*index) {
                        (Value::Object(members), Value::String(name)) => members.get(name),
                        (Value::Array(items), Value::Number(number)) => {
                            items.get(usize::try_from(number.as_u64()?).ok()?)
                        }
                        _ => None,
                    })?
                }
            };
        }
        Some(value)
    }

    fn binary(self, left: Maybe<'a>, operator: Operator, right: &'a Expr) -> Maybe<'a> {
        match operator {
            Operator::And => return self.logic(left, right, false),
            Operator::Or => return self.logic(left, right, true),
            Operator::Coalesce => return left.or_else(|| self.eval(right)),
            _ => {}
        }
        let (left, right) = (left?, self.eval(right)?);
        let ordered = |test: fn(Ordering) -> bool| truth(test(order::within(&left, &right)?));
        let arithmetic = |apply: fn(f64, f64) -> f64| {
            number(apply(left.as_f64()?, right.as_f64()?)).map(Cow::Owned)
        };
        match operator {
            Operator::Equal => comparable(&left, &right)
                .then(|| equal(&left, &right))
                .and_then(truth),
            Operator::NotEqual => comparable(&left, &right)
                .then(|| !equal(&left, &right))
                .and_then(truth),
            Operator::Less => ordered(Ordering::is_lt),
            Operator::LessOrEqual => ordered(Ordering::is_le),
            Operator::Greater => ordered(Ordering::is_gt),
            Operator::GreaterOrEqual => ordered(Ordering::is_ge),
            Operator::Concatenate => {
                let (left, right) = (left.as_str()?, right.as_str()?);
                self.budget.text(left.len() + right.len())?;
                Some(Cow::Owned(Value::String([left, right].concat())))
            }
            Operator::Add => arithmetic(|a, b| a + b),
            Operator::Subtract => arithmetic(|a, b| a - b),
            Operator::Multiply => arithmetic(|a, b| a * b),
            Operator::Divide => arithmetic(|a, b| a / b),
            Operator::Remainder => arithmetic(|a, b| a % b),
            Operator::And | Operator::Or | Operator::Coalesce => None,
        }
    }

    /// AND and OR: `decisive` decides alone, even against undefined.
    fn logic(self, left: Maybe<'a>, right: &'a Expr, decisive: bool) -> Maybe<'a> {
        let left = left.and_then(|value| value.as_bool());
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

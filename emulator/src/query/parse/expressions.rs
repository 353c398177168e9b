//! What operators join, by precedence.

use serde_json::Value;

use super::super::ast::{Expr, Operator};
use super::super::lex::Token;
use super::{MAX_DEPTH, Parser, unsupported};

impl Parser {
    pub(super) fn expr(&mut self) -> Result<Expr, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!(
                "the query nests expressions deeper than {MAX_DEPTH} levels"
            ));
        }
        let condition = self.binary(0)?;
        let expr = if self.take("?") {
            let yes = self.expr()?;
            self.expect(":")?;
            let no = self.expr()?;
            Expr::Conditional(condition.into(), yes.into(), no.into())
        } else {
            condition
        };
        self.depth -= 1;
        Ok(expr)
    }

    pub(super) fn binary(&mut self, level: usize) -> Result<Expr, String> {
        const LEVELS: [&[(&str, Operator)]; 7] = [
            &[("??", Operator::Coalesce)],
            &[("OR", Operator::Or)],
            &[("AND", Operator::And)],
            &[
                ("=", Operator::Equal),
                ("!=", Operator::NotEqual),
                ("<>", Operator::NotEqual),
                ("<=", Operator::LessOrEqual),
                (">=", Operator::GreaterOrEqual),
                ("<", Operator::Less),
                (">", Operator::Greater),
            ],
            &[("||", Operator::Concatenate)],
            &[("+", Operator::Add), ("-", Operator::Subtract)],
            &[
                ("*", Operator::Multiply),
                ("/", Operator::Divide),
                ("%", Operator::Remainder),
            ],
        ];
        let Some(operators) = LEVELS.get(level) else {
            return self.unary();
        };
        if level == 3 && self.take_word("NOT") {
            // NOT binds tighter than AND, looser than comparisons.
            return Ok(Expr::Not(self.nested(3)?.into()));
        }
        let mut left = self.binary(level + 1)?;
        loop {
            if level == 3
                && let Some(membership) = self.membership(&left)?
            {
                left = membership;
                continue;
            }
            let found = operators
                .iter()
                .find(|(text, _)| self.take(text) || self.take_word(text));
            let Some((_, operator)) = found else {
                return Ok(left);
            };
            let right = self.binary(level + 1)?;
            left = Expr::Binary(*operator, left.into(), right.into());
        }
    }

    pub(super) fn nested(&mut self, level: usize) -> Result<Expr, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!(
                "the query nests expressions deeper than {MAX_DEPTH} levels"
            ));
        }
        let expr = self.binary(level)?;
        self.depth -= 1;
        Ok(expr)
    }

    /// `[NOT] IN (...)` and `[NOT] BETWEEN a AND b` after an operand.
    pub(super) fn membership(&mut self, left: &Expr) -> Result<Option<Expr>, String> {
        let start = self.position;
        let negated = self.take_word("NOT");
        let expr = if self.take_word("IN") {
            self.expect("(")?;
            let mut items = vec![self.expr()?];
            while self.take(",") {
                items.push(self.expr()?);
            }
            self.expect(")")?;
            Expr::In(left.clone().into(), items)
        } else if self.take_word("BETWEEN") {
            let low = self.binary(4)?;
            if !self.take_word("AND") {
                return Err(self.unexpected("AND"));
            }
            Expr::Between(left.clone().into(), low.into(), self.binary(4)?.into())
        } else if self.is_word("LIKE") {
            return Err(unsupported("LIKE"));
        } else {
            self.position = start;
            return Ok(None);
        };
        Ok(Some(if negated {
            Expr::Not(expr.into())
        } else {
            expr
        }))
    }

    pub(super) fn unary(&mut self) -> Result<Expr, String> {
        if self.take("-") {
            let inner = self.nested(7)?;
            return Ok(match &inner {
                Expr::Literal(Value::Number(number)) => match number.as_i64().map(i64::checked_neg)
                {
                    Some(Some(whole)) => Expr::Literal(Value::from(whole)),
                    _ => Expr::Negate(inner.into()),
                },
                _ => Expr::Negate(inner.into()),
            });
        }
        if self.take("+") {
            return self.nested(7);
        }
        let mut expr = self.primary()?;
        loop {
            if self.take(".") {
                let Some(Token::Word(name)) = self.peek() else {
                    return Err(self.unexpected("a property name"));
                };
                expr = Expr::Member(expr.into(), name.clone());
                self.position += 1;
            } else if self.take("[") {
                let index = self.expr()?;
                self.expect("]")?;
                expr = match index {
                    Expr::Literal(Value::String(name)) => Expr::Member(expr.into(), name),
                    index => Expr::Index(expr.into(), index.into()),
                };
            } else {
                return Ok(expr);
            }
        }
    }
}

//! What operators join, by precedence.

use serde_json::Value;

use super::super::ast::{Expr, Operator, Step};
use super::super::lex::Token;
use super::{Parsed, Parser};

/// Operators from the loosest to the tightest.
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

/// The level of comparisons, where `NOT`, `IN`, `BETWEEN` and `LIKE` belong.
const COMPARISON: usize = 3;

/// Behind the last level.
const UNARY: usize = LEVELS.len();

impl Parser<'_> {
    pub(super) fn expr(&mut self) -> Parsed<Expr> {
        self.enter(|parser| {
            let condition = parser.level(0)?;
            if !parser.take("?") {
                return Ok(condition);
            }
            let yes = parser.expr()?;
            parser.expect(":")?;
            let no = parser.expr()?;
            Ok(Expr::Conditional(condition.into(), yes.into(), no.into()))
        })
    }

    fn level(&mut self, level: usize) -> Parsed<Expr> {
        let Some(operators) = LEVELS.get(level) else {
            return self.unary();
        };
        if level == COMPARISON && self.is_word("NOT") {
            // NOT binds tighter than AND, looser than comparisons.
            self.position += 1;
            let inner = self.enter(|parser| parser.level(COMPARISON))?;
            return Ok(Expr::Not(inner.into()));
        }
        let mut first = self.level(level + 1)?;
        if level == COMPARISON {
            first = self.membership(first)?;
        }
        let mut rest = Vec::new();
        loop {
            let found = operators
                .iter()
                .find(|(text, _)| self.take(text) || self.take_word(text));
            let Some((_, operator)) = found else { break };
            rest.push((*operator, self.level(level + 1)?));
        }
        for symbol in ["&", "|", "^", "<<", ">>"] {
            if self.is(symbol) {
                return Err(self.unsupported(&format!("the operator {symbol}")));
            }
        }
        Ok(if rest.is_empty() {
            first
        } else {
            Expr::Chain(first.into(), rest)
        })
    }

    /// `[NOT] IN (...)`, `[NOT] BETWEEN a AND b` or `[NOT] LIKE pattern` after an operand.
    fn membership(&mut self, left: Expr) -> Parsed<Expr> {
        let negated = self.is_word("NOT");
        let ahead = usize::from(negated);
        let follows = |word: &str| self.is_word_at(ahead, word);
        let expr = if follows("IN") {
            self.position += ahead + 1;
            Expr::In(left.into(), self.choices()?)
        } else if follows("BETWEEN") {
            self.position += ahead + 1;
            let low = self.level(COMPARISON + 1)?;
            self.expect_word("AND")?;
            let high = self.level(COMPARISON + 1)?;
            Expr::Between(left.into(), low.into(), high.into())
        } else if follows("LIKE") {
            self.position += ahead + 1;
            let pattern = self.level(COMPARISON + 1)?;
            Expr::Like(left.into(), pattern.into(), self.escape()?)
        } else {
            return Ok(left);
        };
        Ok(if negated {
            Expr::Not(expr.into())
        } else {
            expr
        })
    }

    fn choices(&mut self) -> Parsed<Vec<Expr>> {
        self.expect("(")?;
        if self.is_word("SELECT") {
            return Err(self.unsupported("IN (SELECT ...)"));
        }
        let mut items = vec![self.expr()?];
        while self.take(",") {
            items.push(self.expr()?);
        }
        self.expect(")")?;
        Ok(items)
    }

    fn escape(&mut self) -> Parsed<Option<char>> {
        if !self.take_word("ESCAPE") {
            return Ok(None);
        }
        let letter = match self.peek() {
            Some(Token::Text(text)) => {
                let mut letters = text.chars();
                letters.next().filter(|_| letters.next().is_none())
            }
            _ => None,
        };
        let letter = letter.ok_or_else(|| self.unexpected())?;
        self.position += 1;
        Ok(Some(letter))
    }

    fn unary(&mut self) -> Parsed<Expr> {
        if self.take("-") {
            let inner = self.enter(|parser| parser.level(UNARY))?;
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
            return self.enter(|parser| parser.level(UNARY));
        }
        if self.is("~") {
            return Err(self.unsupported("the operator ~"));
        }
        let base = self.primary()?;
        let steps = self.steps()?;
        Ok(if steps.is_empty() {
            base
        } else {
            Expr::Path(base.into(), steps)
        })
    }

    /// `.name` and `[index]`, any number of them.
    pub(super) fn steps(&mut self) -> Parsed<Vec<Step>> {
        let mut steps = Vec::new();
        loop {
            if self.take(".") {
                let Some(Token::Word(name)) = self.peek() else {
                    return Err(self.unexpected());
                };
                steps.push(Step::Member(name.clone()));
                self.position += 1;
            } else if self.take("[") {
                let index = self.expr()?;
                self.expect("]")?;
                steps.push(match index {
                    Expr::Literal(Value::String(name)) => Step::Member(name),
                    index => Step::Computed(index),
                });
            } else {
                return Ok(steps);
            }
        }
    }
}

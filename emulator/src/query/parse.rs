//! From tokens to a tree, by recursive descent.

use std::collections::HashMap;

use serde_json::Value;

use super::aggregate::Aggregation;
use super::ast::{Expr, Operator, OrderKey, Query, Select};
use super::function::Function;
use super::lex::{Token, tokens};

/// Deepest nesting of expressions; more would only exhaust the stack.
const MAX_DEPTH: usize = 64;

/// Words that cannot be an alias.
const CLAUSES: [&str; 12] = [
    "FROM", "WHERE", "ORDER", "GROUP", "OFFSET", "LIMIT", "JOIN", "AS", "IN", "ASC", "DESC",
    "VALUE",
];

/// Parses a query; parameters are put in at once.
///
/// # Errors
/// One clause: what is wrong, or what is not supported.
pub fn parse(text: &str, parameters: HashMap<String, Value>) -> Result<Query, String> {
    let mut parser = Parser {
        tokens: tokens(text)?,
        position: 0,
        parameters,
        alias: None,
        aggregates: Vec::new(),
        depth: 0,
    };
    parser.query()
}

struct Parser {
    tokens: Vec<Token>,
    position: usize,
    parameters: HashMap<String, Value>,
    alias: Option<String>,
    aggregates: Vec<(Aggregation, Expr)>,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.position)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(found)) if found.eq_ignore_ascii_case(word))
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.position += usize::from(found);
        found
    }

    fn take(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Symbol(found)) if *found == symbol);
        self.position += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<(), String> {
        if self.take(symbol) {
            Ok(())
        } else {
            Err(self.unexpected(symbol))
        }
    }

    fn unexpected(&self, wanted: &str) -> String {
        match self.peek() {
            None => format!("the query ends where {wanted} was expected"),
            Some(Token::Word(word)) => format!("the query has {word} where {wanted} was expected"),
            Some(Token::Symbol(symbol)) => {
                format!("the query has {symbol} where {wanted} was expected")
            }
            Some(_) => format!("the query has a constant where {wanted} was expected"),
        }
    }

    fn query(&mut self) -> Result<Query, String> {
        if !self.take_word("SELECT") {
            return Err(self.unexpected("SELECT"));
        }
        if self.is_word("DISTINCT") {
            return Err(unsupported("DISTINCT"));
        }
        let top = if self.take_word("TOP") {
            Some(self.count()?)
        } else {
            None
        };
        // The alias is needed to read the select list, but stands behind it.
        self.alias = self.find_alias();
        let select = self.select()?;
        self.from()?;
        let filter = if self.take_word("WHERE") {
            Some(self.plain_expr()?)
        } else {
            None
        };
        if self.is_word("GROUP") {
            return Err(unsupported("GROUP BY"));
        }
        let order = self.order()?;
        let (mut offset, mut limit) = (0, top);
        if self.take_word("OFFSET") {
            offset = self.count()?;
            if !self.take_word("LIMIT") {
                return Err(self.unexpected("LIMIT"));
            }
            let rows = self.count()?;
            limit = Some(limit.map_or(rows, |top| top.min(rows)));
        }
        if self.peek().is_some() {
            return Err(self.unexpected("the end"));
        }
        if !self.aggregates.is_empty() && !order.is_empty() {
            return Err(unsupported("ORDER BY with an aggregate"));
        }
        Ok(Query {
            select,
            limit,
            offset,
            filter,
            order,
            aggregates: std::mem::take(&mut self.aggregates),
        })
    }

    /// The name that stands for the document: the last word of the FROM clause at the top level.
    fn find_alias(&self) -> Option<String> {
        let mut depth = 0usize;
        for (index, token) in self.tokens.iter().enumerate().skip(self.position) {
            match token {
                Token::Symbol("(" | "[" | "{") => depth += 1,
                Token::Symbol(")" | "]" | "}") => depth = depth.saturating_sub(1),
                Token::Word(word)
                    if depth == 0
                        && word.eq_ignore_ascii_case("FROM")
                        && !matches!(self.tokens[index - 1], Token::Symbol(".")) =>
                {
                    let word_at = |index: usize| match self.tokens.get(index) {
                        Some(Token::Word(word)) => Some(word.clone()),
                        _ => None,
                    };
                    let is_clause = |word: &String| {
                        CLAUSES
                            .iter()
                            .any(|clause| word.eq_ignore_ascii_case(clause))
                    };
                    let source = word_at(index + 1)?;
                    let explicit =
                        word_at(index + 2).filter(|word| word.eq_ignore_ascii_case("AS"));
                    return match explicit {
                        Some(_) => word_at(index + 3),
                        None => word_at(index + 2)
                            .filter(|word| !is_clause(word))
                            .or(Some(source)),
                    };
                }
                _ => {}
            }
        }
        None
    }

    fn from(&mut self) -> Result<(), String> {
        if !self.take_word("FROM") {
            return Ok(());
        }
        let Some(Token::Word(_)) = self.peek() else {
            return Err(self.unexpected("a name"));
        };
        self.position += 1;
        if self.is_word("IN") {
            return Err(unsupported("FROM ... IN"));
        }
        if self.take(".") || self.take("[") {
            return Err(unsupported("a path in FROM"));
        }
        if self.take_word("AS")
            || matches!(self.peek(), Some(Token::Word(word)) if !CLAUSES.iter().any(|c| word.eq_ignore_ascii_case(c)))
        {
            let Some(Token::Word(_)) = self.peek() else {
                return Err(self.unexpected("an alias"));
            };
            self.position += 1;
        }
        if self.is_word("IN") {
            return Err(unsupported("FROM ... IN"));
        }
        if self.is_word("JOIN") || self.take(",") {
            return Err(unsupported("JOIN"));
        }
        Ok(())
    }

    fn count(&mut self) -> Result<u64, String> {
        let number = match self.peek() {
            Some(Token::Number(number)) => number.as_u64(),
            Some(Token::Parameter(name)) => self.parameters.get(name).and_then(Value::as_u64),
            _ => None,
        };
        let number = number.ok_or_else(|| self.unexpected("a whole number"))?;
        self.position += 1;
        Ok(number)
    }

    fn select(&mut self) -> Result<Select, String> {
        if self.take("*") {
            return Ok(Select::Star);
        }
        if self.take_word("VALUE") {
            return Ok(Select::Value(self.expr()?));
        }
        let mut items: Vec<(String, Expr)> = Vec::new();
        let mut unnamed = 0;
        loop {
            let expr = self.expr()?;
            let named = self.take_word("AS");
            let alias = match self.peek() {
                Some(Token::Word(word))
                    if named
                        || !CLAUSES
                            .iter()
                            .any(|clause| word.eq_ignore_ascii_case(clause)) =>
                {
                    Some(word.clone())
                }
                Some(Token::Text(text)) if named => Some(text.clone()),
                _ if named => return Err(self.unexpected("an alias")),
                _ => None,
            };
            self.position += usize::from(alias.is_some());
            let name = match alias {
                Some(alias) => alias,
                None => inferred_name(&expr, self.alias.as_deref()).unwrap_or_else(|| {
                    unnamed += 1;
                    format!("${unnamed}")
                }),
            };
            items.push((name, expr));
            if !self.take(",") {
                return Ok(Select::List(items));
            }
        }
    }

    fn order(&mut self) -> Result<Vec<OrderKey>, String> {
        let mut keys = Vec::new();
        if !self.take_word("ORDER") {
            return Ok(keys);
        }
        if !self.take_word("BY") {
            return Err(self.unexpected("BY"));
        }
        if self.is_word("RANK") {
            return Err(unsupported("ORDER BY RANK"));
        }
        loop {
            let expr = self.plain_expr()?;
            let descending = self.take_word("DESC");
            if !descending {
                self.take_word("ASC");
            }
            keys.push(OrderKey { expr, descending });
            if !self.take(",") {
                return Ok(keys);
            }
        }
    }

    /// An expression in a place where aggregates have no meaning.
    fn plain_expr(&mut self) -> Result<Expr, String> {
        let before = self.aggregates.len();
        let expr = self.expr()?;
        if self.aggregates.len() > before {
            return Err("an aggregate can stand only in the SELECT clause".to_owned());
        }
        Ok(expr)
    }

    fn expr(&mut self) -> Result<Expr, String> {
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

    fn binary(&mut self, level: usize) -> Result<Expr, String> {
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

    fn nested(&mut self, level: usize) -> Result<Expr, String> {
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
    fn membership(&mut self, left: &Expr) -> Result<Option<Expr>, String> {
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

    fn unary(&mut self) -> Result<Expr, String> {
        if self.take("-") {
            let inner = self.nested(7)?;
            return Ok(match &inner {
                Expr::Literal(Value::Number(number)) => match number.as_i64() {
                    Some(whole) => Expr::Literal(Value::from(-whole)),
                    None => Expr::Negate(inner.into()),
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

    fn primary(&mut self) -> Result<Expr, String> {
        let token = self
            .peek()
            .cloned()
            .ok_or_else(|| self.unexpected("an expression"))?;
        self.position += 1;
        match token {
            Token::Number(number) => Ok(Expr::Literal(Value::Number(number))),
            Token::Text(text) => Ok(Expr::Literal(Value::String(text))),
            Token::Parameter(name) => self
                .parameters
                .get(&name)
                .map(|value| Expr::Literal(value.clone()))
                .ok_or_else(|| format!("the query parameter {name} has no value")),
            Token::Symbol("(") => {
                if self.is_word("SELECT") {
                    return Err(unsupported("a subquery"));
                }
                let expr = self.expr()?;
                self.expect(")")?;
                Ok(expr)
            }
            Token::Symbol("[") => {
                let mut items = Vec::new();
                while !self.take("]") {
                    if !items.is_empty() {
                        self.expect(",")?;
                    }
                    items.push(self.expr()?);
                }
                Ok(Expr::Array(items))
            }
            Token::Symbol("{") => self.object(),
            Token::Word(word) => self.word(&word),
            Token::Symbol(_) => {
                self.position -= 1;
                Err(self.unexpected("an expression"))
            }
        }
    }

    fn object(&mut self) -> Result<Expr, String> {
        let mut members = Vec::new();
        while !self.take("}") {
            if !members.is_empty() {
                self.expect(",")?;
            }
            let name = match self.peek() {
                Some(Token::Text(name) | Token::Word(name)) => name.clone(),
                _ => return Err(self.unexpected("a property name")),
            };
            self.position += 1;
            self.expect(":")?;
            members.push((name, self.expr()?));
        }
        Ok(Expr::Object(members))
    }

    fn word(&mut self, word: &str) -> Result<Expr, String> {
        if self.alias.as_deref() == Some(word) && !matches!(self.peek(), Some(Token::Symbol("("))) {
            return Ok(Expr::Root);
        }
        let upper = word.to_ascii_uppercase();
        match upper.as_str() {
            "TRUE" => return Ok(Expr::Literal(Value::Bool(true))),
            "FALSE" => return Ok(Expr::Literal(Value::Bool(false))),
            "NULL" => return Ok(Expr::Literal(Value::Null)),
            "UNDEFINED" => return Ok(Expr::Undefined),
            "EXISTS" | "ARRAY" => return Err(unsupported("a subquery")),
            "UDF" => return Err(unsupported("a user-defined function")),
            _ => {}
        }
        if !self.take("(") {
            return Err(format!(
                "the query uses the name {word}, which is not its FROM alias"
            ));
        }
        let mut arguments = Vec::new();
        while !self.take(")") {
            if !arguments.is_empty() {
                self.expect(",")?;
            }
            if self.is_word("SELECT") {
                return Err(unsupported("a subquery"));
            }
            arguments.push(self.expr()?);
        }
        if let Some(aggregation) = Aggregation::by_name(&upper) {
            if arguments.len() != 1 {
                return Err(format!("{upper} takes one argument"));
            }
            self.aggregates
                .extend(arguments.pop().map(|argument| (aggregation, argument)));
            return Ok(Expr::Aggregate(self.aggregates.len() - 1));
        }
        let (function, arity) = Function::by_name(&upper)
            .ok_or_else(|| unsupported(&format!("the function {upper}")))?;
        if !arity.contains(&arguments.len()) {
            return Err(format!(
                "{upper} does not take {} arguments",
                arguments.len()
            ));
        }
        Ok(Expr::Call(function, arguments))
    }
}

fn inferred_name(expr: &Expr, alias: Option<&str>) -> Option<String> {
    match expr {
        Expr::Member(_, name) => Some(name.clone()),
        Expr::Root => alias.map(str::to_owned),
        _ => None,
    }
}

fn unsupported(what: &str) -> String {
    format!("{what} in a query is not supported yet by this server")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::eval::Scope;
    use serde_json::json;

    fn value_of(text: &str, document: &Value) -> Option<Value> {
        let query = parse(
            &format!("SELECT VALUE {text} FROM c"),
            HashMap::from([("@p".to_owned(), json!(7))]),
        )
        .unwrap();
        let Select::Value(expr) = query.select else {
            panic!("VALUE")
        };
        Scope::document(document)
            .eval(&expr)
            .map(|value| value.into_owned())
    }

    #[test]
    fn expressions_have_the_documented_values() {
        let document =
            json!({"a": 1, "b": "x", "n": null, "o": {"p": [10, 20]}, "t": true, "from": 3});
        for (text, expected) in [
            ("1 + 2 * 3 - -4", Some(json!(11))),
            ("(1 + 2) * 3", Some(json!(9))),
            ("1 / 0", None),
            ("c.a = 1 AND c.b = 'x'", Some(json!(true))),
            ("c.a = '1'", None),
            ("NOT c.a = 2", Some(json!(true))),
            ("NOT c.missing = 2", None),
            ("c.missing = 1 OR c.t", Some(json!(true))),
            ("c.missing = 1 AND false", Some(json!(false))),
            ("c.n = null", Some(json!(true))),
            ("c.missing ?? c.n ?? 5", Some(json!(null))),
            ("c.o.p[1]", Some(json!(20))),
            ("c['o']['p'][0]", Some(json!(10))),
            ("c.o.p[2]", None),
            ("c.a IN (3, 1)", Some(json!(true))),
            ("c.a NOT IN (3, 1)", Some(json!(false))),
            ("c.a BETWEEN 1 AND 2 AND true", Some(json!(true))),
            ("c.a > 0 ? 'yes' : 'no'", Some(json!("yes"))),
            ("IS_DEFINED(c.n)", Some(json!(true))),
            ("is_defined(c.missing)", Some(json!(false))),
            ("STARTSWITH(c.b, 'X', true)", Some(json!(true))),
            (
                "{\"x\": c.a, y: [c.b, c.missing]}",
                Some(json!({"x": 1, "y": ["x"]})),
            ),
            ("@p % 4", Some(json!(3))),
            ("'a' || c.b", Some(json!("ax"))),
            ("c.from", Some(json!(3))),
            ("'b' > 'a'", Some(json!(true))),
            ("[1, {a: 2}] = [1.0, {a: 2}]", Some(json!(true))),
        ] {
            assert_eq!(value_of(text, &document), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (text, named) in [
            ("SELECT DISTINCT c.a FROM c", "DISTINCT"),
            ("SELECT c.a FROM c GROUP BY c.a", "GROUP BY"),
            ("SELECT * FROM c JOIN d IN c.d", "JOIN"),
            ("SELECT * FROM x IN c.d", "IN"),
            ("SELECT * FROM c WHERE c.a LIKE 'x'", "LIKE"),
            ("SELECT * FROM c WHERE EXISTS(SELECT 1)", "subquery"),
            ("SELECT udf.f(c) FROM c", "user-defined"),
            ("SELECT SOUNDEX(c.a) FROM c", "SOUNDEX"),
            ("SELECT * FROM c WHERE COUNT(1) > 1", "aggregate"),
            ("SELECT * FROM c WHERE d.a = 1", "d"),
            ("SELECT * FROM c WHERE c.a = @q", "@q"),
            ("SELECT * FROM c WHERE", "ends"),
            ("DELETE FROM c", "DELETE"),
            ("SELECT * FROM c c c", "c"),
            ("", "ends"),
        ] {
            let error = parse(text, HashMap::new()).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
        let deep = format!(
            "SELECT VALUE {}1{} FROM c",
            "(".repeat(5_000),
            ")".repeat(5_000)
        );
        assert!(parse(&deep, HashMap::new()).unwrap_err().contains("deeper"));
        let deep = format!("SELECT VALUE {}1 FROM c", "NOT ".repeat(5_000));
        assert!(parse(&deep, HashMap::new()).unwrap_err().contains("deeper"));
        let deep = format!("SELECT VALUE {}1 FROM c", "- ".repeat(5_000));
        assert!(parse(&deep, HashMap::new()).unwrap_err().contains("deeper"));
    }

    #[test]
    fn clauses_are_read() {
        let query = parse("select top 3 c.a, c.o.p as q, 1 from root c where c.a > 1 order by c.a desc offset 1 limit 2", HashMap::new()).unwrap();
        let Select::List(items) = &query.select else {
            panic!("a list")
        };
        assert_eq!(
            items
                .iter()
                .map(|(name, _)| name.as_str())
                .collect::<Vec<_>>(),
            ["a", "q", "$1"]
        );
        assert_eq!(
            (query.limit, query.offset, query.order.len()),
            (Some(2), 1, 1)
        );
        assert!(query.order[0].descending);
    }
}

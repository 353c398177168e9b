//! Queries: text to tokens ([`lex`]), tokens to a tree ([`parse`]), a tree and documents to values ([`eval`]) and rows
//! ([`rows`]).
//!
//! The dialect: `SELECT` with `*`, `VALUE` or a list; `TOP`; one `FROM` alias; `WHERE`; `ORDER BY`; `OFFSET LIMIT`;
//! `COUNT`, `SUM`, `MIN`, `MAX`, `AVG` over everything in scope; comparison, logic, arithmetic, `IN`, `BETWEEN`, `??` and
//! `? :`; a few functions. What is not in it is refused by name.
//!
//! A value that is not there is *undefined*, which is neither `null` nor `false`: comparing with it gives undefined, and
//! a row passes a filter only if the filter is `true`.

pub mod aggregate;
pub mod ast;
mod condition;
pub mod eval;
pub mod function;
pub mod lex;
pub mod order;
pub mod parse;
pub mod rows;

pub use condition::Condition;
pub use eval::number;

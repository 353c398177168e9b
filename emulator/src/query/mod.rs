//! Queries: text to tokens ([`lex`]), tokens to a tree ([`parse`]), a tree and documents to values ([`eval`]) and rows
//! ([`rows`]), which may be sorted ([`sorting`]), grouped ([`groups`]) and made distinct ([`distinct`]); and how a client
//! has to run a query over several partitions ([`plan`]).
//!
//! The dialect: `SELECT` with `*`, `VALUE` or a list; `DISTINCT`; `TOP`; `FROM` with paths, `IN`, subqueries and `JOIN`;
//! `WHERE`; `GROUP BY`; `ORDER BY`; `OFFSET LIMIT`; `COUNT`, `COUNTIF`, `SUM`, `MIN`, `MAX`, `AVG`; comparison, logic,
//! arithmetic, `IN`, `BETWEEN`, `LIKE`, `??` and `? :`; `EXISTS`, `ARRAY` and scalar subqueries; the functions of
//! [`function`]. What is not in it is refused by name.
//!
//! A value that is not there is *undefined*, which is neither `null` nor `false`: comparing with it gives undefined, and
//! a row passes a filter only if the filter is `true`.

pub mod aggregate;
pub mod ast;
pub mod budget;
mod condition;
pub mod distinct;
pub mod error;
pub mod eval;
pub mod function;
pub mod groups;
pub mod lex;
mod like;
pub mod order;
pub mod parse;
pub mod plan;
pub mod rows;
pub mod sorting;
pub mod target;
#[cfg(test)]
mod tests;

pub use condition::Condition;
pub use eval::number;

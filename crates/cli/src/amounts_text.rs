//! Sizes and lengths of time for a person. Pure.

use std::time::Duration;

/// Units of 1,024, from the smallest.
const SIZES: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// A number of bytes, to three digits or four: `640 B`, `1.5 MiB`. Rounded down.
pub(crate) fn bytes(count: u64) -> String {
    let (mut unit, mut divisor) = (0, 1);
    while count / divisor >= 1024 && unit + 1 < SIZES.len() {
        unit += 1;
        divisor *= 1024;
    }
    let (whole, rest) = (count / divisor, count % divisor);
    match (unit, whole) {
        (1.., 0..100) => format!("{whole}.{} {}", rest * 10 / divisor, SIZES[unit]),
        _ => format!("{whole} {}", SIZES[unit]),
    }
}

/// A length of time in its largest unit: `45 s`, `3 h`, `12 d`.
pub(crate) fn length(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// `1 envelope`, `2 envelopes`.
pub(crate) fn envelopes(count: u64) -> String {
    match count {
        1 => "1 envelope".to_owned(),
        _ => format!("{count} envelopes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_short_and_never_rounds_up() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (150 * 1024, "150 KiB"),
            (16 * 1024 * 1024, "16.0 MiB"),
            (1024 * 1024 * 1024 - 1, "1023 MiB"),
            (u64::MAX, "16777215 TiB"),
        ] {
            assert_eq!(bytes(count), text, "{count}");
        }
    }

    #[test]
    fn a_length_of_time_has_one_unit() {
        for (seconds, text) in
            [(45, "45 s"), (120, "2 min"), (7_200, "2 h"), (86_400, "24 h"), (1_036_800, "12 d")]
        {
            assert_eq!(length(Duration::from_secs(seconds)), text);
        }
    }
}

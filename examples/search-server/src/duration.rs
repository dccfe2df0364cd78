//! Go's syntax of durations: `50ms`, `1.5s`, `1h15m30s`.

use std::time::Duration;

/// The units, and how many nanoseconds each has.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),  // the micro sign
    ("\u{3bc}s", 1_000), // the Greek letter
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// As Go's `time.ParseDuration`, of what is not negative.
///
/// # Errors
///
/// A sentence that says what is wrong.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = |what: &str| format!("{text:?} is no length of time, {what}");
    let mut rest = match text.strip_prefix('-') {
        Some(_) => return Err(wrong("for it is negative")),
        None => text.strip_prefix('+').unwrap_or(text),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(wrong("as 50ms or 1.5s would be"));
    }
    let mut nanos = 0u128;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, after) = rest.split_at(end.unwrap_or(rest.len()));
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && part.is_empty()) || part.contains('.') {
            return Err(wrong("as 50ms or 1.5s would be"));
        }
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.');
        let (name, after) = after.split_at(end.unwrap_or(after.len()));
        let (_, unit) = match UNITS.iter().find(|(unit, _)| *unit == name) {
            Some(unit) => unit,
            None if name.is_empty() => return Err(wrong("for it has no unit, as 50ms or 1.5s do")),
            None => return Err(wrong(&format!("for there is no unit {name:?}"))),
        };
        let too_long = || wrong("for it is too long");
        let whole = if whole.is_empty() { "0" } else { whole };
        let whole: u64 = whole.parse().map_err(|_| too_long())?;
        nanos += u128::from(whole) * unit;
        // What is smaller than a nanosecond is cut off, as Go does it.
        let (mut scale, mut fraction) = (1u128, 0u128);
        for digit in part.bytes().take(15) {
            fraction = fraction * 10 + u128::from(digit - b'0');
            scale *= 10;
        }
        nanos += fraction * unit / scale;
        // Go's own end: the nanoseconds of an i64, some 292 years.
        if nanos > i64::MAX as u128 {
            return Err(too_long());
        }
        rest = after;
    }
    Ok(Duration::from_nanos(nanos as u64))
}

#[cfg(test)]
mod tests {
    use super::parse;
    use std::time::Duration;

    #[test]
    fn as_go_reads_them() {
        let hour = Duration::from_secs(3600);
        for (text, means) in [
            ("0", Duration::ZERO),
            ("+0", Duration::ZERO),
            ("5s", Duration::from_secs(5)),
            ("5.s", Duration::from_secs(5)),
            (".5s", Duration::from_millis(500)),
            ("1.004s", Duration::from_millis(1004)),
            ("50ms", Duration::from_millis(50)),
            ("12\u{b5}s", Duration::from_micros(12)),
            ("12\u{3bc}s", Duration::from_micros(12)),
            ("12us", Duration::from_micros(12)),
            ("11ns", Duration::from_nanos(11)),
            ("3m30.5s", Duration::from_millis(210_500)),
            ("1h15m30.918273645s", hour + Duration::new(930, 918_273_645)),
            ("39h9m14.425s", 39 * hour + Duration::from_millis(554_425)),
            ("0.3333333333333333333h", Duration::from_secs(1200)),
            ("0.100000000000000000000h", Duration::from_secs(360)),
            (
                "9007199254.740993s",
                Duration::new(9_007_199_254, 740_993_000),
            ),
        ] {
            let got = parse(text).unwrap();
            // Of the 0.333…h the digits beyond the fifteenth are left out.
            let near = got.abs_diff(means);
            assert!(near <= Duration::from_nanos(4), "{text}: {got:?}");
        }
    }

    #[test]
    fn what_go_refuses() {
        for text in [
            "",
            "3",
            "-",
            "-5s",
            "s",
            ".",
            "-.",
            ".s",
            "+.s",
            "1d",
            "\u{85}\u{85}",
            "1.2.3s",
            " 5s",
            "5s ",
            "5 s",
            "9223372036854775808ns",
            "9223372036854775.808us",
            "3000000h",
            "1e3s",
            "99999999999999999999s",
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains("is no length of time, "), "{error}");
        }
    }
}

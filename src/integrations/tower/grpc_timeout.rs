//! The value of the header `grpc-timeout`: 1 to 8 digits and a unit, one of `H M S m u n`.
//!
//! ```
//! use cancel_tree::integrations::tower::grpc_timeout;
//! use std::time::Duration;
//!
//! assert_eq!(grpc_timeout::parse("250m"), Ok(Duration::from_millis(250)));
//! assert!(grpc_timeout::parse("+5S").is_err());
//! assert_eq!(grpc_timeout::format(Duration::from_millis(250)), "250000u");
//! ```

use alloc::string::String;
use core::error::Error;
use core::fmt::{self, Write};
use core::time::Duration;

/// The most that eight digits can say.
const MOST: u128 = 99_999_999;
const SECOND: u128 = 1_000_000_000;

/// The units, and how many nanoseconds each has. From the finest on, for [`format`].
const UNITS: [(u8, u128); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', SECOND),
    (b'M', 60 * SECOND),
    (b'H', 3600 * SECOND),
];

/// The text is no timeout as the gRPC protocol has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MalformedTimeout;

impl fmt::Display for MalformedTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not 1 to 8 digits and one of H, M, S, m, u, n")
    }
}

impl Error for MalformedTimeout {}

/// Returns the time that the header's value says. The longest is 99,999,999 hours.
///
/// # Errors
///
/// Anything but 1 to 8 digits and a unit: a sign, a space, a point, no digit or a ninth one, another unit.
pub fn parse(value: impl AsRef<[u8]>) -> Result<Duration, MalformedTimeout> {
    let [digits @ .., unit] = value.as_ref() else {
        return Err(MalformedTimeout);
    };
    let unit = UNITS.iter().find(|(letter, _)| letter == unit);
    let (_, nanos) = unit.ok_or(MalformedTimeout)?;
    let number = number(digits, 8).ok_or(MalformedTimeout)?;
    let nanos = u128::from(number) * nanos;
    // Both fit: the longest are 3.6e11 seconds.
    Ok(Duration::new(
        (nanos / SECOND) as u64,
        (nanos % SECOND) as u32,
    ))
}

/// Returns the header's value for a time, in the finest unit in which eight digits are enough. What that unit cannot express is
/// rounded up, never down: the other end must not give up before this one does.
///
/// What is longer than 99,999,999 hours is given as that.
///
/// Cost: an allocation.
#[must_use]
pub fn format(timeout: Duration) -> String {
    let nanos = timeout.as_nanos();
    let unit = UNITS
        .iter()
        .map(|(letter, each)| (nanos.div_ceil(*each), *letter));
    let mut found = unit.filter(|(number, _)| *number <= MOST);
    let (number, letter) = found.next().unwrap_or((MOST, b'H'));
    let mut text = String::with_capacity(9);
    // A String takes all that is written to it.
    let _ = write!(text, "{number}{}", char::from(letter));
    text
}

/// So many digits at most, and at least one, and nothing else. A number too great for 64 bits is the greatest of them.
pub(super) fn number(digits: &[u8], most: usize) -> Option<u64> {
    if digits.is_empty() || digits.len() > most || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0u64, |number, digit| {
        number
            .saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    }))
}

#[cfg(test)]
mod tests {
    use super::{format, number, parse, MalformedTimeout};
    use std::time::Duration;

    const HOUR: u64 = 3600;

    #[test]
    fn what_the_specification_allows() {
        let right = [
            ("1n", Duration::from_nanos(1)),
            ("0n", Duration::ZERO),
            ("00000000H", Duration::ZERO),
            ("00000001S", Duration::from_secs(1)),
            ("1000000u", Duration::from_secs(1)),
            ("82m", Duration::from_millis(82)),
            ("5S", Duration::from_secs(5)),
            ("2M", Duration::from_secs(120)),
            ("2H", Duration::from_secs(2 * HOUR)),
            ("99999999n", Duration::from_nanos(99_999_999)),
            ("99999999H", Duration::from_secs(99_999_999 * HOUR)),
        ];
        for (text, time) in right {
            assert_eq!(parse(text), Ok(time), "{text}");
        }
    }

    #[test]
    fn what_it_does_not() {
        let wrong = [
            "",
            "S",
            "5",
            "+5S",
            "-5S",
            " 5S",
            "5S ",
            "5 S",
            "5s",
            "5h",
            "5.0S",
            "5e3m",
            "0x5S",
            "123456789S",
            "000000000S",
            "5SS",
            "5ms",
            "\u{665}S",
            "5\u{b5}",
            "n5",
            "5S,5S",
            "5\0S",
        ];
        for text in wrong {
            assert_eq!(parse(text), Err(MalformedTimeout), "{text:?}");
        }
        assert_eq!(parse([0xff, b'S']), Err(MalformedTimeout));
    }

    #[test]
    fn rounds_up_and_never_down() {
        assert_eq!(format(Duration::ZERO), "0n");
        assert_eq!(format(Duration::from_nanos(99_999_999)), "99999999n");
        assert_eq!(format(Duration::from_nanos(100_000_001)), "100001u");
        assert_eq!(format(Duration::MAX), "99999999H");
        let longest = Duration::from_secs(99_999_999 * HOUR);
        let mut state = 1u64;
        for bits in 0..95 {
            for _ in 0..200 {
                // xorshift: enough to meet all digits.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let nanos =
                    (u128::from(state) << 64 | u128::from(state.rotate_left(31))) >> (127 - bits);
                let secs = u64::try_from(nanos / 1_000_000_000).unwrap_or(u64::MAX);
                let time = Duration::new(secs, (nanos % 1_000_000_000) as u32).min(longest);
                let text = format(time);
                let back = parse(&text).unwrap();
                assert!(text.len() <= 9 && back >= time, "{time:?} {text}");
                // A hundred thousandth more at most: but for what no finer unit can say.
                let more = back - time;
                assert!(
                    more <= time / 16_000 + Duration::from_nanos(1),
                    "{time:?} {text}"
                );
                assert_eq!(format(back), format(parse(format(back)).unwrap()));
            }
        }
    }

    #[test]
    fn numbers_end_at_the_greatest() {
        assert_eq!(number(b"18446744073709551615", 40), Some(u64::MAX));
        assert_eq!(number(b"18446744073709551616", 40), Some(u64::MAX));
        assert_eq!(number(b"99999999999999999999999999", 40), Some(u64::MAX));
        assert_eq!(number(b"", 40), None);
    }
}

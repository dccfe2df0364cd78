//! What is asked for: the parameters of `GET /search`.

use crate::duration;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// The longest limit that a search may have.
pub const LONGEST: Duration = Duration::from_secs(60);
const DEFAULT: Duration = Duration::from_secs(1);
/// How many bytes the text may have.
const TEXT: usize = 200;
/// How many bytes all of the question may have: what is wrong with it is said in the answer and in the log.
const QUESTION: usize = 1000;
/// How many hits may be asked for.
const MOST: usize = 1000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Found where a line has it, as it is.
    pub text: Arc<str>,
    /// The search ends then, with what was found.
    pub timeout: Duration,
    /// So many hits are enough.
    pub most: usize,
}

impl Query {
    /// From the part of the address behind `?`.
    ///
    /// # Errors
    ///
    /// A sentence for who has asked.
    pub fn parse(query: &str) -> Result<Query, String> {
        if query.len() > QUESTION {
            return Err(format!(
                "A question may have {QUESTION} bytes, this one has {}.",
                query.len()
            ));
        }
        let (mut text, mut timeout, mut most) = (None, None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            let place = match &*name {
                "q" => &mut text,
                "timeout" => &mut timeout,
                "n" => &mut most,
                _ => {
                    return Err(format!(
                        "There is no parameter {name:?}; there are q, timeout, n."
                    ))
                }
            };
            if place.replace(value).is_some() {
                return Err(format!("The parameter {name} is there twice."));
            }
        }
        let text =
            text.ok_or("What is to be found? Say it as in /search?q=needle&timeout=50ms.")?;
        if text.is_empty() {
            return Err("An empty q is found everywhere.".into());
        }
        if text.len() > TEXT {
            return Err(format!(
                "A q may have {TEXT} bytes, this one has {}.",
                text.len()
            ));
        }
        if text.contains(['\n', '\r', '\0']) {
            return Err("A q is found within a line, so it has no line breaks.".into());
        }
        let timeout = match timeout {
            None => DEFAULT,
            Some(value) => {
                duration::parse(&value).map_err(|wrong| format!("The timeout {wrong}."))?
            }
        };
        if timeout.is_zero() {
            return Err("In a timeout of 0 nothing can be found.".into());
        }
        if timeout > LONGEST {
            return Err(format!("A timeout may be {LONGEST:?} at most."));
        }
        let most = match most {
            None => 100,
            Some(value) => value
                .parse()
                .ok()
                .filter(|most| (1..=MOST).contains(most))
                .ok_or_else(|| format!("The n {value:?} is no number from 1 to {MOST}."))?,
        };
        Ok(Query {
            text: text.into(),
            timeout,
            most,
        })
    }
}

/// As forms encode: `+` is a space, `%` and two digits a byte.
fn decode(text: &str) -> Result<Cow<'_, str>, String> {
    if !text.contains(['+', '%']) {
        return Ok(text.into());
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || (bytes.next()? as char).to_digit(16);
                let byte = digit().zip(digit()).map(|(high, low)| high << 4 | low);
                byte.ok_or_else(|| format!("In {text:?} a % is not followed by two digits."))? as u8
            }
            byte => byte,
        });
    }
    let decoded = String::from_utf8(decoded);
    Ok(decoded
        .map_err(|_| format!("{text:?} is not UTF-8."))?
        .into())
}

#[cfg(test)]
mod tests {
    use super::Query;
    use std::time::Duration;

    #[test]
    fn what_is_asked_for() {
        let query = Query::parse("q=fn+main%28%29&timeout=50ms&n=7").unwrap();
        assert_eq!(&*query.text, "fn main()");
        assert_eq!((query.timeout, query.most), (Duration::from_millis(50), 7));
        let query = Query::parse("q=%C3%A9t%C3%A9").unwrap();
        assert_eq!(&*query.text, "\u{e9}t\u{e9}");
        assert_eq!((query.timeout, query.most), (Duration::from_secs(1), 100));
    }

    #[test]
    fn each_mistake_has_a_sentence() {
        let long = format!("q={}", "x".repeat(201));
        let longer = format!("q=a&{}", "x".repeat(1000));
        for (query, says) in [
            ("", "What is to be found?"),
            ("timeout=1s", "What is to be found?"),
            ("q=", "An empty q"),
            ("q=a&q=b", "is there twice"),
            ("q=a%0Ab", "no line breaks"),
            ("q=%ff", "not UTF-8"),
            ("q=%4", "followed by two digits"),
            ("q=%zz", "followed by two digits"),
            ("q=a&limit=4", "no parameter \"limit\""),
            ("q=a&timeout=", "no length of time"),
            ("q=a&timeout=50", "has no unit"),
            ("q=a&timeout=0s", "a timeout of 0"),
            ("q=a&timeout=-1s", "negative"),
            ("q=a&timeout=61s", "60s at most"),
            ("q=a&n=0", "no number from 1 to 1000"),
            ("q=a&n=1001", "no number from 1 to 1000"),
            ("q=a&n=x", "no number from 1 to 1000"),
            (&long, "200 bytes"),
            (&longer, "1000 bytes"),
        ] {
            let error = Query::parse(query).unwrap_err();
            assert!(
                error.contains(says) && error.ends_with(['.', '?']),
                "{error}"
            );
        }
    }
}

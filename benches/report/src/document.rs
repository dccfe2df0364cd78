//! A document with parts that are generated, each between `<!-- report: NAME -->` and `<!-- end -->`; the rest is
//! written by hand, and stays.

use std::collections::BTreeMap;

const START: &str = "<!-- report: ";
const END: &str = "<!-- end -->";

/// The document with each part filled in anew. Wrong if a part has no place in it, or a place no part.
pub fn fill(document: &str, mut parts: BTreeMap<String, String>) -> Result<String, String> {
    let mut filled = String::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        filled.push_str(line);
        filled.push('\n');
        let Some(name) = line.strip_prefix(START) else {
            continue;
        };
        let name = name.trim_end_matches(" -->");
        let part = parts.remove(name).ok_or_else(|| {
            format!("the document has a second place for “{name}”, or nothing has")
        })?;
        if !lines.any(|line| line == END) {
            return Err(format!("the part “{name}” has no end"));
        }
        filled.push_str(&format!("\n{}\n\n{END}\n", part.trim()));
    }
    match parts.into_keys().next() {
        Some(name) => Err(format!("the document has no place for “{name}”")),
        None => Ok(filled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(parts: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = parts.iter().map(|&(k, v)| (k.to_owned(), v.to_owned()));
        owned.collect()
    }

    #[test]
    fn what_is_written_by_hand_stays() {
        let document = "a\n<!-- report: x -->\nold\n<!-- end -->\nb\n";
        let filled = fill(document, parts(&[("x", "new\n")])).unwrap();
        assert_eq!(filled, "a\n<!-- report: x -->\n\nnew\n\n<!-- end -->\nb\n");
        assert_eq!(fill(&filled, parts(&[("x", "new")])).unwrap(), filled);
    }

    #[test]
    fn places_and_parts_are_the_same() {
        let document = "<!-- report: x -->\n<!-- end -->\n";
        assert!(fill(document, parts(&[])).is_err());
        assert!(fill(document, parts(&[("x", ""), ("y", "")])).is_err());
        assert!(fill(&document.repeat(2), parts(&[("x", "")])).is_err());
    }

    #[test]
    fn a_part_without_an_end_swallows_nothing() {
        assert!(fill("<!-- report: x -->\nby hand\n", parts(&[("x", "")])).is_err());
    }
}

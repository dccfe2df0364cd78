//! Names, colours and numbers as the plots show them.

use plotters::style::RGBColor;

/// The contenders in the order in which they are shown, in the colours of Okabe and Ito, which almost everybody can
/// tell apart.
const CONTENDERS: [(&str, RGBColor); 11] = [
    ("cancel_tree", BLUE),
    ("tokio_util", VERMILLION),
    ("tokio_sleep", VERMILLION),
    ("tokio_sleep_unpolled", ORANGE),
    ("mutex_tree", ORANGE),
    ("go", GREEN),
    ("event_listener", SKY),
    ("watch", PURPLE),
    ("stop_token", YELLOW),
    ("halo_core", BLACK),
    ("floor", GREY),
];

const BLACK: RGBColor = RGBColor(0, 0, 0);
const ORANGE: RGBColor = RGBColor(0xE6, 0x9F, 0x00);
const SKY: RGBColor = RGBColor(0x56, 0xB4, 0xE9);
const GREEN: RGBColor = RGBColor(0x00, 0x9E, 0x73);
const YELLOW: RGBColor = RGBColor(0xF0, 0xE4, 0x42);
const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xB2);
const VERMILLION: RGBColor = RGBColor(0xD5, 0x5E, 0x00);
const PURPLE: RGBColor = RGBColor(0xCC, 0x79, 0xA7);
const GREY: RGBColor = RGBColor(0x99, 0x99, 0x99);

/// Where a contender comes among the others; one that is not in the list, last.
pub fn place(contender: &str) -> usize {
    let found = CONTENDERS.iter().position(|(name, _)| *name == contender);
    found.unwrap_or(CONTENDERS.len())
}

pub fn color(contender: &str) -> RGBColor {
    let found = CONTENDERS.get(place(contender));
    found.map_or_else(|| spare(contender), |&(_, color)| color)
}

/// For one that is not in the list: always the same.
fn spare(contender: &str) -> RGBColor {
    const SPARE: [RGBColor; 3] = [
        RGBColor(0x7A, 0x4B, 0x1E),
        RGBColor(0x80, 0x80, 0x00),
        RGBColor(0x4B, 0x00, 0x82),
    ];
    SPARE[contender.bytes().map(usize::from).sum::<usize>() % SPARE.len()]
}

/// The benches in the order in which they are shown, with their titles.
const BENCHES: [(&str, &str); 40] = [
    ("read", "read the flag"),
    ("read_busy", "… beside a busy creator"),
    ("read_beside_waits", "… beside polls of it"),
    ("read_beside_clones", "… beside clones of it"),
    ("read_deep", "… 100 levels deep"),
    ("create_drop", "create + drop a child"),
    ("create_drop_among_100k", "… beside 100,000 siblings"),
    ("create_drop_two_threads", "… from 2 threads"),
    ("create_drop_beside_cancels", "… beside cancels"),
    ("create_cancel_drop", "create + cancel + drop"),
    ("request", "a request (4 tokens)"),
    ("clone_drop", "clone + drop"),
    ("first_poll", "first poll + drop"),
    ("first_poll_second_waiter", "… beside another waiter"),
    ("first_poll_deep", "… 100 levels deep"),
    ("first_poll_two_threads", "… from 2 threads"),
    ("poll_again", "poll again"),
    ("wait_cancel", "a wait that ends"),
    ("select_anew", "a turn of a select loop"),
    ("select_kept", "… the future kept"),
    ("cancel_beside_reads", "cancel 1,000 beside reads"),
    ("wake", "wake a parked thread"),
    ("wake_across", "… on another core"),
    ("cancel_node", "cancel, per node"),
    ("cancel_wide", "cancel 1,000,000 children"),
    ("cancel_churned", "… after random churn"),
    ("cancel_chain", "cancel a chain"),
    ("cancel_ten_ary", "cancel a 10-ary tree"),
    ("build_cold", "build children, cold"),
    ("drop_children", "drop them"),
    ("drop_all", "… and their parent"),
    ("ctx_cancel_drop", "with_cancel + drop"),
    ("ctx_timeout_drop", "with_timeout + drop"),
    ("ctx_timeout_drop_among_100k", "… beside 100,000"),
    ("ctx_timeout_done_drop", "… with a poll of done()"),
    ("ctx_err", "err() with a deadline"),
    ("ctx_value", "value(), 100 deep"),
    ("ctx_value_miss", "… a miss"),
    ("ctx_with_value", "with_value"),
    ("clock", "read the clock"),
];

/// The place of a bench among the others, and its title. One that is not in the list comes last, by its own name.
pub fn bench(name: &str) -> (usize, String) {
    match BENCHES.iter().position(|(it, _)| *it == name) {
        Some(place) => (place, BENCHES[place].1.to_owned()),
        None => (BENCHES.len(), name.replace('_', " ")),
    }
}

/// What an axis measures.
#[derive(Clone, Copy)]
pub enum Quantity {
    /// In nanoseconds.
    Time,
    /// Operations per second.
    Rate,
    Count,
}

impl Quantity {
    /// With its unit, in up to three digits.
    pub fn show(self, number: f64) -> String {
        let units: &[(f64, &str)] = match self {
            Self::Time => &[(1e9, " s"), (1e6, " ms"), (1e3, " µs"), (1.0, " ns")],
            Self::Rate => &[(1e9, " G/s"), (1e6, " M/s"), (1e3, " k/s"), (1.0, "/s")],
            Self::Count => &[(1e6, " M"), (1e3, " k"), (1.0, "")],
        };
        // What would be rounded to a thousand belongs to the next unit.
        let unit = units.iter().find(|(scale, _)| number >= scale * 0.9995);
        let &(scale, unit) = unit.unwrap_or(&units[units.len() - 1]);
        let number = number / scale;
        let decimals = match number {
            _ if number < 0.00995 => 4,
            _ if number < 0.9995 => 2,
            _ if number < 9.995 => 1,
            _ => 0,
        };
        let digits = format!("{number:.decimals$}");
        let digits = if digits.contains('.') {
            digits.trim_end_matches('0').trim_end_matches('.')
        } else {
            &digits
        };
        format!("{digits}{unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::Quantity::{Count, Rate, Time};

    #[test]
    fn numbers_have_few_digits_and_a_unit() {
        let shown = [0.0009, 0.38, 1.0, 12.7, 999.4, 999.9, 28_100.0, 5.6e6, 2e9];
        let shown = shown.map(|ns| Time.show(ns));
        let expected = [
            "0.0009 ns",
            "0.38 ns",
            "1 ns",
            "13 ns",
            "999 ns",
            "1 µs",
            "28 µs",
            "5.6 ms",
            "2 s",
        ];
        assert_eq!(shown, expected);
        assert_eq!(Rate.show(2.5e8), "250 M/s");
        assert_eq!([1.0, 1e4, 1e6].map(|n| Count.show(n)), ["1", "10 k", "1 M"]);
    }
}

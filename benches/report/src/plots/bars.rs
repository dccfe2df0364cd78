//! Panels of horizontal bars, each panel on a log scale of its own.

use std::error::Error;

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::sheet::{self, Area, NORMAL, SMALL};
use super::style::{self, Quantity};

pub struct Bar {
    pub name: String,
    pub value: f64,
    /// The spread of what was measured.
    pub low: f64,
    pub high: f64,
}

pub struct Bars {
    /// By their titles.
    pub panels: Vec<(String, Vec<Bar>)>,
    pub quantity: Quantity,
}

const BAR: u32 = 26;
const TITLE: u32 = 40;
const GAP: u32 = 14;

impl Bars {
    /// Room for the longest name.
    fn names_width(&self) -> u32 {
        let bars = self.panels.iter().flat_map(|(_, bars)| bars);
        let longest = bars.map(|bar| bar.name.chars().count()).max();
        20 + 10 * longest.unwrap_or(0) as u32
    }

    pub fn draw(&self, title: &str, columns: usize) -> Result<String, Box<dyn Error>> {
        let rows = self.panels.chunks(columns).map(|row| {
            let most = row.iter().map(|(_, bars)| bars.len()).max();
            TITLE + BAR * most.unwrap_or(0) as u32 + GAP
        });
        let rows: Vec<u32> = rows.collect();
        sheet::draw(title, &[], columns, &rows, |n, area| {
            match self.panels.get(n) {
                Some((title, bars)) => self.panel(area, title, bars),
                None => Ok(()),
            }
        })
    }

    fn panel(&self, area: &Area, title: &str, bars: &[Bar]) -> Result<(), Box<dyn Error>> {
        // A scale for each panel: what is compared is in one. The bar of the lowest has some length, and behind the
        // highest there is room for its number.
        let lowest = bars
            .iter()
            .map(|bar| bar.value)
            .fold(f64::INFINITY, f64::min);
        let highest = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
        let from = lowest / 3.0;
        let range = from..highest * (highest / from).powf(0.5);
        let names = self.names_width();
        let (width, _) = area.dim_in_pixel();
        area.draw(&Text::new(
            title.to_owned(),
            (4, TITLE as i32 / 2),
            sheet::bold(NORMAL),
        ))?;
        let height = BAR * bars.len() as u32;
        let plot = area.clone().shrink((0, TITLE), (width - GAP, height));
        let mut chart = ChartBuilder::on(&plot)
            .y_label_area_size(names)
            .build_cartesian_2d(range.clone().log_scale(), 0.0..bars.len() as f64)?;
        let mut decade = 10f64.powf(range.start.log10().ceil());
        while decade < range.end {
            let line = [(decade, 0.0), (decade, bars.len() as f64)];
            chart.draw_series([PathElement::new(line, BLACK.mix(0.15))])?;
            decade *= 10.0;
        }
        for (i, bar) in bars.iter().enumerate() {
            let middle = (bars.len() - i) as f64 - 0.5;
            let color = style::color(&bar.name);
            let rectangle = [(range.start, middle - 0.36), (bar.value, middle + 0.36)];
            chart.draw_series([Rectangle::new(rectangle, color.filled())])?;
            let spread = [
                (bar.low.max(range.start), middle),
                (bar.high.min(range.end), middle),
            ];
            chart.draw_series([PathElement::new(spread, BLACK.mix(0.65).stroke_width(3))])?;

            // Behind the bar and its spread.
            let end = chart.backend_coord(&(bar.value.max(bar.high).min(range.end), middle));
            let (left, top) = area.get_base_pixel();
            let name = (names as i32 - 8, end.1 - top);
            area.draw(&Text::new(
                bar.name.clone(),
                name,
                sheet::text(SMALL, HPos::Right),
            ))?;
            let number = (end.0 - left + 6, end.1 - top);
            let value = self.quantity.show(bar.value);
            area.draw(&Text::new(value, number, sheet::text(SMALL, HPos::Left)))?;
        }
        Ok(())
    }
}

/// The power of ten that a number is, if it is one: only those are labelled.
pub fn decade(number: f64) -> Option<f64> {
    let power = 10f64.powf(number.log10().round());
    ((number / power - 1.0).abs() < 1e-6).then_some(power)
}

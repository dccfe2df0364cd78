//! Panels of horizontal bars on one log scale.

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
const AXIS: u32 = 34;
const GAP: u32 = 14;
/// For the names of the bars.
const NAMES: u32 = 150;

impl Bars {
    pub fn draw(&self, title: &str, columns: usize) -> Result<String, Box<dyn Error>> {
        let bars = || self.panels.iter().flat_map(|(_, bars)| bars);
        let lowest = bars().map(|bar| bar.value).fold(f64::INFINITY, f64::min);
        let highest = bars().map(|bar| bar.value).fold(0.0, f64::max);
        // The bar of the lowest has some length, and behind the highest there is room for its number.
        let from = 10f64.powf((lowest / 1.5).log10().floor());
        let to = highest * (highest / from).powf(0.4);

        let rows = self.panels.chunks(columns).map(|row| {
            let most = row.iter().map(|(_, bars)| bars.len()).max();
            TITLE + BAR * most.unwrap_or(0) as u32 + AXIS + GAP
        });
        let rows: Vec<u32> = rows.collect();
        sheet::draw(title, &[], columns, &rows, |n, area| {
            match self.panels.get(n) {
                Some((title, bars)) => self.panel(area, title, bars, from..to),
                None => Ok(()),
            }
        })
    }

    fn panel(
        &self,
        area: &Area,
        title: &str,
        bars: &[Bar],
        range: std::ops::Range<f64>,
    ) -> Result<(), Box<dyn Error>> {
        let (width, _) = area.dim_in_pixel();
        area.draw(&Text::new(
            title.to_owned(),
            (4, TITLE as i32 / 2),
            sheet::bold(NORMAL),
        ))?;
        let height = BAR * bars.len() as u32;
        let plot = area
            .clone()
            .shrink((0, TITLE), (width - GAP, height + AXIS));
        let mut chart = ChartBuilder::on(&plot)
            .x_label_area_size(AXIS)
            .y_label_area_size(NAMES)
            .build_cartesian_2d(range.clone().log_scale(), 0.0..bars.len() as f64)?;
        let shown =
            |number: &f64| decade(*number).map_or(String::new(), |it| self.quantity.show(it));
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .x_labels(6)
            .x_label_formatter(&shown)
            .label_style(("sans-serif", SMALL - 2).into_font())
            .bold_line_style(BLACK.mix(0.15))
            .light_line_style(TRANSPARENT)
            .axis_style(BLACK.mix(0.4))
            .draw()?;
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
            let name = (NAMES as i32 - 8, end.1 - top);
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

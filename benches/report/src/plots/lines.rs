//! Panels of lines, log-log.

use std::error::Error;
use std::ops::Range;

use plotters::prelude::*;

use super::bars::decade;
use super::sheet::{self, Area, NORMAL, SMALL};
use super::style::{self, Quantity};

pub struct Point {
    pub x: f64,
    pub y: f64,
    /// The upper end of a band above the line.
    pub up_to: Option<f64>,
    /// A part of the line.
    pub is_line: bool,
    /// A dot.
    pub is_measured: bool,
}

pub struct Line {
    pub name: String,
    pub points: Vec<Point>,
}

pub struct Lines {
    /// By their titles.
    pub panels: Vec<(String, Vec<Line>)>,
    pub x_label: &'static str,
    pub y_label: &'static str,
    pub y: Quantity,
}

const HEIGHT: u32 = 380;
const TITLE: u32 = 40;

impl Lines {
    pub fn draw(&self, title: &str, columns: usize) -> Result<String, Box<dyn Error>> {
        let lines = || self.panels.iter().flat_map(|(_, lines)| lines);
        let points = || lines().flat_map(|line| &line.points);
        let x = around(points().map(|point| point.x));
        let y = around(
            points()
                .flat_map(|point| [Some(point.y), point.up_to])
                .flatten(),
        );
        let mut names: Vec<String> = lines().map(|line| line.name.clone()).collect();
        names.sort_by_key(|name| (style::place(name), name.clone()));
        names.dedup();

        let columns = columns.min(self.panels.len());
        let rows = vec![HEIGHT; self.panels.len().div_ceil(columns)];
        sheet::draw(title, &names, columns, &rows, |n, area| {
            match self.panels.get(n) {
                Some((title, lines)) => self.panel(area, title, lines, x.clone(), y.clone()),
                None => Ok(()),
            }
        })
    }

    fn panel(
        &self,
        area: &Area,
        title: &str,
        lines: &[Line],
        x: Range<f64>,
        y: Range<f64>,
    ) -> Result<(), Box<dyn Error>> {
        let (width, height) = area.dim_in_pixel();
        let at = (4, TITLE as i32 / 2);
        area.draw(&Text::new(title.to_owned(), at, sheet::bold(NORMAL)))?;
        let plot = area
            .clone()
            .shrink((0, TITLE), (width - 14, height - TITLE));
        let mut chart = ChartBuilder::on(&plot)
            .x_label_area_size(62)
            .y_label_area_size(98)
            .build_cartesian_2d(x.log_scale(), y.log_scale())?;
        let shown = |of: Quantity| move |n: &f64| decade(*n).map_or(String::new(), |n| of.show(n));
        chart
            .configure_mesh()
            .x_labels(7)
            .y_labels(8)
            .x_label_formatter(&shown(Quantity::Count))
            .y_label_formatter(&shown(self.y))
            .x_desc(self.x_label)
            .y_desc(self.y_label)
            .label_style(("sans-serif", SMALL).into_font())
            .axis_desc_style(("sans-serif", SMALL).into_font())
            .bold_line_style(BLACK.mix(0.15))
            .light_line_style(TRANSPARENT)
            .axis_style(BLACK.mix(0.4))
            .draw()?;
        // Bands below all lines.
        for Line { name, points } in lines {
            let up = points
                .iter()
                .filter_map(|point| Some((point.x, point.up_to?)));
            let band: Vec<_> = up
                .chain(points.iter().rev().map(|it| (it.x, it.y)))
                .collect();
            if points.iter().all(|point| point.up_to.is_some()) {
                chart.draw_series([Polygon::new(band, style::color(name).mix(0.2).filled())])?;
            }
        }
        for Line { name, points } in lines {
            let color = style::color(name);
            let line = points.iter().filter(|point| point.is_line);
            let line: Vec<_> = line.map(|point| (point.x, point.y)).collect();
            chart.draw_series(LineSeries::new(line, color.stroke_width(3)))?;
            let dots = points.iter().filter(|point| point.is_measured);
            chart.draw_series(dots.map(|it| Circle::new((it.x, it.y), 5, color.filled())))?;
        }
        Ok(())
    }
}

/// From the lowest to the highest, with a little room on both sides.
fn around(numbers: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) = numbers.fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), number| {
        (low.min(number), high.max(number))
    });
    low / 1.3..high * 1.3
}

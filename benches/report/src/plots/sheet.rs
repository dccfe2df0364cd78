//! A page of panels under one title and one legend, white so that it can be read on dark pages as well.

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::style;

pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

pub const WIDTH: u32 = 1400;
const MARGIN: u32 = 16;
const TITLE: u32 = 46;
const LEGEND: u32 = 36;

/// The sizes of text. A page shows the plot at about two thirds.
pub const SMALL: u32 = 19;
pub const NORMAL: u32 = 22;
const LARGE: u32 = 27;

pub fn text(size: u32, horizontal: HPos) -> TextStyle<'static> {
    let style = TextStyle::from(("sans-serif", size).into_font());
    style.pos(Pos::new(horizontal, VPos::Center))
}

pub fn bold(size: u32) -> TextStyle<'static> {
    let font = FontDesc::new(FontFamily::SansSerif, size.into(), FontStyle::Bold);
    TextStyle::from(font).pos(Pos::new(HPos::Left, VPos::Center))
}

/// The rows of panels, of these heights and with so many panels each, drawn one by one.
pub fn draw(
    title: &str,
    legend: &[String],
    columns: usize,
    rows: &[u32],
    mut panel: impl FnMut(usize, &Area) -> Result<(), Box<dyn Error>>,
) -> Result<String, Box<dyn Error>> {
    let legend_height = if legend.is_empty() { 0 } else { LEGEND };
    let head = MARGIN + TITLE + legend_height;
    let height = head + rows.iter().sum::<u32>() + MARGIN;
    let mut svg = String::new();
    {
        let page = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        page.fill(&WHITE)?;
        let at = |x: u32, y: u32| (x as i32, y as i32);
        page.draw(&Text::new(
            title.to_owned(),
            at(MARGIN, MARGIN + TITLE / 2),
            bold(LARGE),
        ))?;

        let mut x = MARGIN;
        for name in legend {
            let y = MARGIN + TITLE + LEGEND / 2;
            let swatch = [at(x, y - 8), at(x + 26, y + 8)];
            page.draw(&Rectangle::new(swatch, style::color(name).filled()))?;
            page.draw(&Text::new(
                name.clone(),
                at(x + 34, y),
                text(NORMAL, HPos::Left),
            ))?;
            // As wide as the widest letters might be.
            x += 34 + 13 * name.len() as u32 + 24;
        }

        let width = (WIDTH - 2 * MARGIN) / columns as u32;
        let mut top = head;
        for (row, &height) in rows.iter().enumerate() {
            for column in 0..columns {
                let left = MARGIN + width * column as u32;
                let area = page.clone().shrink((left, top), (width, height));
                panel(row * columns + column, &area)?;
            }
            top += height;
        }
        page.present()?;
    }
    // What reads it aloud says this first.
    let svg = svg.replacen(
        ">\n",
        &format!(" role=\"img\">\n<title>{title}</title>\n"),
        1,
    );
    Ok(svg)
}

//! One pair of axes with a title, a legend and series of points, in pixels.

use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::FontStyle;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::{Axis, Places};
use crate::style::{INK, Look, Marker, Stroke};

pub(super) const FONT: &str = "sans-serif";
const GRID: RGBColor = RGBColor(228, 228, 228);
const LEGEND: u32 = 14;
const LEGEND_LINE: i32 = 20;
/// The most ticks of an axis without names.
const TICKS: usize = 7;
const TITLE_LINES: usize = 3;

/// One pair of axes.
#[derive(Debug, Clone)]
pub(crate) struct Panel {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
    /// A word in the corner at the bottom left.
    pub corner: Option<&'static str>,
}

/// Points that belong together.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    /// Its entry in the legend; none for what another entry stands for.
    pub name: Option<String>,
    pub look: Look,
    pub points: Vec<(f64, f64)>,
    pub draw: Draw,
}

/// How points are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Draw {
    /// Joined, without markers.
    Line,
    /// Joined, with a marker at each.
    MarkedLine,
    /// Markers.
    Points,
    /// Small markers, for many points.
    Dots,
}

type PlotResult<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;
type Pixel = (i32, i32);

impl Panel {
    pub fn new(title: impl Into<String>, x: Axis, y: Axis, series: Vec<Series>) -> Self {
        Self { title: title.into(), x, y, series, corner: None }
    }

    /// An empty panel with a word in place of points.
    pub fn empty(title: impl Into<String>, why: &'static str) -> Self {
        let axis = || Axis::new("").fixed(0.0, 1.0).unnamed();
        Self { corner: Some(why), ..Self::new(title, axis(), axis(), Vec::new()) }
    }

    pub(super) fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> PlotResult<B> {
        let top = self.draw_head(area)?;
        let (_, chart_area) = area.split_vertically(top);
        let values = |pick: fn(&(f64, f64)) -> f64| {
            self.series.iter().flat_map(move |series| series.points.iter().map(pick))
        };
        let (x, y) = (self.x.range(values(|p| p.0)), self.y.range(values(|p| p.1)));
        let mut chart = ChartBuilder::on(&chart_area)
            .margin(12)
            .margin_top(4)
            .x_label_area_size(52)
            .y_label_area_size(72)
            .build_cartesian_2d(
                Places { range: x, ticks: self.x.ticks(x, TICKS) },
                Places { range: y, ticks: self.y.ticks(y, TICKS) },
            )?;
        chart
            .configure_mesh()
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(INK)
            .label_style((FONT, 14, &INK))
            .axis_desc_style((FONT, 15, &INK))
            .x_desc(&self.x.label)
            .y_desc(&self.y.label)
            .x_label_formatter(&|place| self.x.name(*place, x, TICKS))
            .y_label_formatter(&|place| self.y.name(*place, y, TICKS))
            .draw()?;
        let (columns, rows) = chart.plotting_area().get_pixel_range();
        let corner = chart_area.get_pixel_range();
        let to_area = |(x, y): Pixel| (x - corner.0.start, y - corner.1.start);
        let pixels = |series: &Series| -> Vec<Pixel> {
            let inside =
                |at: &(f64, f64)| (x.0..=x.1).contains(&at.0) && (y.0..=y.1).contains(&at.1);
            let places = series
                .points
                .iter()
                .filter_map(|&(at_x, at_y)| Some((self.x.place(at_x)?, self.y.place(at_y)?)));
            places.filter(inside).map(|at| to_area(chart.backend_coord(&at))).collect()
        };
        let (clouds, others): (Vec<&Series>, Vec<&Series>) =
            self.series.iter().partition(|series| series.draw == Draw::Dots);
        draw_clouds(&chart_area, clouds.iter().map(|series| (series.look, pixels(series))))?;
        for series in others {
            series.draw(&chart_area, &pixels(series))?;
        }
        if let Some(word) = self.corner {
            let faint = INK.mix(0.6);
            let style =
                (FONT, 15, &faint).into_text_style(area).pos(Pos::new(HPos::Left, VPos::Bottom));
            let at = to_area((columns.start + 10, rows.end - 8));
            chart_area.draw(&Text::new(word, at, style))?;
        }
        Ok(())
    }

    /// The title, and below it the legend in as many lines as it needs and there is room for. Returns the height of both.
    fn draw_head<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
    ) -> Result<i32, DrawingAreaErrorKind<B::ErrorType>> {
        let (width, height) = area.dim_in_pixel();
        let (width, lowest) = (width as i32, height as i32 * 2 / 5);
        let title = (FONT, 16, FontStyle::Bold, &INK)
            .into_text_style(area)
            .pos(Pos::new(HPos::Center, VPos::Top));
        let mut top = 12;
        for line in wrap(&self.title, width as usize / 9).into_iter().take(TITLE_LINES) {
            area.draw(&Text::new(line, (width / 2, top), title.clone()))?;
            top += 22;
        }
        let style =
            (FONT, LEGEND, &INK).into_text_style(area).pos(Pos::new(HPos::Left, VPos::Center));
        let (mut left, start) = (84, 84);
        let entries: Vec<(&str, &Series)> = self
            .series
            .iter()
            .filter_map(|series| Some((series.name.as_deref()?, series)))
            .collect();
        if entries.is_empty() {
            return Ok(top);
        }
        top += 8;
        for (place, (name, series)) in entries.iter().enumerate() {
            let name = shortened(name, (width - start - 40) as usize / 8);
            let (text_width, _) = area.estimate_text_size(&name, &style)?;
            let needed = 34 + text_width as i32 + 18;
            if left > start && left + needed > width {
                (left, top) = (start, top + LEGEND_LINE);
            }
            if top > lowest {
                let rest = format!("… and {} more", entries.len() - place);
                area.draw(&Text::new(rest, (start, top), style.clone()))?;
                break;
            }
            series.draw_sample(area, (left, top))?;
            area.draw(&Text::new(name, (left + 34, top), style.clone()))?;
            left += needed;
        }
        Ok(top + LEGEND_LINE / 2 + 2)
    }
}

impl Series {
    pub fn new(name: impl Into<String>, look: Look, draw: Draw, points: Vec<(f64, f64)>) -> Self {
        Self { name: Some(name.into()), look, points, draw }
    }

    /// The same, for what another entry of the legend stands for.
    #[must_use]
    pub fn unnamed(self) -> Self {
        Self { name: None, ..self }
    }

    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        pixels: &[Pixel],
    ) -> PlotResult<B> {
        if matches!(self.draw, Draw::Line | Draw::MarkedLine) && pixels.len() > 1 {
            draw_line(area, pixels, self.look)?;
        }
        if self.draw == Draw::Line && pixels.len() > 1 {
            return Ok(());
        }
        pixels.iter().try_for_each(|&at| draw_marker(area, at, self.look, 6))
    }

    fn draw_sample<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        (x, y): Pixel,
    ) -> PlotResult<B> {
        let look = self.look.faint(1.0);
        if matches!(self.draw, Draw::Line | Draw::MarkedLine) {
            draw_line(area, &[(x, y), (x + 28, y)], look)?;
        }
        if self.draw == Draw::Line { Ok(()) } else { draw_marker(area, (x + 14, y), look, 5) }
    }
}

/// Clouds in turn, a point of each, so that none covers the others.
fn draw_clouds<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    clouds: impl Iterator<Item = (Look, Vec<Pixel>)>,
) -> PlotResult<B> {
    let clouds: Vec<(Look, Vec<Pixel>)> = clouds.collect();
    let most = clouds.iter().map(|(_, pixels)| pixels.len()).max().unwrap_or(0);
    for place in 0..most {
        for (look, pixels) in &clouds {
            if let Some(&at) = pixels.get(place) {
                draw_marker(area, at, *look, 2)?;
            }
        }
    }
    Ok(())
}

fn draw_line<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    pixels: &[Pixel],
    look: Look,
) -> PlotResult<B> {
    let style = look.colour.mix(look.opacity).stroke_width(2);
    let dashes = |on, off| DashedPathElement::new(pixels.to_vec(), on, off, style);
    match look.stroke {
        Stroke::Solid => area.draw(&PathElement::new(pixels.to_vec(), style)),
        Stroke::Dashed => area.draw(&dashes(8, 4)),
        Stroke::Dotted => area.draw(&dashes(2, 3)),
    }
}

fn draw_marker<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    (x, y): Pixel,
    look: Look,
    size: i32,
) -> PlotResult<B> {
    let colour = look.colour.mix(look.opacity);
    let style = colour.filled();
    match look.marker {
        Marker::Circle => area.draw(&Circle::new((x, y), size, style)),
        Marker::Triangle => area.draw(&Polygon::new(
            vec![(x, y - size - 1), (x - size, y + size), (x + size, y + size)],
            style,
        )),
        Marker::Square => {
            let half = (size - 1).max(2);
            area.draw(&Rectangle::new([(x - half, y - half), (x + half, y + half)], style))
        }
        Marker::Cross => area.draw(&Cross::new((x, y), size, colour.stroke_width(2))),
    }
}

/// Lines of words, none longer than `width` characters unless it is one word.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The text with its middle left out where it is longer than `most` characters: ids often differ at the end alone.
fn shortened(text: &str, most: usize) -> String {
    let letters: Vec<char> = text.chars().collect();
    if letters.len() <= most {
        return text.to_owned();
    }
    let half = most.saturating_sub(1) / 2;
    let (start, end) = (&letters[..half], &letters[letters.len() - half..]);
    start.iter().chain(&['…']).chain(end).collect()
}

#[cfg(test)]
mod tests {
    use super::{shortened, wrap};

    #[test]
    fn long_texts_are_wrapped_and_shortened() {
        assert_eq!(wrap("one two three", 9), ["one two", "three"]);
        assert_eq!(wrap("overlong word", 4), ["overlong", "word"]);
        assert_eq!(shortened("abcdefghij", 5), "ab…ij");
        assert_eq!(shortened("x̂abc", 10), "x̂abc");
    }
}

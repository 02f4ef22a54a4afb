//! The frontier as a picture: CE increase against L0 and against alive features, a row of panels a site.

use std::path::Path;
use std::sync::Once;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};
use sae_config::{Site, Variant};

use crate::style::{Marker, colour, marker};
use crate::{AnalysisError, Frontier, Point};

const WIDTH: u32 = 1200;
const ROW: u32 = 500;
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(228, 228, 228);

/// As SVG text.
pub(crate) fn svg(frontier: &Frontier) -> Result<String, AnalysisError> {
    let mut text = String::new();
    draw(frontier, SVGBackend::with_string(&mut text, size(frontier)), "frontier.svg")?;
    Ok(text)
}

/// As a PNG file.
pub(crate) fn png(frontier: &Frontier, path: &Path) -> Result<(), AnalysisError> {
    draw(frontier, BitMapBackend::new(path, size(frontier)), &path.display().to_string())
}

fn size(frontier: &Frontier) -> (u32, u32) {
    (WIDTH, ROW * frontier.sites().len().max(1) as u32)
}

/// The same letters on every machine, whatever fonts it has.
fn register_fonts() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let regular = include_bytes!("../assets/DejaVuSans.ttf");
        let bold = include_bytes!("../assets/DejaVuSans-Bold.ttf");
        // The bundled files are fonts; a failure would show as a missing-font error in the first text drawn.
        let _ = register_font(FONT, FontStyle::Normal, regular);
        let _ = register_font(FONT, FontStyle::Bold, bold);
    });
}

fn draw<B: DrawingBackend>(
    frontier: &Frontier,
    backend: B,
    picture: &str,
) -> Result<(), AnalysisError> {
    register_fonts();
    let failed =
        |error: String| AnalysisError::Plot { picture: picture.to_owned(), message: error };
    let root = backend.into_drawing_area();
    root.fill(&WHITE).map_err(|error| failed(error.to_string()))?;
    let sites: Vec<Site> = frontier.sites().into_iter().collect();
    for (site, row) in sites.iter().zip(root.split_evenly((sites.len().max(1), 1))) {
        let panels = row.split_evenly((1, 2));
        let by_l0 =
            Panel { frontier, site: *site, label: "L0 (active features per token)", x: |p| p.l0 };
        let by_alive =
            Panel { frontier, site: *site, label: "Alive features", x: |p| p.alive as f64 };
        by_l0.draw(&panels[0]).map_err(|error| failed(error.to_string()))?;
        by_alive.draw(&panels[1]).map_err(|error| failed(error.to_string()))?;
    }
    root.present().map_err(|error| failed(error.to_string()))
}

/// One pair of axes.
struct Panel<'a> {
    frontier: &'a Frontier,
    site: Site,
    label: &'static str,
    x: fn(&Point) -> f64,
}

type PlotResult<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

impl Panel<'_> {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> PlotResult<B> {
        let points: Vec<(f64, f64)> = self
            .frontier
            .points
            .iter()
            .filter(|point| point.site == self.site)
            .map(|point| ((self.x)(point), point.ce_increase))
            .filter(|(x, y)| x.is_finite() && y.is_finite())
            .collect();
        let (x_range, y_range) =
            (padded(points.iter().map(|p| p.0)), padded(points.iter().map(|p| p.1)));
        let mut chart = ChartBuilder::on(area)
            .caption(self.site.to_string(), (FONT, 18, FontStyle::Bold, &INK).into_text_style(area))
            .margin(16)
            .x_label_area_size(52)
            .y_label_area_size(68)
            .build_cartesian_2d(x_range.0..x_range.1, y_range.0..y_range.1)?;
        chart
            .configure_mesh()
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(INK)
            .label_style((FONT, 15, &INK))
            .axis_desc_style((FONT, 16, &INK))
            .x_desc(self.label)
            .y_desc("CE increase (nats per token)")
            .x_labels(7)
            .y_labels(7)
            .x_label_formatter(&|x| number(*x, x_range.1 - x_range.0))
            .y_label_formatter(&|y| number(*y, y_range.1 - y_range.0))
            .draw()?;
        let variants = self.frontier.variants();
        let corner = area.get_pixel_range();
        let to_area = |(x, y): (i32, i32)| (x - corner.0.start, y - corner.1.start);
        for &variant in &variants {
            let curve = self.frontier.curve(self.site, variant, self.x);
            let line = colour(variant).stroke_width(2);
            chart.draw_series([PathElement::new(curve.points.clone(), line)])?;
            for point in self.frontier.of_type(self.site, variant) {
                let at = ((self.x)(point), point.ce_increase);
                if at.0.is_finite() && at.1.is_finite() {
                    // Dominated points are faint.
                    let opacity = if curve.points.contains(&at) { 1.0 } else { 0.35 };
                    draw_marker(area, to_area(chart.backend_coord(&at)), variant, opacity)?;
                }
            }
        }
        let (columns, rows) = chart.plotting_area().get_pixel_range();
        let (left, top) = to_area((columns.end - 110, rows.start + 22));
        for (row, &variant) in variants.iter().enumerate() {
            let y = top + 24 * row as i32;
            let line = colour(variant).stroke_width(2);
            area.draw(&PathElement::new(vec![(left, y), (left + 28, y)], line))?;
            draw_marker(area, (left + 14, y), variant, 1.0)?;
            let style =
                (FONT, 16, &INK).into_text_style(area).pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(variant.to_string(), (left + 38, y), style))?;
        }
        let faint = INK.mix(0.6);
        let style =
            (FONT, 15, &faint).into_text_style(area).pos(Pos::new(HPos::Left, VPos::Bottom));
        area.draw(&Text::new("↙ better", to_area((columns.start + 10, rows.end - 8)), style))
    }
}

/// A type's marker at a place in pixels.
fn draw_marker<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    (x, y): (i32, i32),
    variant: Variant,
    opacity: f64,
) -> PlotResult<B> {
    let style = colour(variant).mix(opacity).filled();
    match marker(variant) {
        Marker::Circle => area.draw(&Circle::new((x, y), 6, style)),
        Marker::Triangle => {
            area.draw(&Polygon::new(vec![(x, y - 7), (x - 7, y + 6), (x + 7, y + 6)], style))
        }
        Marker::Square => area.draw(&Rectangle::new([(x - 5, y - 5), (x + 6, y + 6)], style)),
        Marker::Cross => area.draw(&Cross::new((x, y), 6, style)),
    }
}

/// The range of values with a margin; a single value gets room around it.
fn padded(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let low = values.clone().fold(f64::INFINITY, f64::min);
    let high = values.fold(f64::NEG_INFINITY, f64::max);
    if !low.is_finite() || !high.is_finite() {
        return (0.0, 1.0);
    }
    let margin = if high > low { 0.08 * (high - low) } else { 0.1 * high.abs().max(1.0) };
    (low - margin, high + margin)
}

/// As many decimals as an axis of this length needs.
fn number(value: f64, length: f64) -> String {
    let decimals = (1.5 - length.log10()).ceil().clamp(0.0, 4.0) as usize;
    format!("{value:.decimals$}")
}

//! One pair of axes with a title, a legend and series of points, drawn as an SVG element: the same one stands in figures on
//! disk and on the page, whose script reads what it needs from attributes.
//!
//! Everything in it has a class and the colours of a light page as attributes; a style sheet may say otherwise.

use sae_config::Site;

use super::axis::Axis;
use super::series::{Draw, LETTER, Series, TURNS};
use super::svg::{Text, at, element, polyline, shortened, wrap};

const INK: &str = "#282828";
const SOFT_INK: &str = "#59636e";
const GRID: &str = "#e4e4e4";
/// The most ticks of an axis without names.
const TICKS: usize = 8;
const LEGEND_LINE: f64 = 19.0;
const TITLE_LINE: f64 = 20.0;
const TITLE_LINES: usize = 3;
/// The width of a letter of a tick.
const TICK_LETTER: f64 = 0.92 * LETTER;

/// One pair of axes.
#[derive(Debug, Clone)]
pub(crate) struct Panel {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
    /// A word in the corner at the bottom left.
    pub corner: Option<&'static str>,
    /// What stands below it on the page.
    pub note: Option<String>,
    /// The site that it is about: who hides the site hides it.
    pub site: Option<Site>,
    /// The choice and its value for which it is shown on the page; without one, always.
    pub choice: Option<(&'static str, String)>,
    /// Whether it stands in the figure on disk too.
    pub on_disk: bool,
}

/// The size of a panel, in units of the drawing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub width: f64,
    pub height: f64,
}

/// Where the axes are, in units of the drawing, and the range of places that they show.
pub(super) struct Frame {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    x: (f64, f64),
    y: (f64, f64),
}

impl Frame {
    fn x(&self, place: f64) -> f64 {
        self.left + (place - self.x.0) / (self.x.1 - self.x.0) * (self.right - self.left)
    }

    fn y(&self, place: f64) -> f64 {
        self.bottom - (place - self.y.0) / (self.y.1 - self.y.0) * (self.bottom - self.top)
    }
}

impl Panel {
    pub fn new(title: impl Into<String>, x: Axis, y: Axis, series: Vec<Series>) -> Self {
        Self {
            title: title.into(),
            x,
            y,
            series,
            corner: None,
            note: None,
            site: None,
            choice: None,
            on_disk: true,
        }
    }

    /// The same, about a site.
    #[must_use]
    pub fn at(self, site: Site) -> Self {
        Self { site: Some(site), ..self }
    }

    /// The same, shown on the page where `key` is chosen to be `value`; on disk as well if `on_disk`.
    #[must_use]
    pub fn chosen(self, key: &'static str, value: impl Into<String>, on_disk: bool) -> Self {
        Self { choice: Some((key, value.into())), on_disk, ..self }
    }

    #[must_use]
    pub fn noted(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }

    /// Its height where the width is given; rows of names have a height of their own.
    pub fn height(&self, width: f64) -> f64 {
        match self.y.names.len() {
            0 => (width * 0.74).clamp(280.0, 460.0),
            rows => 120.0 + 24.0 * rows as f64,
        }
    }

    /// An `svg` element of this size. `place` is where its corner is in another one, in which it has its title too, which
    /// the page writes beside it.
    pub fn svg(&self, size: Size, place: Option<(f64, f64)>) -> String {
        let (mut body, top) = self.head(size, place.is_some());
        let frame = self.frame(size, top);
        body.push_str(&self.axes(&frame));
        let (clouds, others): (Vec<&Series>, Vec<&Series>) =
            self.series.iter().partition(|series| series.draw == Draw::Dots);
        let pixels = |series: &Series| -> Vec<Option<(f64, f64)>> {
            series.points.iter().map(|point| self.pixel(*point, &frame)).collect()
        };
        for turn in 0..TURNS {
            for series in &clouds {
                body.push_str(&series.dots(&pixels(series), turn, self.site));
            }
        }
        for series in others {
            body.push_str(&series.svg(&pixels(series), self.site, &self.x, &self.y));
        }
        if let Some(word) = self.corner {
            let at = (frame.left + 10.0, frame.bottom - 10.0);
            let text =
                Text { class: "corner", at, size: 14, anchor: "", colour: SOFT_INK, bold: false };
            body.push_str(&text.svg(word));
        }
        let (x, y, width, height) = match place {
            Some((x, y)) => (at(x), at(y), at(size.width), at(size.height)),
            None => (String::new(), String::new(), String::new(), String::new()),
        };
        let attributes = [
            ("xmlns", "http://www.w3.org/2000/svg"),
            ("class", "panel"),
            ("role", "group"),
            ("aria-label", &self.title),
            ("viewBox", &format!("0 0 {} {}", at(size.width), at(size.height))),
            ("x", &x),
            ("y", &y),
            ("width", &width),
            ("height", &height),
            ("font-family", "DejaVu Sans, sans-serif"),
            ("data-frontier", if self.corner.is_some() { "true" } else { "" }),
            ("data-x", &scale(&self.x, frame.x, frame.left, frame.right)),
            ("data-y", &scale(&self.y, frame.y, frame.bottom, frame.top)),
            ("data-x-label", &self.x.label),
            ("data-y-label", &self.y.label),
        ];
        element("svg", &attributes, &body) + "\n"
    }

    /// The title where it is wanted, and below it the legend in as many lines as it needs and there is room for; and the
    /// height of both.
    fn head(&self, size: Size, titled: bool) -> (String, f64) {
        let (mut body, mut top) = (String::new(), 8.0);
        if titled {
            for line in wrap(&self.title, (size.width / 9.0) as usize).into_iter().take(TITLE_LINES)
            {
                top += TITLE_LINE;
                let at = (size.width / 2.0, top - 4.0);
                let text = Text {
                    class: "title",
                    at,
                    size: 15,
                    anchor: "middle",
                    colour: INK,
                    bold: true,
                };
                body.push_str(&text.svg(&line));
            }
            top += 4.0;
        }
        let entries: Vec<(&str, &Series)> = self
            .series
            .iter()
            .filter_map(|series| Some((series.name.as_deref()?, series)))
            .collect();
        if entries.is_empty() {
            return (body, top);
        }
        let start = 16.0;
        let mut left = start;
        top += LEGEND_LINE / 2.0;
        for (place, (name, series)) in entries.iter().enumerate() {
            let shown = shortened(name, ((size.width - start - 50.0) / LETTER) as usize);
            let needed = 32.0 + shown.chars().count() as f64 * LETTER + 14.0;
            if left > start && left + needed > size.width {
                (left, top) = (start, top + LEGEND_LINE);
            }
            let text = |x, colour| {
                let at = (x, top + 4.5);
                Text { class: "", at, size: 13, anchor: "", colour, bold: false }
            };
            if top > size.height * 0.35 {
                let rest = format!("… and {} more", entries.len() - place);
                body.push_str(&text(start, SOFT_INK).svg(&rest));
                break;
            }
            let entry = series.sample(left, top) + &text(left + 32.0, INK).svg(&shown);
            body.push_str(&series.group("legend", self.site, &entry));
            left += needed;
        }
        (body, top + LEGEND_LINE / 2.0 + 4.0)
    }

    fn frame(&self, size: Size, top: f64) -> Frame {
        let longest = self.y.names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        let names = (longest as f64 * TICK_LETTER + 16.0).min(size.width * 0.5);
        let values = |pick: fn(&(f64, f64)) -> f64| {
            self.series.iter().flat_map(move |series| series.points.iter().map(pick))
        };
        let label = if self.y.label.is_empty() { 0.0 } else { 18.0 };
        Frame {
            left: if longest > 0 { names } else { 52.0 + label },
            right: size.width - 14.0,
            top: top + 6.0,
            bottom: size.height - 48.0,
            x: self.x.range(values(|p| p.0)),
            y: self.y.range(values(|p| p.1)),
        }
    }

    /// Grid, ticks and labels.
    fn axes(&self, frame: &Frame) -> String {
        let (x_ticks, y_ticks) = (self.x.ticks(frame.x, TICKS), self.y.ticks(frame.y, TICKS));
        let upright = x_ticks.iter().map(|tick| {
            let x = frame.x(*tick);
            polyline(&[(x, frame.top), (x, frame.bottom)])
        });
        let level = y_ticks.iter().map(|tick| {
            let y = frame.y(*tick);
            polyline(&[(frame.left, y), (frame.right, y)])
        });
        let grid: String = upright.chain(level).collect();
        let axes = polyline(&[
            (frame.left, frame.top),
            (frame.left, frame.bottom),
            (frame.right, frame.bottom),
        ]);
        let line = |class, path: &str, colour| {
            element(
                "path",
                &[("class", class), ("d", path), ("stroke", colour), ("fill", "none")],
                "",
            )
        };
        let mut body = line("grid", &grid, GRID) + &line("axes", &axes, SOFT_INK);
        let mut tick = |at, anchor, name: &str| {
            let text = Text { class: "tick", at, size: 12, anchor, colour: SOFT_INK, bold: false };
            body.push_str(&text.svg(name));
        };
        let names: Vec<String> =
            x_ticks.iter().map(|tick| self.x.name(*tick, frame.x, TICKS)).collect();
        // Names that would run into each other are left out evenly.
        let widest =
            names.iter().map(|name| name.chars().count()).max().unwrap_or(0) as f64 * LETTER;
        let gap = (frame.right - frame.left) / names.len().max(1) as f64;
        let every = ((widest + 6.0) / gap).ceil().max(1.0) as usize;
        for (place, name) in x_ticks.iter().zip(&names).step_by(every) {
            tick((frame.x(*place), frame.bottom + 17.0), "middle", name);
        }
        let room = ((frame.left - 16.0) / TICK_LETTER).round() as usize;
        for place in &y_ticks {
            let name = shortened(&self.y.name(*place, frame.y, TICKS), room.max(8));
            tick((frame.left - 7.0, frame.y(*place) + 4.0), "end", &name);
        }
        let label =
            |at| Text { class: "label", at, size: 13, anchor: "middle", colour: INK, bold: false };
        if !self.x.label.is_empty() {
            let at = (f64::midpoint(frame.left, frame.right), frame.bottom + 38.0);
            body.push_str(&label(at).svg(&self.x.label));
        }
        if !self.y.label.is_empty() {
            let turn =
                format!("translate(15 {}) rotate(-90)", at(f64::midpoint(frame.top, frame.bottom)));
            let text = label((0.0, 0.0)).svg(&self.y.label);
            body.push_str(&element("g", &[("transform", &turn)], &text));
        }
        body
    }

    /// Where a point is drawn; none where it is outside the axes.
    fn pixel(&self, (x, y): (f64, f64), frame: &Frame) -> Option<(f64, f64)> {
        let (x, y) = (self.x.place(x)?, self.y.place(y)?);
        let inside = (frame.x.0..=frame.x.1).contains(&x) && (frame.y.0..=frame.y.1).contains(&y);
        inside.then(|| (frame.x(x), frame.y(y)))
    }
}

/// An axis as the page's script reads it: what its places are, the range of them, and where its ends are drawn.
fn scale(axis: &Axis, (low, high): (f64, f64), from: f64, to: f64) -> String {
    let kind = match (axis.names.is_empty() && axis.has_names, axis.logarithmic) {
        (false, _) => "none",
        (true, false) => "linear",
        (true, true) => "log",
    };
    format!("{kind} {low} {high} {} {}", at(from), at(to))
}

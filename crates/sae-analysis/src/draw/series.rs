//! Points that belong together, and how they are drawn.
//!
//! A series and its points name their group, run and site in `data-type`, `data-run` and `data-site`, by which the page hides
//! them, and say their numbers in a `title`, which browsers show.

use sae_config::Site;

use super::axis::Axis;
use super::look::{Look, Marker};
use super::svg::{at, element, escape, polyline};
use crate::runs::Group;
use crate::table::significant;

/// The width of a letter of 13 units, generously.
pub(super) const LETTER: f64 = 7.6;
/// Parts in which clouds are drawn in turn, so that none covers the others.
pub(super) const TURNS: usize = 12;

/// Points that belong together.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    /// Its entry in the legend; none for what another entry stands for.
    pub name: Option<String>,
    pub look: Look,
    pub points: Vec<(f64, f64)>,
    pub draw: Draw,
    /// The group that it belongs to.
    group: Option<Group>,
    /// The run that it is of.
    run: Option<String>,
    text: PointText,
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

/// What a reader who points at a point is shown.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum PointText {
    /// Their numbers on the axes.
    Numbers,
    /// Of each its run, and lines of text.
    Runs(Vec<(String, String)>),
    /// Of each the number of its feature.
    Features(Vec<usize>),
}

impl Series {
    pub fn new(name: impl Into<String>, look: Look, draw: Draw, points: Vec<(f64, f64)>) -> Self {
        let name = Some(name.into());
        Self { name, look, points, draw, group: None, run: None, text: PointText::Numbers }
    }

    /// The same, for what another entry of the legend stands for.
    #[must_use]
    pub fn unnamed(self) -> Self {
        Self { name: None, ..self }
    }

    /// The same, of a group.
    #[must_use]
    pub fn of(self, group: &Group) -> Self {
        Self { group: Some(group.clone()), ..self }
    }

    /// The same, of a run.
    #[must_use]
    pub fn of_run(self, run: &str) -> Self {
        Self { run: Some(run.to_owned()), ..self }
    }

    /// The same, with what is said of its points.
    #[must_use]
    pub fn with_text(self, text: PointText) -> Self {
        Self { text, ..self }
    }

    /// An SVG group that the page hides with the series.
    pub(super) fn group(&self, class: &str, site: Option<Site>, content: &str) -> String {
        let (group, site) = (text(self.group.as_ref()), text(site.as_ref()));
        let opacity = if class == "series" { self.opacity() } else { String::new() };
        let attributes = [
            ("class", class),
            ("data-type", group.as_str()),
            ("data-run", self.run.as_deref().unwrap_or_default()),
            ("data-site", &site),
            ("data-name", self.name.as_deref().unwrap_or_default()),
            ("opacity", &opacity),
        ];
        element("g", &attributes, content)
    }

    /// Line and markers, where `pixels` has the place of every point that can be seen; `x` and `y` say its numbers.
    pub(super) fn svg(
        &self,
        pixels: &[Option<(f64, f64)>],
        site: Option<Site>,
        x: &Axis,
        y: &Axis,
    ) -> String {
        let shown: Vec<(f64, f64)> = pixels.iter().copied().flatten().collect();
        if shown.is_empty() {
            return String::new();
        }
        let mut body = String::new();
        // A line through one marker is nothing to see, but the page may draw it through others.
        let is_line = match self.draw {
            Draw::Line => shown.len() > 1,
            Draw::MarkedLine => true,
            Draw::Points | Draw::Dots => false,
        };
        if is_line {
            let name = self.name.as_deref().unwrap_or_default();
            let title =
                if name.is_empty() { String::new() } else { element("title", &[], &escape(name)) };
            let attributes = [
                ("class", "line"),
                ("d", &polyline(&shown)),
                ("fill", "none"),
                ("stroke", self.look.colour),
                ("stroke-width", "2"),
                ("stroke-linejoin", "round"),
                ("stroke-dasharray", self.look.stroke.dashes()),
            ];
            body.push_str(&element("path", &attributes, &title));
        }
        if self.draw != Draw::Line || !is_line {
            let places = pixels.iter().enumerate();
            for (place, pixel) in places.filter_map(|(place, pixel)| Some((place, (*pixel)?))) {
                body.push_str(&self.point(place, pixel, site, x, y));
            }
        }
        self.group("series", site, &body)
    }

    fn point(
        &self,
        place: usize,
        pixel: (f64, f64),
        site: Option<Site>,
        x: &Axis,
        y: &Axis,
    ) -> String {
        let (run, said) = match &self.text {
            PointText::Runs(texts) => texts
                .get(place)
                .map_or(("", String::new()), |(run, said)| (run.as_str(), said.clone())),
            PointText::Numbers | PointText::Features(_) => {
                (self.run.as_deref().unwrap_or_default(), self.numbers(place, x, y))
            }
        };
        let attributes = [
            ("class", "point"),
            ("data-at", &format!("{} {}", at(pixel.0), at(pixel.1))),
            ("data-run", run),
            ("data-site", &text(site.as_ref())),
        ];
        let title = element("title", &[], &escape(&said));
        element("g", &attributes, &(title + &self.marker(pixel, 5.5)))
    }

    /// A point's numbers, after the name of its series.
    fn numbers(&self, place: usize, x: &Axis, y: &Axis) -> String {
        let (at_x, at_y) = self.points[place];
        let mut lines: Vec<String> =
            self.name.iter().filter(|name| !name.is_empty()).cloned().collect();
        for (axis, value) in [(x, at_x), (y, at_y)] {
            let name = axis.names.get(value.round().max(0.0) as usize);
            let value = name.map_or_else(|| significant(value), Clone::clone);
            let label = if axis.label.is_empty() { "at" } else { &axis.label };
            lines.push(format!("{label}: {value}"));
        }
        lines.join("\n")
    }

    /// A part of the dots of a cloud, as one path.
    pub(super) fn dots(
        &self,
        pixels: &[Option<(f64, f64)>],
        turn: usize,
        site: Option<Site>,
    ) -> String {
        let (mut path, mut features) = (String::new(), Vec::new());
        for (place, pixel) in pixels.iter().enumerate().skip(turn).step_by(TURNS) {
            let Some((x, y)) = pixel else { continue };
            path.extend(["M", &at(*x), " ", &at(*y), "h.01"]);
            if let PointText::Features(numbers) = &self.text {
                features.extend(numbers.get(place).map(ToString::to_string));
            }
        }
        if path.is_empty() {
            return String::new();
        }
        let attributes = [
            ("class", "cloud"),
            ("data-type", &text(self.group.as_ref())),
            ("data-run", self.run.as_deref().unwrap_or_default()),
            ("data-site", &text(site.as_ref())),
            ("data-name", self.name.as_deref().unwrap_or_default()),
            ("data-features", &features.join(" ")),
            ("d", &path),
            ("fill", "none"),
            ("stroke", self.look.colour),
            ("stroke-width", "4"),
            ("stroke-linecap", "round"),
            ("opacity", &self.opacity()),
        ];
        element("path", &attributes, "")
    }

    /// What stands before its name in a legend.
    pub(super) fn sample(&self, left: f64, middle: f64) -> String {
        let mut body = String::new();
        if matches!(self.draw, Draw::Line | Draw::MarkedLine) {
            let attributes = [
                ("d", polyline(&[(left, middle), (left + 26.0, middle)])),
                ("fill", "none".to_owned()),
                ("stroke", self.look.colour.to_owned()),
                ("stroke-width", "2".to_owned()),
                ("stroke-dasharray", self.look.stroke.dashes().to_owned()),
            ];
            let attributes = attributes.each_ref().map(|(name, value)| (*name, value.as_str()));
            body.push_str(&element("path", &attributes, ""));
        }
        if self.draw != Draw::Line {
            body.push_str(&self.marker((left + 13.0, middle), 5.0));
        }
        body
    }

    fn marker(&self, (x, y): (f64, f64), size: f64) -> String {
        let path = marker(self.look.marker, x, y, size);
        let (fill, stroke, width) = match self.look.marker {
            Marker::Cross => ("none", self.look.colour, "2"),
            _ => (self.look.colour, "", ""),
        };
        let attributes = [
            ("class", "marker"),
            ("d", &path),
            ("fill", fill),
            ("stroke", stroke),
            ("stroke-width", width),
        ];
        element("path", &attributes, "")
    }

    fn opacity(&self) -> String {
        if self.look.opacity < 1.0 { self.look.opacity.to_string() } else { String::new() }
    }
}

/// A value as text; nothing where there is none.
fn text(value: Option<&impl ToString>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

/// A marker's outline around a point; a cross is two strokes.
pub(crate) fn marker(marker: Marker, x: f64, y: f64, size: f64) -> String {
    let [left, right, top, bottom] = [x - size, x + size, y - size, y + size].map(at);
    match marker {
        Marker::Circle => {
            let (y, r, d) = (at(y), at(size), at(2.0 * size));
            format!("M{left} {y}a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0 -{d} 0z")
        }
        Marker::Triangle => format!("M{} {}L{right} {bottom}H{left}z", at(x), at(y - size - 1.0)),
        Marker::Square => format!("M{left} {top}H{right}V{bottom}H{left}z"),
        Marker::Cross => format!("M{left} {top}L{right} {bottom}M{left} {bottom}L{right} {top}"),
    }
}

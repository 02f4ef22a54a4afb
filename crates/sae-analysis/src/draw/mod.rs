//! Figures: what is drawn is data, and drawn once: as SVG, of which the PNG and the page's charts are made.

mod axis;
mod look;
mod outline;
mod panel;
mod series;
mod svg;

use std::sync::{Arc, LazyLock};

use resvg::tiny_skia::{Color, Pixmap, Transform};
use resvg::usvg::{self, fontdb};

pub(crate) use self::axis::Axis;
pub(crate) use self::look::{Look, Looks, Marker, Stroke};
pub(crate) use self::outline::outline;
pub(crate) use self::panel::{Panel, Size};
pub(crate) use self::series::{Draw, PointText, Series, marker};
pub(crate) use self::svg::escape;
use crate::AnalysisError;

/// The most points of a cloud that are drawn: more make a large file and show no more.
pub(crate) const MOST_POINTS: usize = 2000;

/// Rows of panels.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figure {
    pub rows: Vec<Vec<Panel>>,
}

const WIDTH: f64 = 1200.0;
const NARROWEST: f64 = 400.0;
/// Pixels of a PNG for a unit of the drawing.
const SCALE: f32 = 1.5;

impl Figure {
    /// Whether there is anything to see on disk.
    pub fn is_empty(&self) -> bool {
        !self.rows.iter().flatten().any(|panel| panel.on_disk)
    }

    /// As SVG text.
    pub fn svg(&self) -> String {
        let rows: Vec<Vec<&Panel>> = self
            .rows
            .iter()
            .map(|row| row.iter().filter(|panel| panel.on_disk).collect::<Vec<_>>())
            .filter(|row| !row.is_empty())
            .collect();
        let columns = rows.iter().map(Vec::len).max().unwrap_or(1) as f64;
        let width = WIDTH.max(NARROWEST * columns);
        let (mut top, mut body) = (0.0, String::new());
        for row in rows {
            // A row that has fewer panels than others is as wide as they are.
            let each = width / (row.len() as f64).max(columns.min(2.0));
            let height = row.iter().map(|panel| panel.height(each) + 56.0).fold(0.0, f64::max);
            for (place, panel) in row.iter().enumerate() {
                body.push_str(
                    &panel.svg(Size { width: each, height }, Some((place as f64 * each, top))),
                );
            }
            top += height;
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{top}\" viewBox=\"0 0 {width} {top}\">\n\
             <rect width=\"{width}\" height=\"{top}\" fill=\"#ffffff\"/>\n{body}</svg>\n"
        )
    }
}

/// An SVG's text as the bytes of a PNG; `picture` names it in errors.
pub(crate) fn png(picture: &str, svg: &str) -> Result<Vec<u8>, AnalysisError> {
    let failed = |message: String| AnalysisError::Plot { picture: picture.to_owned(), message };
    let options = usvg::Options { fontdb: Arc::clone(&FONTS), ..usvg::Options::default() };
    let tree = usvg::Tree::from_str(svg, &options).map_err(|error| failed(error.to_string()))?;
    let size = tree.size().to_int_size().scale_by(SCALE);
    let size = size.ok_or_else(|| failed("the picture has no size".to_owned()))?;
    let pixmap = Pixmap::new(size.width(), size.height());
    let mut pixmap = pixmap.ok_or_else(|| failed("no memory for its pixels".to_owned()))?;
    pixmap.fill(Color::WHITE);
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixmap.as_mut());
    pixmap.encode_png().map_err(|error| failed(error.to_string()))
}

/// The same letters on every machine, whatever fonts it has.
static FONTS: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| {
    let mut fonts = fontdb::Database::new();
    fonts.load_font_data(include_bytes!("../../assets/DejaVuSans.ttf").to_vec());
    fonts.load_font_data(include_bytes!("../../assets/DejaVuSans-Bold.ttf").to_vec());
    Arc::new(fonts)
});

/// A line through values at `first`, `first + 1`, …; values that are no numbers are left out.
pub(crate) fn over_index(values: &[f64], first: usize) -> Vec<(f64, f64)> {
    let places = values.iter().enumerate().map(|(place, &value)| ((place + first) as f64, value));
    places.filter(|(_, value)| value.is_finite()).collect()
}

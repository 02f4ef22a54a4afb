//! A picture: rows of panels, drawn once as SVG text and once as a PNG file.

use std::path::Path;
use std::sync::Once;

use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use super::panel::{FONT, Panel};
use crate::AnalysisError;

/// Rows of panels of equal size.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figure {
    /// The picture's name, in errors.
    pub name: String,
    pub rows: Vec<Vec<Panel>>,
}

const WIDTH: u32 = 1200;
const SMALLEST: u32 = 400;

impl Figure {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), rows: Vec::new() }
    }

    /// As SVG text.
    pub fn svg(&self) -> Result<String, AnalysisError> {
        let mut text = String::new();
        self.draw(SVGBackend::with_string(&mut text, self.size()))?;
        Ok(text)
    }

    /// As a PNG file.
    pub fn png(&self, path: &Path) -> Result<(), AnalysisError> {
        self.draw(BitMapBackend::new(path, self.size()))
    }

    fn columns(&self) -> u32 {
        self.rows.iter().map(Vec::len).max().unwrap_or(1).max(1) as u32
    }

    /// Panels have the shape of a page's figure, and are never too small to read.
    fn size(&self) -> (u32, u32) {
        let width = WIDTH.max(SMALLEST * self.columns());
        let height = (width / self.columns() * 5 / 6).clamp(360, 500);
        (width, height * self.rows.len().max(1) as u32)
    }

    fn draw<B: DrawingBackend>(&self, backend: B) -> Result<(), AnalysisError> {
        register_fonts();
        let failed = |message: String| AnalysisError::Plot { picture: self.name.clone(), message };
        let root = backend.into_drawing_area();
        root.fill(&WHITE).map_err(|error| failed(error.to_string()))?;
        let rows = root.split_evenly((self.rows.len().max(1), 1));
        for (panels, row) in self.rows.iter().zip(rows) {
            for (panel, area) in panels.iter().zip(row.split_evenly((1, self.columns() as usize))) {
                panel.draw(&area).map_err(|error| failed(error.to_string()))?;
            }
        }
        root.present().map_err(|error| failed(error.to_string()))
    }
}

/// The same letters on every machine, whatever fonts it has.
fn register_fonts() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let regular = include_bytes!("../../assets/DejaVuSans.ttf");
        let bold = include_bytes!("../../assets/DejaVuSans-Bold.ttf");
        // The bundled files are fonts; a failure would show as a missing-font error in the first text drawn.
        let _ = register_font(FONT, FontStyle::Normal, regular);
        let _ = register_font(FONT, FontStyle::Bold, bold);
    });
}

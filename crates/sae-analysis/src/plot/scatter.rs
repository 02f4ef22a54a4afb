//! Clouds of points.

use super::{Draw, Series};
use crate::style::Look;
use crate::thin::thin;

/// The most points of a cloud that are drawn: more make a large file and show no more.
pub(crate) const MOST: usize = 2000;

/// A cloud of small markers. Of more than [`MOST`] points, so many are drawn, evenly spaced in their order.
pub(crate) fn cloud(name: impl Into<String>, look: Look, points: &[(f64, f64)]) -> Series {
    Series::new(name, look.faint(0.5), Draw::Dots, thin(points, MOST))
}

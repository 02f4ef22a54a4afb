//! Lines over positions, which count from 0, and over directions, which count from 1.

use super::{Draw, Series};
use crate::style::Look;

/// A line through values at 0, 1, 2, …; values that are no numbers are left out.
pub(crate) fn over_index(name: impl Into<String>, look: Look, values: &[f64]) -> Series {
    Series::new(name, look, Draw::Line, numbered(values, 0))
}

/// A line through values at 1, 2, 3, …, with a marker at each.
pub(crate) fn marked(name: impl Into<String>, look: Look, values: &[f64]) -> Series {
    Series::new(name, look, Draw::MarkedLine, numbered(values, 1))
}

fn numbered(values: &[f64], first: usize) -> Vec<(f64, f64)> {
    let places = values.iter().enumerate().map(|(place, &value)| ((place + first) as f64, value));
    places.filter(|(_, value)| value.is_finite()).collect()
}

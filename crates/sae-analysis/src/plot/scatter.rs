//! Clouds of points.

use super::{Draw, Series};
use crate::style::Look;

/// The most points of a cloud that are drawn: more make a large file and show no more.
pub(crate) const MOST: usize = 2000;

/// A cloud of small markers. Of more than [`MOST`] points, so many are drawn, evenly spaced in their order.
pub(crate) fn cloud(name: impl Into<String>, look: Look, points: &[(f64, f64)]) -> Series {
    Series::new(name, look.faint(0.5), Draw::Dots, thin(points, MOST))
}

/// At most `most` of the values, evenly spaced.
pub(crate) fn thin<T: Copy>(values: &[T], most: usize) -> Vec<T> {
    if values.len() <= most {
        return values.to_vec();
    }
    (0..most).map(|i| values[i * values.len() / most]).collect()
}

#[cfg(test)]
mod tests {
    use super::thin;

    #[test]
    fn thinned_values_are_spread_over_all() {
        assert_eq!(thin(&[1, 2, 3], 3), [1, 2, 3]);
        let many: Vec<usize> = (0..100).collect();
        assert_eq!(thin(&many, 4), [0, 25, 50, 75]);
    }
}

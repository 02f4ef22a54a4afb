//! Histograms as outlines, several on one pair of axes.

use super::{Draw, Look, Series};
use crate::histogram::Histogram;

/// The outline of a histogram as shares of all values that it counted, those outside its edges too.
pub(crate) fn outline(name: impl Into<String>, look: Look, histogram: &Histogram) -> Series {
    let total = histogram.total().max(1) as f64;
    let mut points = Vec::with_capacity(2 * histogram.counts.len() + 2);
    if let Some(&first) = histogram.edges.first() {
        points.push((first, 0.0));
    }
    for (edges, &count) in histogram.edges.windows(2).zip(&histogram.counts) {
        let share = count as f64 / total;
        points.extend([(edges[0], share), (edges[1], share)]);
    }
    if let Some(&last) = histogram.edges.last() {
        points.push((last, 0.0));
    }
    Series::new(name, look, Draw::Line, trim(&points))
}

/// The points without the zeros at both ends, but for the last of each.
fn trim(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let first = points.iter().position(|point| point.1 > 0.0);
    let last = points.iter().rposition(|point| point.1 > 0.0);
    let (Some(first), Some(last)) = (first, last) else { return Vec::new() };
    points[first.saturating_sub(1)..(last + 2).min(points.len())].to_vec()
}

#[cfg(test)]
mod tests {
    use super::outline;
    use crate::draw::Look;
    use crate::histogram::{Histogram, even_edges};

    #[test]
    fn outlines_are_shares_of_all_values() {
        let values = [0.3, 0.3, 0.6, 9.0];
        let histogram = Histogram::of(values, even_edges(0.0, 1.0, 4)).unwrap();
        let found = outline("a", Look::neutral(), &histogram);
        let expected =
            [(0.25, 0.0), (0.25, 0.5), (0.5, 0.5), (0.5, 0.25), (0.75, 0.25), (0.75, 0.0)];
        assert_eq!(found.points, expected);
        let none = Histogram::of([], even_edges(0.0, 1.0, 4)).unwrap();
        assert!(outline("b", Look::neutral(), &none).points.is_empty());
    }
}

//! Pareto frontiers and their comparison: the summary that stands under the paper's main figure.

mod figure;
mod show;
mod table;

use std::collections::BTreeSet;

use sae_config::Site;
use serde::{Deserialize, Serialize};

pub(crate) use self::table::{cells, columns, further, points as all_points, terminal};
use crate::runs::facets::{self, Facets};
use crate::runs::{Group, Objective, Point};

/// `frontier.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Frontier {
    /// A point a run and site.
    pub points: Vec<Point>,
    /// Each group against `local` or what stands in for it, by site and by the values of `facets`.
    pub summary: Vec<Comparison>,
    /// The keys of the configuration whose values have frontiers of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub facets: Vec<String>,
}

/// The runs that share axes: those at a site, with the same values of the facets. A group has one frontier in each subset.
#[derive(Debug, Clone, PartialEq)]
pub struct Subset {
    /// The site.
    pub site: Site,
    /// The values of the frontier's facets.
    pub facets: Facets,
}

/// A group against `local` at a site, or against what stands in for it. Ratios are group ÷ base: below 1, the group needs
/// less.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The site.
    pub site: Site,
    /// The group that is compared.
    #[serde(rename = "type")]
    pub group: Group,
    /// The group that it is divided by.
    #[serde(default = "local", skip_serializing_if = "is_local")]
    pub base: Group,
    /// L0 at equal CE increase.
    pub l0_at_equal_ce: Ratio,
    /// CE increase at equal L0 (the reference's `calc_summary_metric`).
    pub ce_at_equal_l0: Ratio,
    /// CE increase at equal alive features (likewise).
    pub ce_at_equal_alive: Ratio,
    /// The values of the frontier's facets.
    #[serde(default, skip_serializing_if = "Facets::is_empty")]
    pub facets: Facets,
}

fn local() -> Group {
    Group::LOCAL
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
fn is_local(base: &Group) -> bool {
    *base == Group::LOCAL
}

/// A mean ratio of two curves at [`PLACES`] even places of the range that both cover.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The mean; none where the curves share no range.
    pub mean: Option<f64>,
    /// The shared range.
    pub range: Option<[f64; 2]>,
    /// The least and the greatest of the ratios that it is the mean of.
    #[serde(default)]
    pub spread: Option<[f64; 2]>,
}

/// Places at which two curves are compared, as in the reference.
pub const PLACES: usize = 20;

/// The Pareto-optimal points of a group, joined by straight lines: x rises, y falls.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// The points.
    pub points: Vec<(f64, f64)>,
}

/// The points that no other one beats in x without being worse in y; less is better in both.
pub fn pareto(points: &[(f64, f64)]) -> Curve {
    let mut sorted: Vec<(f64, f64)> =
        points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut best = f64::INFINITY;
    sorted.retain(|&(_, y)| {
        let better = y < best;
        best = best.min(y);
        better
    });
    Curve { points: sorted }
}

impl Curve {
    /// y at x by linear interpolation; `None` outside the curve.
    pub fn at(&self, x: f64) -> Option<f64> {
        let after = self.points.iter().position(|&(at, _)| at >= x)?;
        let (x1, y1) = self.points[after];
        if after == 0 {
            return (x1 <= x).then_some(y1);
        }
        let (x0, y0) = self.points[after - 1];
        Some(y0 + (y1 - y0) * (x - x0) / (x1 - x0))
    }

    /// The same curve with x and y exchanged.
    #[must_use]
    pub fn inverse(&self) -> Self {
        Self { points: self.points.iter().rev().map(|&(x, y)| (y, x)).collect() }
    }

    /// The range of x, where it is one.
    fn range(&self) -> Option<(f64, f64)> {
        let (first, last) = (self.points.first()?.0, self.points.last()?.0);
        (first < last).then_some((first, last))
    }
}

/// The mean of `curve / base` over the range of x that both cover; none where either is not above 0 in all of it.
pub fn ratio(curve: &Curve, base: &Curve) -> Ratio {
    let shared = || {
        let ((a, b), (c, d)) = (curve.range()?, base.range()?);
        let (low, high) = (a.max(c), b.min(d));
        (low < high).then_some((low, high))
    };
    let Some((low, high)) = shared() else { return Ratio::default() };
    let ratios: Vec<f64> = (0..PLACES)
        .filter_map(|place| {
            let x = low + (high - low) * place as f64 / (PLACES - 1) as f64;
            // Rounding may put the last place a hair outside.
            let x = x.clamp(low, high);
            let (own, base) = (curve.at(x)?, base.at(x)?);
            Some(if own > 0.0 && base > 0.0 { own / base } else { f64::NAN })
        })
        .collect();
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    let spread = [f64::INFINITY, f64::NEG_INFINITY];
    let spread =
        ratios.iter().fold(spread, |[low, high], ratio| [low.min(*ratio), high.max(*ratio)]);
    Ratio {
        mean: mean.is_finite().then_some(mean),
        range: Some([low, high]),
        spread: mean.is_finite().then_some(spread),
    }
}

/// The group that others are compared with: `local`, or where there is none the first that reconstructs locally.
pub(crate) fn base<'a>(groups: impl IntoIterator<Item = &'a Group>) -> Option<&'a Group> {
    groups.into_iter().filter(|group| group.objective == Objective::Local).min()
}

impl Frontier {
    /// The frontiers of these points, and each group's comparison with one that reconstructs locally.
    pub fn of(points: &[Point]) -> Self {
        Self::by(points, &[])
    }

    /// The same, split by the values that the points have of the keys in `facets`.
    pub fn by(points: &[Point], facets: &[String]) -> Self {
        let frontier =
            Self { points: points.to_vec(), summary: Vec::new(), facets: facets.to_vec() };
        let groups = frontier.groups();
        let mut summary = Vec::new();
        for subset in frontier.subsets() {
            let is_there = |group: &&Group| frontier.points_of(&subset, group).next().is_some();
            let Some(base) = base(groups.iter().filter(is_there)) else { continue };
            for group in groups.iter().filter(is_there).filter(|group| *group != base) {
                let l0 = |group| frontier.curve(&subset, group, |point| point.l0);
                let alive = |group| frontier.curve(&subset, group, |point| point.alive as f64);
                let (own, base_l0) = (l0(group), l0(base));
                summary.push(Comparison {
                    site: subset.site,
                    group: group.clone(),
                    base: base.clone(),
                    l0_at_equal_ce: ratio(&own.inverse(), &base_l0.inverse()),
                    ce_at_equal_l0: ratio(&own, &base_l0),
                    ce_at_equal_alive: ratio(&alive(group), &alive(base)),
                    facets: subset.facets.clone(),
                });
            }
        }
        Self { summary, ..frontier }
    }

    /// The subsets: every site, and there every combination of the facets' values that has a point.
    pub fn subsets(&self) -> Vec<Subset> {
        let mut subsets: Vec<Subset> = Vec::new();
        for point in &self.points {
            let subset = self.subset_of(point);
            if !subsets.contains(&subset) {
                subsets.push(subset);
            }
        }
        subsets.sort_by(|a, b| a.site.cmp(&b.site).then(facets::compare(&a.facets, &b.facets)));
        subsets
    }

    fn subset_of(&self, point: &Point) -> Subset {
        Subset { site: point.site, facets: facets::select(&point.facets, &self.facets) }
    }

    /// The points of a group in a subset.
    pub fn points_of<'a>(
        &'a self,
        subset: &'a Subset,
        group: &'a Group,
    ) -> impl Iterator<Item = &'a Point> {
        let of_group = self.points.iter().filter(move |point| point.group == *group);
        of_group.filter(move |point| self.subset_of(point) == *subset)
    }

    /// The Pareto curve of CE increase against `x` of a group in a subset.
    pub fn curve(&self, subset: &Subset, group: &Group, x: impl Fn(&Point) -> f64) -> Curve {
        let points: Vec<(f64, f64)> =
            self.points_of(subset, group).map(|point| (x(point), point.ce_increase)).collect();
        pareto(&points)
    }

    /// The sites, in the order of computation.
    pub fn sites(&self) -> BTreeSet<Site> {
        self.points.iter().map(|point| point.site).collect()
    }

    /// The groups that there are points of.
    pub fn groups(&self) -> BTreeSet<Group> {
        self.points.iter().map(|point| point.group.clone()).collect()
    }

    /// The smallest share of a dictionary that is alive, of all points in a subset. Near 1, a frontier against alive
    /// features is flat, and says nothing.
    pub(crate) fn least_alive(&self, subset: &Subset) -> Option<f64> {
        let own = self.points.iter().filter(|point| self.subset_of(point) == *subset);
        own.map(|point| point.alive as f64 / point.n_features.max(1) as f64).reduce(f64::min)
    }
}

/// The share of a dictionary above which all of it counts as alive.
pub(crate) const ALL_ALIVE: f64 = 0.98;

impl Subset {
    /// In words, as a title.
    pub(crate) fn describe(&self) -> String {
        if self.facets.is_empty() {
            self.site.to_string()
        } else {
            format!("{}, {}", self.site, facets::describe(&self.facets))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Curve, pareto, ratio};

    #[test]
    fn ratios_are_of_positive_numbers() {
        let (own, base) =
            (pareto(&[(10.0, 0.5), (20.0, 0.1)]), pareto(&[(10.0, 0.3), (20.0, -0.1)]));
        let found = ratio(&own, &base);
        assert_eq!((found.mean, found.range, found.spread), (None, Some([10.0, 20.0]), None));
        assert!(ratio(&own, &own).mean.is_some());
    }

    #[test]
    fn dominated_points_go() {
        let curve =
            pareto(&[(3.0, 1.0), (1.0, 4.0), (2.0, 4.0), (2.5, 5.0), (1.0, 3.5), (f64::NAN, 0.0)]);
        assert_eq!(curve.points, [(1.0, 3.5), (3.0, 1.0)]);
    }

    #[test]
    fn interpolation_is_linear_and_stays_inside() {
        let curve = Curve { points: vec![(1.0, 4.0), (3.0, 2.0), (4.0, 0.0)] };
        assert_eq!(curve.at(2.0), Some(3.0));
        assert_eq!(curve.at(3.5), Some(1.0));
        assert_eq!((curve.at(1.0), curve.at(4.0)), (Some(4.0), Some(0.0)));
        assert_eq!((curve.at(0.9), curve.at(4.1)), (None, None));
        assert_eq!(curve.inverse().at(3.0), Some(2.0));
    }

    #[test]
    fn ratios_by_hand() {
        // Half of the other everywhere: y = 4 − x over [1, 3] against y = 8 − 2x over [0, 2]; shared [1, 2].
        let curve = Curve { points: vec![(1.0, 3.0), (3.0, 1.0)] };
        let base = Curve { points: vec![(0.0, 8.0), (2.0, 4.0)] };
        let found = ratio(&curve, &base);
        assert_eq!(found.range, Some([1.0, 2.0]));
        assert!((found.mean.unwrap() - 0.5).abs() < 1e-12);
        // The mean of x / 2 at 20 even places of [1, 3] is 1.
        let curve = Curve { points: vec![(1.0, 1.0), (3.0, 3.0)] };
        let base = Curve { points: vec![(1.0, 2.0), (3.0, 2.0)] };
        let found = ratio(&curve, &base);
        assert!((found.mean.unwrap() - 1.0).abs() < 1e-12);
        // From 1/2 to 3/2.
        let [low, high] = found.spread.unwrap();
        assert!((low - 0.5).abs() < 1e-12 && (high - 1.5).abs() < 1e-12);
    }

    #[test]
    fn curves_that_share_no_range_have_no_ratio() {
        let curve = |points: &[(f64, f64)]| Curve { points: points.to_vec() };
        let apart = ratio(&curve(&[(0.0, 2.0), (1.0, 1.0)]), &curve(&[(2.0, 2.0), (3.0, 1.0)]));
        assert_eq!((apart.mean, apart.range), (None, None));
        let single = ratio(&curve(&[(0.5, 2.0)]), &curve(&[(0.0, 2.0), (1.0, 1.0)]));
        assert_eq!(single.mean, None);
    }
}

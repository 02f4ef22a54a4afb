//! The runs that are looked at closely at a site: matched ones; where there is no match, one of each type.

use std::collections::BTreeSet;

use sae_config::Site;

use crate::matching::{MatchBy, matches};
use crate::{Point, SaeType};

/// A site's runs, one a type.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub site: Site,
    pub points: Vec<Point>,
    /// Whether they are matched.
    pub matched: bool,
}

impl Chosen {
    /// What a reader of pictures has to know of them.
    pub fn note(&self) -> Option<String> {
        if self.matched {
            return None;
        }
        let runs: Vec<&str> = self.points.iter().map(|point| point.run.as_str()).collect();
        Some(format!(
            "At {} no runs are matched; shown of each type is the run of median CE increase: {}.",
            self.site,
            runs.join(", ")
        ))
    }
}

/// The match at a site, or the run of median CE increase of each type that has a finite one.
pub(crate) fn at(points: &[Point], site: Site, by: MatchBy) -> Chosen {
    if let Some(found) = matches(points, by).into_iter().find(|found| found.site == site) {
        return Chosen { site, points: found.points, matched: true };
    }
    let types: BTreeSet<SaeType> = points.iter().map(|point| point.variant).collect();
    let points = types.into_iter().filter_map(|variant| median(points, site, variant)).collect();
    Chosen { site, points, matched: false }
}

fn median(points: &[Point], site: Site, variant: SaeType) -> Option<Point> {
    let mut own: Vec<&Point> =
        points.iter().filter(|point| point.site == site && point.variant == variant).collect();
    // Those without a number come last, and stand only where there is no other.
    own.sort_by(|a, b| {
        (a.ce_increase.is_nan(), a.ce_increase)
            .partial_cmp(&(b.ce_increase.is_nan(), b.ce_increase))
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    let numbers = own.iter().filter(|point| !point.ce_increase.is_nan()).count();
    own.get(numbers.saturating_sub(1) / 2).map(|point| (*point).clone())
}

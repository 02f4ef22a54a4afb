//! The runs that are looked at closely at a site: matched ones; where there is no match, one of each group.

use std::collections::BTreeSet;

use sae_config::Site;

use super::{Match, MatchBy};
use crate::runs::{Group, Point};

/// A site's runs, one a group.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub site: Site,
    pub points: Vec<Point>,
    /// Whether they are matched.
    matched: bool,
}

impl Chosen {
    /// The match at a site, or the run of median CE increase of each group that has a finite one.
    pub fn at(points: &[Point], matches: &[Match], site: Site, by: MatchBy) -> Self {
        if let Some(found) = matches.iter().find(|found| found.site == site && found.by == by) {
            return Self { site, points: found.points.clone(), matched: true };
        }
        let groups: BTreeSet<&Group> = points.iter().map(|point| &point.group).collect();
        let points = groups.into_iter().filter_map(|group| median(points, site, group)).collect();
        Self { site, points, matched: false }
    }

    /// What a reader of figures has to know of them.
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

fn median(points: &[Point], site: Site, group: &Group) -> Option<Point> {
    let mut own: Vec<&Point> =
        points.iter().filter(|point| point.site == site && point.group == *group).collect();
    // Those without a number come last, and stand only where there is no other.
    own.sort_by(|a, b| {
        (a.ce_increase.is_nan(), a.ce_increase)
            .partial_cmp(&(b.ce_increase.is_nan(), b.ce_increase))
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    let numbers = own.iter().filter(|point| !point.ce_increase.is_nan()).count();
    own.get(numbers.saturating_sub(1) / 2).map(|point| (*point).clone())
}

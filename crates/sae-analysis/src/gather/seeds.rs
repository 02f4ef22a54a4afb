//! Runs that differ in nothing but the seed of the initialisation (`sae.seed`), side by side.

use std::collections::{BTreeMap, BTreeSet};

use sae_config::Site;

use crate::evidence::Seeds;
use crate::facets::Facets;
use crate::{Point, SweepRuns};

/// A metric's name and its value at a point.
type Metric = (&'static str, fn(&Point) -> f64);

/// The metrics that are set side by side.
const METRICS: [Metric; 6] = [
    ("l0", |point| point.l0),
    ("alive", |point| point.alive as f64),
    ("ce_increase", |point| point.ce_increase),
    ("kl", |point| point.kl),
    ("explained_variance", |point| point.explained_variance),
    ("mse", |point| point.mse),
];

const SEED: &str = "sae.seed";

/// All groups of two or more seeds, by site, in the order of the sweep. A metric that one of the runs has no finite value
/// of is left out of its group.
pub(super) fn side_by_side(runs: &SweepRuns) -> Vec<Seeds> {
    let sites: BTreeSet<Site> = runs.points.iter().map(|point| point.site).collect();
    let mut found = Vec::new();
    for site in sites {
        for group in groups(runs, site).into_iter().filter(|group| group.len() > 1) {
            let metrics: BTreeMap<String, Vec<f64>> = METRICS
                .into_iter()
                .map(|(name, of)| (name.to_owned(), group.iter().map(|point| of(point)).collect()))
                .filter(|(_, values): &(_, Vec<f64>)| values.iter().all(|value| value.is_finite()))
                .collect();
            found.push(Seeds {
                variant: group[0].variant,
                site,
                coeff: group[0].coeff,
                runs: group.iter().map(|point| (point.seed, point.run.clone())).collect(),
                metrics,
            });
        }
    }
    found
}

fn groups(runs: &SweepRuns, site: Site) -> Vec<Vec<&Point>> {
    let mut groups: Vec<(Facets, Vec<&Point>)> = Vec::new();
    for point in runs.points.iter().filter(|point| point.site == site) {
        let Some(run) = runs.run(&point.run) else { continue };
        let mut rest = run.facets.clone();
        rest.remove(SEED);
        match groups.iter_mut().find(|(facets, _)| *facets == rest) {
            Some((_, group)) => group.push(point),
            None => groups.push((rest, vec![point])),
        }
    }
    let mut groups: Vec<Vec<&Point>> = groups.into_iter().map(|(_, group)| group).collect();
    for group in &mut groups {
        group.sort_by_key(|point| point.seed);
    }
    groups
}

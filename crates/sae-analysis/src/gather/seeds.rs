//! Runs that differ in nothing but the seed of the initialisation (`sae.seed`), side by side.

use std::collections::{BTreeMap, BTreeSet};

use sae_config::Site;

use crate::evidence::Seeds;
use crate::facets::{Facets, differing};
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
const COEFFICIENT: &str = "loss.sparsity.coeff";

/// All groups of two or more seeds, by site, in the order of the sweep. A metric that one of the runs has no finite value
/// of is left out of its group.
pub(super) fn side_by_side(runs: &SweepRuns) -> Vec<Seeds> {
    let sites: BTreeSet<Site> = runs.points.iter().map(|point| point.site).collect();
    let mut found = Vec::new();
    for site in sites {
        for (facets, group) in groups(runs, site).into_iter().filter(|(_, own)| own.len() > 1) {
            let metrics: BTreeMap<String, Vec<f64>> = METRICS
                .into_iter()
                .map(|(name, of)| (name.to_owned(), group.iter().map(|point| of(point)).collect()))
                .filter(|(_, values): &(_, Vec<f64>)| values.iter().all(|value| value.is_finite()))
                .collect();
            found.push(Seeds {
                variant: group[0].variant,
                site,
                coeff: group[0].coeff,
                facets,
                runs: group.iter().map(|point| (point.seed, point.run.clone())).collect(),
                metrics,
            });
        }
    }
    let keys = |seeds: &Seeds| telling(&found, seeds);
    let keys: Vec<BTreeSet<String>> = found.iter().map(keys).collect();
    for (seeds, keys) in found.iter_mut().zip(keys) {
        seeds.facets.retain(|key, _| keys.contains(key));
    }
    found
}

/// The keys in which the groups of a type at a site differ.
fn telling(all: &[Seeds], own: &Seeds) -> BTreeSet<String> {
    let alike = all.iter().filter(|other| (other.site, other.variant) == (own.site, own.variant));
    let facets: Vec<Facets> = alike.map(|other| other.facets.clone()).collect();
    differing(&facets)
}

fn groups(runs: &SweepRuns, site: Site) -> Vec<(Facets, Vec<&Point>)> {
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
    for (facets, group) in &mut groups {
        facets.remove(COEFFICIENT);
        group.sort_by_key(|point| point.seed);
    }
    groups
}

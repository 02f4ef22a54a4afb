//! Runs that differ in nothing but seeds, of the initialisation (`sae.seed`) or of the order of the data (`data.seed`),
//! side by side. The reference has one seed for both, and so have sweeps that are imported from it.

mod figure;
mod show;

use std::collections::{BTreeMap, BTreeSet};

use sae_config::Site;
use serde::{Deserialize, Serialize};

use crate::runs::facets::{Facets, differing};
use crate::runs::{Group, Point, SweepRuns};

/// Runs that differ in nothing but their seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seeds {
    /// Their group.
    #[serde(rename = "type")]
    pub group: Group,
    /// The site.
    pub site: Site,
    /// The sparsity coefficient.
    pub coeff: f64,
    /// What sets the number of active features: the k of an architecture that keeps k features, or the coefficient.
    #[serde(default)]
    pub strength: f64,
    /// What else tells these runs from others of the group at the site, by key.
    pub facets: BTreeMap<String, String>,
    /// The seeds that differ: `sae.seed` of the initialisation, `data.seed` of the order of the data, or both.
    pub differ_in: Vec<String>,
    /// The seeds (of the initialisation, unless that of the data differs alone), and the runs' ids.
    pub runs: Vec<(u64, String)>,
    /// By name of the metric: every seed's value, in the order of the runs.
    pub metrics: BTreeMap<String, Vec<f64>>,
}

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

const SEEDS: [&str; 2] = ["sae.seed", "data.seed"];
const COEFFICIENT: &str = "loss.sparsity.coeff";

/// All groups of two or more seeds, by site, in the order of the sweep. A metric that one of the runs has no finite value
/// of is left out of its group.
pub(crate) fn side_by_side(runs: &SweepRuns) -> Vec<Seeds> {
    let sites: BTreeSet<Site> = runs.points.iter().map(|point| point.site).collect();
    let mut found = Vec::new();
    for site in sites {
        for (facets, group) in groups(runs, site).into_iter().filter(|(_, own)| own.len() > 1) {
            let metrics: BTreeMap<String, Vec<f64>> = METRICS
                .into_iter()
                .map(|(name, of)| (name.to_owned(), group.iter().map(|point| of(point)).collect()))
                .filter(|(_, values): &(_, Vec<f64>)| values.iter().all(|value| value.is_finite()))
                .collect();
            let seeds: Vec<[u64; 2]> = group.iter().map(|point| seeds_of(runs, point)).collect();
            let differs = |place: usize| seeds.iter().any(|own| own[place] != seeds[0][place]);
            let differ_in: Vec<usize> = (0..SEEDS.len()).filter(|&place| differs(place)).collect();
            let shown = differ_in.first().copied().unwrap_or_default();
            found.push(Seeds {
                group: group[0].group.clone(),
                site,
                coeff: group[0].coeff,
                strength: group[0].strength(),
                facets,
                differ_in: differ_in.iter().map(|&place| SEEDS[place].to_owned()).collect(),
                runs: group
                    .iter()
                    .zip(&seeds)
                    .map(|(point, seeds)| (seeds[shown], point.run.clone()))
                    .collect(),
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

/// The keys in which the runs of a group at a site differ.
fn telling(all: &[Seeds], own: &Seeds) -> BTreeSet<String> {
    let alike = all.iter().filter(|other| (other.site, &other.group) == (own.site, &own.group));
    let facets: Vec<&Facets> = alike.map(|other| &other.facets).collect();
    differing(&facets)
}

fn groups(runs: &SweepRuns, site: Site) -> Vec<(Facets, Vec<&Point>)> {
    let mut groups: Vec<(Facets, Vec<&Point>)> = Vec::new();
    for point in runs.points.iter().filter(|point| point.site == site) {
        let Some(run) = runs.run(&point.run) else { continue };
        let mut rest = run.facets.clone();
        rest.retain(|key, _| !SEEDS.contains(&key.as_str()));
        match groups.iter_mut().find(|(facets, _)| *facets == rest) {
            Some((_, group)) => group.push(point),
            None => groups.push((rest, vec![point])),
        }
    }
    for (facets, group) in &mut groups {
        facets.remove(COEFFICIENT);
        group.sort_by_key(|point| seeds_of(runs, point));
    }
    groups
}

/// The values of [`SEEDS`].
fn seeds_of(runs: &SweepRuns, point: &Point) -> [u64; 2] {
    runs.run(&point.run).map_or([point.seed, 0], |run| [run.config.sae.seed, run.config.data.seed])
}

//! How close the directions of dictionary elements are to each other: the largest cosine of each element, within its
//! dictionary and to another one.
//!
//! Every run's dictionary is read. Of most, only the largest cosine of each element is kept in memory.

mod figure;
mod show;
pub mod similarity;

use std::collections::BTreeMap;

use sae_config::Site;
use serde::{Deserialize, Serialize};

use self::similarity::{SimilaritySummary, across, summarise, within};
use crate::AnalysisError;
use crate::bootstrap::{self, Estimate};
use crate::dictionary::Dictionary;
use crate::histogram::even_edges;
use crate::matching::MatchBy;
use crate::runs::{Group, Point};
use crate::study::{Pair, Study};

/// Bins of the largest cosines.
const BINS: usize = 100;

/// Similarities of dictionary elements.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Geometry {
    /// Each alive element to its nearest neighbour in its own dictionary, every run and site.
    pub within: Vec<Within>,
    /// Differences of the means of `within` between groups, for matched runs.
    pub differences: Vec<Difference>,
    /// Each alive element to its nearest in another dictionary: matched runs of two groups, runs of two seeds.
    pub across: Vec<AcrossRuns>,
}

/// Within a dictionary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Within {
    /// The run's id.
    pub run: String,
    /// Its group.
    #[serde(rename = "type")]
    pub group: Group,
    /// The site.
    pub site: Site,
    /// Alive elements.
    pub alive: usize,
    /// Histogram of the largest cosines.
    pub cosines: SimilaritySummary,
    /// Their mean with its interval.
    pub mean: Estimate,
}

/// The mean of one run less that of another, both matched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The site.
    pub site: Site,
    /// What they are matched in: `ce`, `l0` or `alive`.
    pub by: MatchBy,
    /// The first group.
    pub of: Group,
    /// The group that is taken away.
    pub less: Group,
    /// The difference with its interval.
    pub estimate: Estimate,
}

/// From one dictionary to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AcrossRuns {
    /// The site.
    pub site: Site,
    /// The run whose elements look for a neighbour.
    pub from: String,
    /// The run in which they do.
    pub to: String,
    /// Why these two: `types` or `seeds`.
    pub what: AcrossWhat,
    /// Histogram of the largest cosines.
    pub cosines: SimilaritySummary,
}

/// Why two runs' dictionaries are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AcrossWhat {
    /// Matched runs of two groups.
    Types,
    /// Runs that differ in the seed alone.
    Seeds,
}

fn find(study: &mut Study<'_>) -> Result<Geometry, AnalysisError> {
    let mut geometry = Geometry::default();
    for site in study.sites.clone() {
        let runs = study.runs;
        let mut cosines: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for point in runs.points.iter().filter(|point| point.site == site) {
            study.step(&point.run);
            let Some(dictionary) = study.dictionary(point) else { continue };
            if let Some((found, values)) = within_run(point, &dictionary, study)? {
                geometry.within.push(found);
                cosines.insert(&point.run, values);
            }
        }
        geometry.differences.extend(differences(study, site, &cosines)?);
        let pairs: Vec<Pair> =
            study.pairs.iter().filter(|pair| pair.site == site).cloned().collect();
        for pair in pairs {
            study.step(&format!("{} and {}", pair.a.run, pair.b.run));
            geometry.across.extend(compare(&pair, study)?);
        }
    }
    Ok(geometry)
}

fn edges() -> Vec<f64> {
    even_edges(-1.0, 1.0, BINS)
}

fn within_run(
    point: &Point,
    dictionary: &Dictionary,
    study: &mut Study<'_>,
) -> Result<Option<(Within, Vec<f64>)>, AnalysisError> {
    let alive = dictionary.rows.rows();
    if alive < 2 {
        study.notes.add(format!(
            "{} has {alive} alive features at {}: no cosines within its dictionary.",
            point.run, point.site
        ));
        return Ok(None);
    }
    let largest = within(&dictionary.rows)?;
    let values: Vec<f64> = largest.iter().copied().map(f64::from).collect();
    let found = Within {
        run: point.run.clone(),
        group: point.group.clone(),
        site: point.site,
        alive,
        cosines: summarise(&largest, edges())?,
        mean: bootstrap::mean(&values, study.options.bootstrap)?,
    };
    Ok(Some((found, values)))
}

/// The differences between the groups of every match at the site: between every two of few groups, to the first of many.
fn differences(
    study: &Study<'_>,
    site: Site,
    cosines: &BTreeMap<&str, Vec<f64>>,
) -> Result<Vec<Difference>, AnalysisError> {
    let mut differences = Vec::new();
    for found in study.matches.iter().filter(|found| found.site == site) {
        for (less, of) in crate::study::pairs_of(&found.points) {
            let (Some(a), Some(b)) = (cosines.get(&*of.run), cosines.get(&*less.run)) else {
                continue;
            };
            differences.push(Difference {
                site,
                by: found.by,
                of: of.group.clone(),
                less: less.group.clone(),
                estimate: bootstrap::difference_of_means(a, b, study.options.bootstrap)?,
            });
        }
    }
    Ok(differences)
}

/// Cosines across two dictionaries, in both directions.
fn compare(pair: &Pair, study: &mut Study<'_>) -> Result<Vec<AcrossRuns>, AnalysisError> {
    let Pair { site, a, b, are_seeds } = pair;
    let Some([of_a, of_b]) = study.dictionaries(pair) else { return Ok(Vec::new()) };
    let found = match across(&of_a.rows, &of_b.rows) {
        Ok(found) => found,
        Err(error) => {
            study
                .notes
                .add(format!("{} and {} at {site} are not compared: {error}.", a.run, b.run));
            return Ok(Vec::new());
        }
    };
    let what = if *are_seeds { AcrossWhat::Seeds } else { AcrossWhat::Types };
    [(a, b, &found.a_to_b), (b, a, &found.b_to_a)]
        .into_iter()
        .map(|(from, to, cosines)| {
            Ok(AcrossRuns {
                site: *site,
                from: from.run.clone(),
                to: to.run.clone(),
                what,
                cosines: summarise(cosines, edges())?,
            })
        })
        .collect()
}

//! What is found in the dictionaries at a site: cosines within and across, embeddings, features.
//!
//! Every run's dictionary is read once. Kept in memory are those of the chosen runs and of the runs that differ from
//! them in the seed alone; of the others only the largest cosine of each element.

use std::collections::BTreeMap;

use super::{Chosen, Notes, Progress};
use crate::dictionary::Dictionary;
use crate::embedding::embed;
use crate::evidence::{
    AcrossRuns, AcrossWhat, Difference, Evidence, PairEmbedding, RunFeatures, Within,
};
use crate::features::{FeatureStatistics, ULTRA_DENSE, log10_frequency_edges};
use crate::histogram::even_edges;
use crate::matrix::Matrix;
use crate::options::AnalysisOptions;
use crate::similarity::{across, summarise, within};
use crate::thin::thin;
use crate::{AnalysisError, Point, SweepRuns, bootstrap};

/// Bins of the largest cosines.
const BINS: usize = 100;

/// The most features of a run that the evidence holds for scatter plots; evenly spaced where there are more.
const SCATTER: usize = 5000;

/// Adds to the evidence what is found at the site of the chosen runs.
pub(super) fn study(
    runs: &SweepRuns,
    chosen: &Chosen,
    options: &AnalysisOptions,
    evidence: &mut Evidence,
    notes: &mut Notes,
    progress: &mut Progress<'_>,
) -> Result<(), AnalysisError> {
    let pairs = pairs(chosen, evidence);
    let kept = |run: &str| {
        chosen.points.iter().any(|point| point.run == run)
            || pairs.iter().any(|pair| pair.a.run == run || pair.b.run == run)
    };
    let mut cosines: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut shelf: BTreeMap<&str, Kept> = BTreeMap::new();
    let points: Vec<&Point> =
        runs.points.iter().filter(|point| point.site == chosen.site).collect();
    for &point in &points {
        progress.step(&point.run);
        let Some(dictionary) = load(runs, point, notes) else { continue };
        if chosen.points.iter().any(|other| other.run == point.run) {
            evidence.features.push(features(point, &dictionary, notes)?);
        }
        if let Some((found, values)) = within_run(point, &dictionary, options, notes)? {
            evidence.geometry.within.push(found);
            cosines.insert(&point.run, values);
        }
        if kept(&point.run) && dictionary.rows.rows() > 0 {
            shelf.insert(&point.run, Kept { features: dictionary.alive, rows: dictionary.rows });
        }
    }
    evidence.features.sort_by_key(|features| (features.site, features.variant));
    differences(chosen, &cosines, options, evidence)?;
    for pair in pairs {
        progress.step(&format!("{} and {}", pair.a.run, pair.b.run));
        let (Some(of_a), Some(of_b)) = (shelf.get(&*pair.a.run), shelf.get(&*pair.b.run)) else {
            continue;
        };
        compare(&pair, [of_a, of_b], options, evidence, notes)?;
    }
    Ok(())
}

/// The alive features of a dictionary that is looked at again.
struct Kept {
    features: Vec<u32>,
    rows: Matrix,
}

/// Two runs whose dictionaries are compared.
pub(super) struct Pair {
    a: Point,
    b: Point,
    what: AcrossWhat,
}

/// The pairs at a site: the chosen runs of every two types, and each chosen run beside those of other seeds.
pub(super) fn pairs(chosen: &Chosen, evidence: &Evidence) -> Vec<Pair> {
    let pair = |a: &Point, b: &Point, what| Pair { a: a.clone(), b: b.clone(), what };
    let types = chosen.points.iter().enumerate().flat_map(|(i, a)| {
        chosen.points[i + 1..].iter().map(move |b| pair(a, b, AcrossWhat::Types))
    });
    let seeds = seed_pairs(chosen, evidence);
    types.chain(seeds.iter().map(|(a, b)| pair(a, b, AcrossWhat::Seeds))).collect()
}

/// Each chosen run beside the others that differ from it in the seed alone.
fn seed_pairs(chosen: &Chosen, evidence: &Evidence) -> Vec<(Point, Point)> {
    let mut pairs = Vec::new();
    for own in &chosen.points {
        let groups = evidence.stability.iter().filter(|seeds| seeds.site == chosen.site);
        for (_, run) in groups
            .filter(|seeds| seeds.runs.iter().any(|(_, run)| *run == own.run))
            .flat_map(|seeds| &seeds.runs)
            .filter(|(_, run)| *run != own.run)
        {
            let same = |point: &&Point| point.run == *run && point.site == chosen.site;
            if let Some(other) = evidence.frontier.points.iter().find(same) {
                pairs.push((own.clone(), other.clone()));
            }
        }
    }
    pairs
}

fn load(runs: &SweepRuns, point: &Point, notes: &mut Notes) -> Option<Dictionary> {
    let folder = runs.folder_of(runs.run(&point.run)?);
    match Dictionary::load(&folder, point.site, runs.alive_above) {
        Ok(dictionary) => Some(dictionary),
        Err(error) => {
            notes.add(format!(
                "The dictionary of {} at {} is left out: {error}.",
                point.run, point.site
            ));
            None
        }
    }
}

fn features(
    point: &Point,
    dictionary: &Dictionary,
    notes: &mut Notes,
) -> Result<RunFeatures, AnalysisError> {
    let mut statistics =
        FeatureStatistics::of(&dictionary.features, log10_frequency_edges(), ULTRA_DENSE)?;
    if statistics.scatter.len() > SCATTER {
        notes.add(format!(
            "Density against norm and bias is told of {SCATTER} alive features of a run, evenly spaced in their order; \
             features.parquet in the run's folder has all."
        ));
        statistics.scatter = thin(&statistics.scatter, SCATTER);
    }
    Ok(RunFeatures { run: point.run.clone(), variant: point.variant, site: point.site, statistics })
}

fn edges() -> Vec<f64> {
    even_edges(-1.0, 1.0, BINS)
}

fn within_run(
    point: &Point,
    dictionary: &Dictionary,
    options: &AnalysisOptions,
    notes: &mut Notes,
) -> Result<Option<(Within, Vec<f64>)>, AnalysisError> {
    let alive = dictionary.rows.rows();
    if alive < 2 {
        notes.add(format!(
            "{} has {alive} alive features at {}: no cosines within its dictionary.",
            point.run, point.site
        ));
        return Ok(None);
    }
    let largest = within(&dictionary.rows)?;
    let values: Vec<f64> = largest.iter().copied().map(f64::from).collect();
    let found = Within {
        run: point.run.clone(),
        variant: point.variant,
        site: point.site,
        alive,
        cosines: summarise(&largest, edges())?,
        mean: bootstrap::mean(&values, options.bootstrap)?,
    };
    Ok(Some((found, values)))
}

/// The differences between the types of every match at the site; each pair of types once a match.
fn differences(
    chosen: &Chosen,
    cosines: &BTreeMap<&str, Vec<f64>>,
    options: &AnalysisOptions,
    evidence: &mut Evidence,
) -> Result<(), AnalysisError> {
    for found in evidence.matches.iter().filter(|found| found.site == chosen.site) {
        for (i, less) in found.points.iter().enumerate() {
            for of in &found.points[i + 1..] {
                let (Some(a), Some(b)) = (cosines.get(&*of.run), cosines.get(&*less.run)) else {
                    continue;
                };
                evidence.geometry.differences.push(Difference {
                    site: chosen.site,
                    by: found.by,
                    of: of.variant,
                    less: less.variant,
                    estimate: bootstrap::difference_of_means(a, b, options.bootstrap)?,
                });
            }
        }
    }
    Ok(())
}

/// Cosines across two dictionaries, in both directions, and their embedding.
fn compare(
    pair: &Pair,
    [of_a, of_b]: [&Kept; 2],
    options: &AnalysisOptions,
    evidence: &mut Evidence,
    notes: &mut Notes,
) -> Result<(), AnalysisError> {
    let Pair { a, b, what } = pair;
    let left_out = |error: AnalysisError| {
        format!("{} and {} at {} are not compared: {error}.", a.run, b.run, a.site)
    };
    let found = match across(&of_a.rows, &of_b.rows) {
        Ok(found) => found,
        Err(error) => {
            notes.add(left_out(error));
            return Ok(());
        }
    };
    for (from, to, cosines) in [(a, b, &found.a_to_b), (b, a, &found.b_to_a)] {
        evidence.geometry.across.push(AcrossRuns {
            site: a.site,
            from: from.run.clone(),
            to: to.run.clone(),
            what: *what,
            cosines: summarise(cosines, edges())?,
        });
    }
    // One pair of seeds a run is enough to look at, however many there are.
    let seen = |pair: &PairEmbedding| pair.site == a.site && pair.runs[0] == a.run;
    if *what == AcrossWhat::Seeds
        && evidence.embeddings.iter().any(|pair| seen(pair) && pair.types[0] == pair.types[1])
    {
        return Ok(());
    }
    match embed(&[&of_a.rows, &of_b.rows], options.embedding) {
        Ok(mut embedding) => {
            for point in &mut embedding.points {
                point.row = [of_a, of_b][point.run].features[point.row] as usize;
            }
            evidence.embeddings.push(PairEmbedding {
                site: a.site,
                runs: vec![a.run.clone(), b.run.clone()],
                types: vec![a.variant, b.variant],
                embedding,
            });
        }
        Err(error) => {
            notes.add(format!("{} and {} at {} have no picture: {error}.", a.run, b.run, a.site));
        }
    }
    Ok(())
}

//! Interpretability without a judge: how well the features of every run tell the concepts that a parser finds in the evaluation data,
//! beside dimensions of the residual stream, neurons, principal and random directions.

mod coverage;
mod figure;
mod show;

use std::collections::BTreeMap;

use sae_config::Site;
use sae_record::concepts::{ConceptText, RunConcepts, SiteConcepts, UnitConcepts};
use sae_record::layout;
use serde::{Deserialize, Serialize};

use self::coverage::{Counts, Resampled};
use crate::AnalysisError;
use crate::bootstrap::Estimate;
use crate::matching::MatchBy;
use crate::measured::{self, Kind};
use crate::runs::{Group, Point};
use crate::study::{Study, pairs_of};

const CONCEPTS: Kind = Kind { what: "Concepts", command: "sae concepts" };

/// The concepts of a text, and what tells them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ConceptEvidence {
    /// By site.
    pub sites: BTreeMap<Site, SiteConceptEvidence>,
}

/// What tells concepts at a site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SiteConceptEvidence {
    /// The language that the text is parsed as.
    pub language: String,
    /// Tokens of the half that thresholds are chosen on, and of the one that F1 is measured on.
    pub tokens: [u64; 2],
    /// Documents of each.
    pub documents: [u64; 2],
    /// The concepts that are frequent enough to count.
    pub concepts: Vec<ConceptFacts>,
    /// Of every run that was measured.
    pub runs: Vec<RunCoverage>,
    /// Of what features are compared with, by name.
    pub baselines: BTreeMap<String, Coverage>,
    /// Differences of coverage between groups, for matched runs.
    pub differences: Vec<CoverageDifference>,
}

/// How well a run's features tell concepts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunCoverage {
    /// Its point.
    pub point: Point,
    /// What its features tell.
    pub coverage: Coverage,
}

/// How well units tell concepts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// The mean F1 of the best unit of every concept that counts, with an interval over documents.
    pub mean: Estimate,
    /// The mean number of units that a concept is split into.
    pub split: f64,
    /// Units there are.
    pub units: u64,
    /// Units that were active.
    pub active: u64,
    /// Units that tell a concept well: with an F1 above [`sae_record::concepts::GOOD`].
    pub good: u64,
    /// The best unit of every concept; none where none was active on it.
    pub best: Vec<Option<Best>>,
}

/// A concept of a text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConceptFacts {
    /// Its name.
    pub name: String,
    /// What kind of concept it is.
    pub group: String,
    /// When a token has it.
    pub meaning: String,
    /// Tokens of the second half that have it.
    pub tokens: u64,
}

/// The unit that tells a concept best.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Its number.
    pub unit: u32,
    /// The least activation that counts.
    pub threshold: f32,
    /// F1 on the half that unit and threshold were chosen on.
    pub f1_chosen: f64,
    /// F1 on the other.
    pub f1: f64,
    /// Units that the concept is split into.
    pub split: u32,
}

/// The coverage of one run less that of another, both matched; on the same documents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CoverageDifference {
    /// What they are matched in.
    pub by: MatchBy,
    /// The first run and its group.
    pub of: (String, Group),
    /// The run that is taken away.
    pub less: (String, Group),
    /// The difference with its interval.
    pub estimate: Estimate,
}

fn find(study: &mut Study<'_>) -> Result<ConceptEvidence, AnalysisError> {
    let mut found = ConceptEvidence::default();
    let runs = study.runs;
    let mut of_runs = BTreeMap::new();
    for run in &runs.finished {
        let path = runs.folder_of(run).concepts();
        let measured = measured::read::<RunConcepts>(&path, CONCEPTS, runs, &mut study.notes);
        if let Some(measured) = measured {
            of_runs.insert(run.id.as_str(), measured);
        }
    }
    for &site in &study.sites.clone() {
        let path = layout::concepts(&runs.folder, site);
        let at = measured::read::<SiteConcepts>(&path, CONCEPTS, runs, &mut study.notes);
        let Some(at) = at else {
            if of_runs.values().any(|measured| measured.values.contains_key(&site)) {
                study.notes.add(format!(
                    "Concepts were measured at {site}, but {} is missing: left out.",
                    path.display()
                ));
            }
            continue;
        };
        let points: Vec<&Point> = runs.points.iter().filter(|point| point.site == site).collect();
        let mut own: Vec<(&Point, &UnitConcepts)> = Vec::new();
        let mut missing = Vec::new();
        for point in points {
            // On the same tokens, by the same definitions.
            let same = of_runs.get(point.run.as_str()).filter(|measured| {
                ["concepts", "tokens"].iter().all(|key| measured.of.get(*key) == at.of.get(*key))
            });
            match same.and_then(|measured| measured.values.get(&site)) {
                Some(units) => own.push((point, units)),
                None => missing.push(point.run.as_str()),
            }
        }
        if !missing.is_empty() {
            study.notes.add(format!(
                "At {site} the concepts of {} were not measured, or not on the same tokens.",
                missing.join(", ")
            ));
        }
        found.sites.insert(site, at_site(&at.values, &own, study)?);
    }
    Ok(found)
}

fn at_site(
    at: &SiteConcepts,
    own: &[(&Point, &UnitConcepts)],
    study: &Study<'_>,
) -> Result<SiteConceptEvidence, AnalysisError> {
    let options = study.options.bootstrap;
    let resample = |units: &UnitConcepts| Counts::of(units, &at.text).resample(options);
    let counted = || at.text.concepts.iter().enumerate().filter(|(_, concept)| concept.counts());
    let best = |units: &UnitConcepts| -> Vec<Option<Best>> {
        let of = |(place, concept): (usize, &ConceptText)| {
            let best = units.best.get(place)?.as_ref()?;
            Some(Best {
                unit: best.unit,
                threshold: best.threshold,
                f1_chosen: best.f1_chosen,
                f1: best.f1(concept),
                split: units.split.get(place).copied().unwrap_or(0),
            })
        };
        counted().map(of).collect()
    };
    let coverage = |units: &UnitConcepts, resampled: &Resampled| Coverage {
        mean: resampled.estimate(options),
        split: units.mean_split(&at.text),
        units: units.units,
        active: units.active,
        good: units.good,
        best: best(units),
    };
    let mut runs = Vec::new();
    let mut resampled: BTreeMap<&str, Resampled> = BTreeMap::new();
    for (point, units) in own {
        let found = resample(units)?;
        let coverage = coverage(units, &found);
        runs.push(RunCoverage { point: (*point).clone(), coverage });
        resampled.insert(&point.run, found);
    }
    let mut baselines = BTreeMap::new();
    for (name, units) in &at.baselines {
        baselines.insert(name.clone(), coverage(units, &resample(units)?));
    }
    let site = own.first().map(|(point, _)| point.site);
    let mut differences = Vec::new();
    for found in study.matches.iter().filter(|found| Some(found.site) == site) {
        for (less, of) in pairs_of(&found.points) {
            let pair = (resampled.get(of.run.as_str()), resampled.get(less.run.as_str()));
            let (Some(a), Some(b)) = pair else { continue };
            differences.push(CoverageDifference {
                by: found.by,
                of: (of.run.clone(), of.group.clone()),
                less: (less.run.clone(), less.group.clone()),
                estimate: a.minus(b).estimate(options),
            });
        }
    }
    let concepts = counted().map(|(_, concept)| ConceptFacts {
        name: concept.name.clone(),
        group: concept.group.clone(),
        meaning: concept.meaning.clone(),
        tokens: concept.positives.iter().map(|&n| u64::from(n)).sum(),
    });
    Ok(SiteConceptEvidence {
        language: at.text.language.clone(),
        tokens: at.text.tokens,
        documents: at.text.documents,
        concepts: concepts.collect(),
        runs,
        baselines,
        differences,
    })
}

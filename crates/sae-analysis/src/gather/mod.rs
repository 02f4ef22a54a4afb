//! From a sweep's runs to all that is found in them, a part of the evidence in each file.
//!
//! What is missing or broken in one run is noted and left out; the rest is computed without it.

mod activations;
mod chosen;
mod dictionaries;
mod seeds;

use sae_config::Site;
use sae_record::metric::name;
use sae_record::{Event, Phase};

pub(crate) use self::chosen::Chosen;
use crate::evidence::{Downstream, DownstreamLayer, Evidence, Geometry, RunFacts};
use crate::matching::{MatchBy, TYPES, matches};
use crate::options::AnalysisOptions;
use crate::runs::FinishedRun;
use crate::{AnalysisError, Frontier, SaeType, SweepRuns, bootstrap};

/// The ratio above which matched runs are far enough apart for a note.
pub(crate) const FAR: f64 = 1.25;

/// All that is found. Refused are options that are none.
pub(crate) fn evidence(
    runs: &SweepRuns,
    options: &AnalysisOptions,
    notice: &mut dyn FnMut(Event),
) -> Result<Evidence, AnalysisError> {
    // Of a single value no interval is computed, but the options are looked at.
    bootstrap::mean(&[0.0], options.bootstrap)?;
    let frontier = Frontier::by(&runs.points, &options.facets);
    let mut notes = Notes(runs.notes());
    let sites: Vec<Site> = frontier.sites().into_iter().collect();
    let mut evidence = Evidence {
        sweep: runs.name.clone(),
        notes: Vec::new(),
        runs: runs.finished.iter().map(|run| facts(runs, run)).collect::<Result<_, _>>()?,
        metrics: runs.metrics(),
        frontier,
        matches: MatchBy::ALL.into_iter().flat_map(|by| matches(&runs.points, by)).collect(),
        match_by: options.match_by,
        alive_above: options.alive_above,
        downstream: Vec::new(),
        geometry: Geometry { within: Vec::new(), differences: Vec::new(), across: Vec::new() },
        embeddings: Vec::new(),
        activations: activations::read(runs, &sites, &mut notes),
        stability: seeds::side_by_side(runs),
        features: Vec::new(),
    };
    note_matches(&evidence, &sites, &mut notes);
    if !options.facets.is_empty() && !evidence.matches.is_empty() {
        notes.add("Frontiers are split by the facets; runs are matched across them.");
    }
    if evidence.stability.is_empty() {
        notes.add("No two runs differ in their seeds alone: nothing is said of stability.");
    }
    let chosen: Vec<Chosen> =
        sites.iter().map(|site| chosen::at(&runs.points, *site, options.match_by)).collect();
    let pairs: usize =
        chosen.iter().map(|chosen| dictionaries::pairs(chosen, &evidence).len()).sum();
    let mut progress = Progress::begin(notice, runs.points.len() + pairs);
    for chosen in chosen {
        if let Some(note) = chosen.note() {
            notes.add(note);
        }
        evidence.downstream.extend(downstream(runs, &chosen, &mut notes));
        dictionaries::study(runs, &chosen, options, &mut evidence, &mut notes, &mut progress)?;
    }
    progress.end();
    evidence.notes = notes.0;
    Ok(evidence)
}

/// What a reader has to know, each once.
pub(crate) struct Notes(Vec<String>);

impl Notes {
    pub fn add(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.0.contains(&note) {
            self.0.push(note);
        }
    }
}

/// Tells how far the work is: a step is a dictionary, or two that are compared.
pub(crate) struct Progress<'a> {
    notice: &'a mut dyn FnMut(Event),
    begun: u64,
}

impl<'a> Progress<'a> {
    fn begin(notice: &'a mut dyn FnMut(Event), steps: usize) -> Self {
        notice(Event::began(Phase::Analyse, steps as u64, 0));
        Self { notice, begun: 0 }
    }

    /// The next step begins, and with it the one before has ended.
    fn step(&mut self, what: &str) {
        (self.notice)(Event::Advanced { done: self.begun, message: what.to_owned() });
        self.begun += 1;
    }

    fn end(self) {
        (self.notice)(Event::Ended);
    }
}

fn facts(runs: &SweepRuns, run: &FinishedRun) -> Result<RunFacts, AnalysisError> {
    // The run's own file has what was resolved when it began; a folder without it has the manifest's.
    let config = match std::fs::read_to_string(runs.folder_of(run).config()) {
        Ok(config) => config,
        Err(_) => run.config.to_toml().map_err(sae_record::RecordError::from)?,
    };
    Ok(RunFacts {
        run: run.id.clone(),
        variant: SaeType::of(&run.config),
        folder: run.folder.display().to_string(),
        config,
        facets: run.facets.clone(),
        versions: run.summary.versions.clone(),
    })
}

fn note_matches(evidence: &Evidence, sites: &[Site], notes: &mut Notes) {
    for &site in sites {
        let found = |by| evidence.matches.iter().find(move |m| m.site == site && m.by == by);
        let none: Vec<&str> = MatchBy::ALL
            .into_iter()
            .filter(|by| found(*by).is_none())
            .map(MatchBy::describe)
            .collect();
        if !none.is_empty() {
            notes.add(format!(
                "At {site} no runs of two types could be matched by {}.",
                none.join(", nor by ")
            ));
        }
        for by in MatchBy::ALL {
            let Some(found) = found(by) else { continue };
            if by == evidence.match_by {
                let absent: Vec<String> = TYPES
                    .into_iter()
                    .filter(|variant| {
                        evidence.frontier.of_type(site, *variant).next().is_some()
                            && found.of_type(*variant).is_none()
                    })
                    .map(|variant| variant.to_string())
                    .collect();
                if !absent.is_empty() {
                    notes.add(format!(
                        "At {site} no run of {} says enough to be matched by {}; what is said of matched runs leaves \
                         it out.",
                        absent.join(" and "),
                        by.describe()
                    ));
                }
                let types = evidence.frontier.variants().into_iter();
                let others: Vec<String> = types
                    .filter(|variant| !TYPES.contains(variant))
                    .map(|variant| variant.to_string())
                    .collect();
                if !others.is_empty() {
                    notes.add(format!(
                        "Matched are the paper's types alone, not {}.",
                        others.join(", ")
                    ));
                }
            }
            if found.ratio > FAR {
                notes.add(format!(
                    "At {site} the runs matched by {} are not equal: the largest is {:.2} × the smallest.",
                    by.describe(),
                    found.ratio
                ));
            }
        }
    }
}

/// The chosen runs' reconstruction at every site after theirs.
fn downstream(runs: &SweepRuns, chosen: &Chosen, notes: &mut Notes) -> Vec<Downstream> {
    let mut found = Vec::new();
    for point in &chosen.points {
        let Some(run) = runs.run(&point.run) else { continue };
        let later = run.summary.evaluation.downstream.iter().filter(|(at, _)| **at > chosen.site);
        let mut layers = Vec::new();
        for (&site, at) in later {
            let [mse, explained_variance] = [at.get(name::MSE), at.get(name::EXPLAINED_VARIANCE)];
            if mse.is_finite() && explained_variance.is_finite() {
                layers.push(DownstreamLayer { site, mse, explained_variance });
            } else {
                notes.add(format!(
                    "{} has no finite reconstruction at {site}; it is left out there.",
                    run.id
                ));
            }
        }
        if layers.is_empty() {
            notes.add(format!("{} tells of no reconstruction after {}.", run.id, chosen.site));
            continue;
        }
        found.push(Downstream {
            run: run.id.clone(),
            variant: point.variant,
            site: chosen.site,
            layers,
        });
    }
    found
}

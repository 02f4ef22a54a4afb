//! What was measured of activations: files beside the runs, which a sweep may have or not.

use std::collections::BTreeMap;
use std::path::Path;

use sae_config::Site;
use sae_record::activations::{EVALUATION, MODEL, Measured, RunActivations, SiteActivations};
use sae_record::layout;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::SiteEvidence;
use crate::runs::SweepRuns;
use crate::study::{Notes, Study};

/// By site: what was measured of the model there, and of every run.
pub(super) fn read(study: &mut Study<'_>) -> BTreeMap<Site, SiteEvidence> {
    let (runs, sites, notes) = (study.runs, &study.sites, &mut study.notes);
    let mut found = BTreeMap::new();
    for &site in sites {
        let path = layout::activations(&runs.folder, site);
        if let Some(model) = read_measured::<SiteActivations>(&path, runs, notes) {
            found.insert(site, SiteEvidence { model, runs: BTreeMap::new() });
        }
    }
    for run in &runs.finished {
        let path = runs.folder_of(run).activations();
        let Some(measured) = read_measured::<RunActivations>(&path, runs, notes) else { continue };
        for (site, activations) in measured {
            match found.get_mut(&site) {
                Some(at) => {
                    at.runs.insert(run.id.clone(), activations);
                }
                None => notes.add(format!(
                    "Activations of {} were measured at {site}, but those of the model were not: left out.",
                    run.id
                )),
            }
        }
    }
    let missing: Vec<String> =
        sites.iter().filter(|site| !found.contains_key(site)).map(ToString::to_string).collect();
    if !missing.is_empty() {
        notes.add(format!("Activations were not measured at {}.", missing.join(", ")));
    }
    for (site, at) in &found {
        let without: Vec<&str> = runs
            .points
            .iter()
            .filter(|point| point.site == *site && !at.runs.contains_key(&point.run))
            .map(|point| point.run.as_str())
            .collect();
        if !at.runs.is_empty() && !without.is_empty() {
            notes.add(format!(
                "At {site} the activations of {} were not measured.",
                without.join(", ")
            ));
        }
        if at.runs.is_empty() {
            notes.add(format!("At {site} activations were measured of the model, and of no run."));
        }
    }
    found
}

/// The file's content; none where there is no file, and with a note where it cannot be used or is not of the model and
/// data of the runs (all of which have the same).
fn read_measured<T: Serialize + DeserializeOwned>(
    path: &Path,
    runs: &SweepRuns,
    notes: &mut Notes,
) -> Option<T> {
    let Measured { of, values } = match Measured::load(path) {
        Ok(measured) => measured?,
        Err(error) => {
            notes.add(format!("Activations are left out: {error}."));
            return None;
        }
    };
    let inputs = runs.finished.iter().find_map(|run| run.summary.inputs.as_ref());
    let is_other = inputs.is_some_and(|inputs| {
        of.get(MODEL) != Some(&inputs.model) || of.get(EVALUATION) != Some(&inputs.evaluation)
    });
    if is_other {
        notes.add(format!(
            "{} is of another model or evaluation set than the runs, left out: `sae analyze` measures it again.",
            path.display()
        ));
        return None;
    }
    Some(values)
}

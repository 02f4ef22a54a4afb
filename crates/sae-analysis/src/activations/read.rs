//! What was measured of activations: files beside the runs, which a sweep may have or not.

use std::collections::BTreeMap;

use sae_config::Site;
use sae_record::activations::{RunActivations, SiteActivations};
use sae_record::layout;

use super::SiteEvidence;
use crate::measured::{self, Kind};
use crate::study::Study;

pub(crate) const ACTIVATIONS: Kind = Kind { what: "Activations", command: "sae analyze" };

/// By site: what was measured of the model there, and of every run.
pub(super) fn read(study: &mut Study<'_>) -> BTreeMap<Site, SiteEvidence> {
    let (runs, sites, notes) = (study.runs, &study.sites, &mut study.notes);
    let mut found = BTreeMap::new();
    for &site in sites {
        let path = layout::activations(&runs.folder, site);
        if let Some(model) = measured::read::<SiteActivations>(&path, ACTIVATIONS, runs, notes) {
            found.insert(site, SiteEvidence { model: model.values, runs: BTreeMap::new() });
        }
    }
    for run in &runs.finished {
        let path = runs.folder_of(run).activations();
        let measured = measured::read::<RunActivations>(&path, ACTIVATIONS, runs, notes);
        let Some(measured) = measured else { continue };
        for (site, activations) in measured.values {
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

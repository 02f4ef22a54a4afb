//! Measurements of activations for the analysis of a sweep: of the model at every site, and of every run's SAEs.

use std::collections::BTreeSet;
use std::path::Path;

use sae_config::activations::{RunActivations, SiteActivations};
use sae_config::{RunConfig, Site, layout};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::Device;

use crate::evaluate::member;
use crate::progress::{Event, Observer};
use crate::setup::Setup;
use crate::{RunSpec, Sources, TrainError, write_atomically};

/// Principal directions that are measured.
const DIRECTIONS: usize = 8;
/// Decides which token's component takes the place of which.
const SEED: u64 = 0;

/// Measures the activations of finished runs on their evaluation set: `activations/<site>.json` in the sweep's folder,
/// `activations.json` in every run's. What is there already, and whole, is not measured again. Runs with another model or evaluation
/// set than the first, and runs whose SAEs cannot be read, are left out, with a warning.
pub fn measure_activations(
    sweep: &Path,
    runs: &[RunSpec],
    device: Device,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    let Some(first) = runs.first() else { return Ok(()) };
    let (runs, others): (Vec<&RunSpec>, Vec<&RunSpec>) =
        runs.iter().partition(|run| sees_the_same(&run.config, &first.config));
    for other in others {
        tracing::warn!(
            "{}: activations are not measured: another model or evaluation set than {}",
            other.id,
            first.id
        );
    }
    let sites: BTreeSet<Site> =
        runs.iter().flat_map(|run| run.config.sae.sites.iter().copied()).collect();
    let open: Vec<&RunSpec> = runs
        .into_iter()
        .filter(|run| !measured::<RunActivations>(&run.folder.activations()))
        .collect();
    let missing: Vec<Site> = sites
        .iter()
        .copied()
        .filter(|site| !measured::<SiteActivations>(&layout::activations(sweep, *site)))
        .collect();
    if open.is_empty() && missing.is_empty() {
        return Ok(());
    }
    let setup = Setup::open(&[&first.config], Sources::default(), device)?;
    let batches = &setup.evaluation;
    let tokens: u64 = batches.iter().map(|batch| batch.numel() as u64).sum();
    let steps = (missing.len() + open.len()) as u64;
    observer.notice(Event::began("measure activations", steps, tokens));
    let mut principals = Vec::with_capacity(sites.len());
    let mut done = 0;
    for site in sites {
        let principal = setup.model.principal(site, batches, DIRECTIONS)?;
        if missing.contains(&site) {
            let found = setup.model.site_activations(&principal, batches, SEED)?;
            save::<SiteActivations>(&layout::activations(sweep, site), &found)?;
            done += 1;
            advance(observer, done)?;
        }
        principals.push(principal);
    }
    for run in open {
        match member(&run.config, run.folder.path(), &setup, device) {
            Ok(member) => {
                let found = setup.model.sae_activations(&member, &principals, batches)?;
                save(&run.folder.activations(), &found)?;
            }
            Err(error) => tracing::warn!("{}: activations are not measured: {error}", run.id),
        }
        done += 1;
        advance(observer, done)?;
    }
    observer.notice(Event::Ended);
    Ok(())
}

/// Whether two runs' activations can be told side by side.
fn sees_the_same(a: &RunConfig, b: &RunConfig) -> bool {
    a.model == b.model && a.eval == b.eval && a.data.context_length == b.data.context_length
}

fn advance(observer: &mut dyn Observer, done: u64) -> Result<(), TrainError> {
    observer.notice(Event::advanced(done));
    if observer.interrupted() { Err(TrainError::InterruptedEvaluation) } else { Ok(()) }
}

/// Whether a measurement is there and can be read.
fn measured<T: DeserializeOwned>(path: &Path) -> bool {
    std::fs::read(path).is_ok_and(|bytes| serde_json::from_slice::<T>(&bytes).is_ok())
}

fn save<T: Serialize>(path: &Path, found: &T) -> Result<(), TrainError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(TrainError::file("create", folder))?;
    }
    let json = serde_json::to_string(found).map_err(TrainError::file("write", path))?;
    write_atomically(path, json.as_bytes())
}

//! Measurements of activations for the analysis of a sweep: of the model at every site, and of every run's SAEs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sae_config::fingerprint::Fingerprint;
use sae_config::{RunConfig, Site};
use sae_eval::Principal;
use sae_model::load;
use sae_record::activations::{self, Measured, RunActivations, SiteActivations};
use sae_record::summary::{Inputs, Summary};
use sae_record::{RunFolder, layout};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::Device;

use crate::evaluate::member;
use crate::progress::{Event, Observer, Phase};
use crate::setup::{Setup, evaluation_fingerprint};
use crate::{RunSpec, Sources, TrainError};

/// Principal directions that are measured.
const DIRECTIONS: usize = 25;
/// Decides which token's component takes the place of which.
const SEED: u64 = 0;
/// Raised when what a measurement means changes, so that an old one is made anew.
const DEFINITIONS: &str = "3";

/// Measures the activations of finished runs on their evaluation set: `activations/<site>.json` in the sweep's folder,
/// `activations.json` in every run's. What is there already, whole, and of the same model, data and SAEs, is not measured
/// again. Runs with another model or evaluation
/// set than the first, and runs whose SAEs cannot be read, are left out, with a warning.
pub fn measure_activations(
    sweep: &Path,
    runs: &[RunSpec],
    device: Device,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    let Some(first) = runs.first() else { return Ok(()) };
    let runs = of_one_model(runs, "activations are not measured");
    let sites: BTreeSet<Site> =
        runs.iter().flat_map(|run| run.config.sae.sites.iter().copied()).collect();
    let sources = Sources::default();
    let inputs = Summary::load(&first.folder.summary()).ok().and_then(|summary| summary.inputs);
    let mut of_model = of_model(&first.config, inputs.as_ref(), &sources)?;
    of_model.insert("definitions".to_owned(), DEFINITIONS.to_owned());
    let open: Vec<(&RunSpec, Of)> = runs
        .into_iter()
        .map(|run| Ok((run, of_run(&of_model, &run.folder, &run.config)?)))
        .filter(|run| {
            let Ok((run, of)) = run else { return true };
            !measured::<RunActivations>(&run.folder.activations(), of)
        })
        .collect::<Result<_, TrainError>>()?;
    let missing: Vec<Site> = sites
        .iter()
        .copied()
        .filter(|site| !measured::<SiteActivations>(&layout::activations(sweep, *site), &of_model))
        .collect();
    if open.is_empty() && missing.is_empty() {
        return Ok(());
    }
    let setup = Setup::open(&[&first.config], sources, device)?;
    if let Some(inputs) = &inputs {
        check_inputs(first, inputs, &setup)?;
    }
    let batches = &setup.evaluation;
    let tokens: u64 = batches.iter().map(|batch| batch.numel() as u64).sum();
    let steps = (missing.len() + open.len()) as u64;
    observer.notice(Event::began(Phase::MeasureActivations, steps, tokens));
    // Windows of token ids may have no tokeniser, whose end of text nobody knows then.
    let end_of_text =
        setup.text_tokenizer().ok().map(|tokenizer| i64::from(tokenizer.end_of_text()));
    let mut principals = Vec::with_capacity(sites.len());
    let mut done = 0;
    for site in sites {
        let principal = Principal::of(&setup.model, site, batches, DIRECTIONS)?;
        if missing.contains(&site) {
            let of_end = (batches.as_slice(), end_of_text);
            let values = sae_eval::site_activations(&setup.model, &principal, of_end, SEED)?;
            Measured { of: of_model.clone(), values }.save(&layout::activations(sweep, site))?;
            done += 1;
            advance(observer, done)?;
        }
        principals.push(principal);
    }
    for (run, of) in open {
        match member(&run.config, run.folder.path(), &setup, device) {
            Ok(member) => {
                let values =
                    sae_eval::sae_activations(&setup.model, &member, &principals, batches)?;
                Measured { of, values }.save(&run.folder.activations())?;
            }
            Err(error) => tracing::warn!("{}: activations are not measured: {error}", run.id),
        }
        done += 1;
        advance(observer, done)?;
    }
    observer.notice(Event::Ended);
    Ok(())
}

/// Fingerprints, by name.
pub(crate) type Of = BTreeMap<String, String>;

/// What a measurement of the model is computed from: what the runs were, as their summaries say, or, where they do not,
/// what lies there now.
pub(crate) fn of_model(
    config: &RunConfig,
    inputs: Option<&Inputs>,
    sources: &Sources,
) -> Result<Of, TrainError> {
    let (model, evaluation) = match inputs {
        Some(inputs) => (inputs.model.clone(), inputs.evaluation.clone()),
        None => (
            load::fingerprint(&sources.model(&config.model.path)?)?,
            evaluation_fingerprint(config, sources)?,
        ),
    };
    let windows = config.eval.n_samples.map_or_else(|| "all".to_owned(), |n| n.to_string());
    let parts = [
        (activations::MODEL, model),
        (activations::EVALUATION, evaluation),
        ("processing", format!("{:?}", config.model.processing)),
        ("windows", format!("{windows} of {}", config.data.context_length)),
    ];
    Ok(parts.into_iter().map(|(name, of)| (name.to_owned(), of)).collect())
}

/// Refuses to measure on something else than the runs were computed from.
fn check_inputs(run: &RunSpec, inputs: &Inputs, setup: &Setup) -> Result<(), TrainError> {
    let config = &run.config;
    let (what, place) = if inputs.model != setup.model_fingerprint() {
        ("model", config.model.path.to_string())
    } else if inputs.evaluation != setup.evaluation_fingerprint()? {
        ("evaluation data", config.eval.data.to_string())
    } else {
        return Ok(());
    };
    Err(TrainError::OtherInputs { path: run.folder.path().to_owned(), what, place })
}

/// What a measurement of a run is computed from: that, and the weights of its SAEs. Those that cannot be read are named
/// when they are loaded.
pub(crate) fn of_run(
    of_model: &Of,
    folder: &RunFolder,
    config: &RunConfig,
) -> Result<Of, TrainError> {
    let mut saes = Fingerprint::new();
    for site in &config.sae.sites {
        let path = folder.sae(*site).join("sae_weights.safetensors");
        if path.is_file() {
            saes = saes.file(&path).map_err(TrainError::file("read", &path))?;
        }
    }
    let mut of = of_model.clone();
    of.insert("saes".to_owned(), saes.finish());
    Ok(of)
}

/// The runs that see the same as the first; of the others a warning says what is not done.
pub(crate) fn of_one_model<'a>(runs: &'a [RunSpec], not_done: &str) -> Vec<&'a RunSpec> {
    let Some(first) = runs.first() else { return Vec::new() };
    let (same, others): (Vec<&RunSpec>, Vec<&RunSpec>) =
        runs.iter().partition(|run| sees_the_same(run, first));
    for other in others {
        tracing::warn!(
            "{}: {not_done}: another model or evaluation set than {}",
            other.id,
            first.id
        );
    }
    same
}

/// Whether two runs are of one model and evaluation set: by their fingerprints, or, where a run has none, by their names.
fn sees_the_same(a: &RunSpec, b: &RunSpec) -> bool {
    let inputs = |run: &RunSpec| Summary::load(&run.folder.summary()).ok()?.inputs;
    let [mut own, mut other] = [a, b].map(|run| run.config.clone());
    if let (Some(a), Some(b)) = (inputs(a), inputs(b)) {
        if (a.model, a.evaluation) != (b.model, b.evaluation) {
            return false;
        }
        own.clear_local_paths();
        other.clear_local_paths();
    }
    own.model == other.model
        && own.eval == other.eval
        && own.data.context_length == other.data.context_length
}

fn advance(observer: &mut dyn Observer, done: u64) -> Result<(), TrainError> {
    observer.notice(Event::advanced(done));
    if observer.interrupted() { Err(TrainError::InterruptedEvaluation) } else { Ok(()) }
}

/// Whether a measurement of the same things is there and can be read.
fn measured<T: Serialize + DeserializeOwned>(path: &Path, of: &Of) -> bool {
    matches!(Measured::<T>::load(path), Ok(Some(found)) if found.of == *of)
}

//! Whether a run's folder holds this run and no other: the same configuration, computed from the same model and data.

use sae_config::difference::{differences, in_words};
use sae_config::{RunConfig, Source};
use sae_model::load;
use sae_record::summary::Inputs;
use sae_record::{RunFolder, Summary};

use crate::setup::{evaluation_fingerprint, training_fingerprint};
use crate::{RunSpec, Sources, TrainError};

/// Refuses a folder that holds another run.
pub(crate) fn check_folder(spec: &RunSpec) -> Result<(), TrainError> {
    let path = spec.folder.config();
    if !path.is_file() {
        return Ok(());
    }
    let found = RunConfig::load_recorded(&path)?;
    let wanted = &spec.config;
    // What has moved is told from what is another by its fingerprint, which is compared once it is open.
    let may_move = spec.folder.inputs().is_file();
    let resolved = |config: &RunConfig, may_move: bool| {
        // The resolved configuration names the downstream sites and samples that the given one may leave to us.
        let mut config = config.clone();
        if let (Some(term), Some(wanted)) = (&mut config.loss.downstream, &wanted.loss.downstream)
            && wanted.sites.is_empty()
        {
            term.sites.clear();
        }
        if wanted.train.n_samples.is_none() {
            config.train.n_samples = None;
        }
        if may_move {
            config.clear_local_paths();
        }
        config
    };
    let between = |may_move: bool| {
        let pair = (resolved(&found, may_move), resolved(wanted, may_move));
        differences(&pair.0, &pair.1).map_err(TrainError::file("compare with", &path))
    };
    match between(may_move)? {
        same if same.is_empty() => Ok(()),
        other => Err(TrainError::OtherRun {
            path: spec.folder.path().to_owned(),
            differences: in_words(&other),
        }),
    }
}

/// Refuses to go on with a run on another model or other data than it began with, under whatever names they lie. A folder
/// without a configuration holds no run yet.
pub(crate) fn check_inputs(spec: &RunSpec, now: &Inputs) -> Result<(), TrainError> {
    if !spec.folder.config().is_file() {
        return Ok(());
    }
    let path = spec.folder.inputs();
    if !path.is_file() {
        tracing::warn!(
            "{}: begun by an earlier version, which did not record its model and data; it goes on with what lies there now",
            spec.id
        );
        return Ok(());
    }
    compare(spec, &Inputs::load(&path)?, now)
}

/// Refuses a finished run whose model or data are of this machine and have other contents now: its results are not those
/// that are asked for. What lay where the run had it and is not there any more, or is on the hub, is not looked at; what is
/// said to lie elsewhere has to be there.
pub(crate) fn check_finished(spec: &RunSpec, sources: &Sources) -> Result<(), TrainError> {
    let Some(before) = Summary::load(&spec.folder.summary())?.inputs else { return Ok(()) };
    let config = &spec.config;
    let recorded = RunConfig::load_recorded(&spec.folder.config()).ok();
    let current = |place: fn(&RunConfig) -> &Source,
                   before: &str,
                   of: &dyn Fn() -> Result<String, TrainError>| {
        let source = place(config);
        let has_moved = recorded.as_ref().is_some_and(|recorded| place(recorded) != source);
        match source.local() {
            Some(_) if has_moved => of(),
            Some(path) if path.exists() => Ok(of().unwrap_or_else(|_| before.to_owned())),
            _ => Ok(before.to_owned()),
        }
    };
    let now = Inputs {
        model: current(|config| &config.model.path, &before.model, &|| {
            Ok(load::fingerprint(&sources.model(&config.model.path)?)?)
        })?,
        training: current(|config| &config.data.train, &before.training, &|| {
            training_fingerprint(config, sources)
        })?,
        evaluation: current(|config| &config.eval.data, &before.evaluation, &|| {
            evaluation_fingerprint(config, sources)
        })?,
    };
    compare(spec, &before, &now)
}

fn compare(spec: &RunSpec, before: &Inputs, now: &Inputs) -> Result<(), TrainError> {
    let config = &spec.config;
    let all = [
        ("model", &config.model.path, before.model != now.model),
        ("training data", &config.data.train, before.training != now.training),
        ("evaluation data", &config.eval.data, before.evaluation != now.evaluation),
    ];
    match all.into_iter().find(|(_, _, differs)| *differs) {
        None => Ok(()),
        Some((what, place, _)) => Err(TrainError::OtherInputs {
            path: spec.folder.path().to_owned(),
            what,
            place: place.to_string(),
        }),
    }
}

/// Records what a run is, and what it is computed from, as it begins.
pub(crate) fn record(
    folder: &RunFolder,
    config: &RunConfig,
    inputs: &Inputs,
) -> Result<(), TrainError> {
    std::fs::create_dir_all(folder.path()).map_err(TrainError::file("create", folder.path()))?;
    inputs.save(&folder.inputs())?;
    crate::write_atomically(&folder.config(), config.to_toml()?.as_bytes())
}

//! Configurations of runs as they are given: this project's TOML, or the reference's YAML, which is imported.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use sae_analysis::{AnalysisOptions, FinishedRun, SweepRuns};
use sae_config::{ConfigError, PretrainConfig, RunConfig, Site, SiteKind, Source, reference};
use sae_model::load;
use sae_record::{Manifest, RunFolder, layout};
use sae_train::{RunSpec, Sources};

/// Loads a run's configuration; warnings of an import are logged.
pub(crate) fn load_run(path: &Path) -> anyhow::Result<RunConfig> {
    if !reference::is_reference(path) {
        // In a run's folder it is what the run has recorded, whose paths are as they are.
        let folder = RunFolder::new(path.parent().unwrap_or(Path::new("")));
        let is_recorded = path.file_name() == folder.config().file_name()
            && (folder.inputs().is_file() || folder.summary().is_file());
        return Ok(if is_recorded {
            RunConfig::load_recorded(path)
        } else {
            RunConfig::load(path)
        }?);
    }
    let mut imported = reference::load(path, &mut |model| sites(path, model))?;
    warn(path, &imported.warnings);
    // As there, to the working directory.
    imported.run.resolve_paths(Path::new("."));
    Ok(imported.run)
}

/// Expands a sweep of the reference to at most `most` runs.
pub(crate) fn load_sweep(path: &Path, most: usize) -> anyhow::Result<Manifest> {
    let bank_size = sae_config::sweep::bank_size();
    let (mut expanded, warnings) =
        reference::expand(path, bank_size, most, &mut |model| sites(path, model))?;
    warn(path, &warnings);
    for run in expanded.jobs.iter_mut().flatten() {
        run.config.resolve_paths(Path::new("."));
    }
    Ok(expanded.into())
}

fn warn(path: &Path, warnings: &[String]) {
    for warning in warnings {
        tracing::warn!("{}: {warning}", path.display());
    }
}

/// The sites of a model, of which only the configuration is fetched.
fn sites(path: &Path, model: &Source) -> Result<Vec<Site>, ConfigError> {
    let sites = || -> Result<_, sae_train::TrainError> {
        let config = load::config(&Sources::default().model_config(model)?)?;
        // The reference's SAEs read activations as wide as the residual stream, at hooks that it has.
        let is_theirs = |site: &Site| {
            let other = matches!(site.kind, SiteKind::AttnZ | SiteKind::MlpPost);
            !other && !matches!(site.kind, SiteKind::MlpNormalized | SiteKind::MlpIn)
        };
        Ok(config.sites().filter(is_theirs).collect())
    };
    sites().map_err(|error| ConfigError::Parse {
        origin: path.display().to_string(),
        message: format!("saes.sae_positions: cannot tell the model's sites: {error}"),
    })
}

/// Other values of some keys of a run's configuration.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Another value of a key of the configuration, where a model or data has moved for example; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

impl From<Vec<String>> for Settings {
    fn from(settings: Vec<String>) -> Self {
        Self { settings }
    }
}

impl Settings {
    /// The configuration with these values.
    pub fn apply(&self, config: RunConfig) -> anyhow::Result<RunConfig> {
        Ok(if self.settings.is_empty() { config } else { config.with(&self.settings)? })
    }

    /// The same for SAEs that are trained already; keys that only training reads are warned of.
    pub fn apply_to_trained(&self, config: RunConfig) -> anyhow::Result<RunConfig> {
        for key in self.keys() {
            let is_of_training = ["loss.", "train.", "log.", "sae."]
                .iter()
                .any(|section| key.starts_with(section) && key != "train.precision");
            if is_of_training {
                tracing::warn!("--set {key} changes nothing here: the SAEs are trained already");
            }
        }
        self.apply(config)
    }

    /// The same for a pretraining run.
    pub fn apply_to_pretraining(&self, config: PretrainConfig) -> anyhow::Result<PretrainConfig> {
        Ok(if self.settings.is_empty() { config } else { config.with(&self.settings)? })
    }

    /// The same for all runs of a sweep. A key that its grid gives values is refused, because ids are made of them.
    pub fn apply_to_sweep(&self, manifest: &mut Manifest) -> anyhow::Result<()> {
        let runs = manifest.jobs.iter_mut().flat_map(|job| &mut job.runs);
        for run in runs {
            if let Some(key) = self.keys().find(|key| run.values.contains_key(*key)) {
                bail!("--set {key}: the sweep's grid gives {key} its values; change them there");
            }
            run.config = self.apply(run.config.clone())?;
        }
        Ok(())
    }

    fn keys(&self) -> impl Iterator<Item = &str> {
        self.settings.iter().filter_map(|setting| Some(setting.split_once('=')?.0.trim()))
    }
}

/// The runs of a folder: of a sweep, of a single run, or of several.
pub(crate) fn load_runs(folder: &Path, options: &AnalysisOptions) -> anyhow::Result<SweepRuns> {
    if !folder.is_dir() {
        bail!("there is no folder {}", folder.display());
    }
    Ok(SweepRuns::load(folder, options)?)
}

/// Those that are finished, with these settings.
pub(crate) fn specs_of(runs: &SweepRuns, settings: &Settings) -> anyhow::Result<Vec<RunSpec>> {
    let spec = |run: &FinishedRun| {
        Ok(RunSpec {
            id: run.id.clone(),
            folder: runs.folder_of(run),
            config: settings.apply_to_trained(run.config.clone())?,
        })
    };
    runs.finished.iter().map(spec).collect()
}

/// Refuses trained SAEs whose model is no longer where it was, with what to do.
pub(crate) fn check_place(config: &RunConfig) -> anyhow::Result<()> {
    match config.model.path.local() {
        Some(path) if !path.exists() => bail!(
            "the model of these SAEs is not at {} any more: name its place with --set model.path=PATH",
            path.display()
        ),
        _ => Ok(()),
    }
}

/// SAEs and the configuration they were trained with.
pub(crate) struct Trained {
    pub config: RunConfig,
    /// What `sae_nn::weights::load_all` reads.
    pub saes: PathBuf,
}

/// Finds the SAEs of a finished run's folder, of a checkpoint in it, or of a `.pt` of the reference, here or on the hub;
/// their configuration lies beside them unless `config` names another.
pub(crate) fn trained(source: &str, config: Option<&Path>) -> anyhow::Result<Trained> {
    let source: Source = source.parse()?;
    if let Some(path) = source.local() {
        if !path.exists() {
            bail!("there is nothing at {}", path.display());
        }
        if layout::manifest(path).is_file() {
            bail!("{} is a sweep: name one of the runs in it", path.display());
        }
    }
    let saes = Sources::default().sae(&source)?;
    if let Some(config) = config {
        return Ok(Trained { config: load_run(config)?, saes });
    }
    if saes.extension().is_some_and(|extension| extension == "pt") {
        let beside = [saes.with_extension("yaml"), saes.with_file_name("final_config.yaml")];
        let Some(found) = beside.iter().find(|path| path.is_file()) else {
            bail!(
                "{} has no configuration beside it: expected {} or final_config.yaml; name another with --config",
                saes.display(),
                beside[0].file_name().unwrap_or_default().to_string_lossy()
            );
        };
        return Ok(Trained { config: load_run(found)?, saes });
    }
    if let Some(run) = run_of_checkpoint(&saes) {
        return Ok(Trained { config: RunConfig::load_recorded(&run.config())?, saes });
    }
    let folder = RunFolder::new(&saes);
    if !folder.config().is_file() && saes.join("state.safetensors").is_file() {
        bail!(
            "{} is a checkpoint without SAEs, as earlier versions wrote them, or away from its run: expected \
             RUN/checkpoints/step_N with a folder `sae`; name the configuration with --config where it has that",
            saes.display()
        );
    }
    if !folder.config().is_file() {
        bail!(
            "{} is missing, so that {} is no run's folder; name the configuration of its SAEs with --config",
            folder.config().display(),
            saes.display()
        );
    }
    if !folder.summary().is_file() {
        bail!(
            "{} is not finished: it has no summary.json; `sae train` with its configuration goes on with it",
            saes.display()
        );
    }
    Ok(Trained { config: RunConfig::load_recorded(&folder.config())?, saes })
}

/// The run's folder, where a path is one of its checkpoints: `RUN/checkpoints/step_N`.
fn run_of_checkpoint(path: &Path) -> Option<RunFolder> {
    let path = std::path::absolute(path).ok()?;
    let run = RunFolder::new(path.parent()?.parent()?);
    let is_checkpoint = path.parent()? == run.checkpoints() && path.join("sae").is_dir();
    (is_checkpoint && run.config().is_file()).then_some(run)
}

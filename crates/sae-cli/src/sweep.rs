//! `sae sweep`: a sweep from its configuration to its report.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use indicatif::HumanDuration;
use sae_config::message::counted;
use sae_config::sweep::MOST_RUNS;
use sae_config::{SweepConfig, reference};
use sae_launch::{
    Outcome, Settings, Show, Sweep, describe, launcher, launchers, visible_cuda_devices,
};
use sae_model::device::DeviceChoice;
use sae_record::{Manifest, ManifestRun, RunFolder, layout};
use tch::Device;

use crate::Global;
use crate::configuration::{Settings as RunSettings, load_sweep};
use crate::telemetry::ProgressMode;

/// Run a sweep: expand it, train and evaluate its runs, analyse them
///
/// Writes manifest.json and a folder a run into the sweep's folder, and at the end what `sae analyze` does. Jobs run side by
/// side, one a CUDA device; runs of a job train together. The same command goes on where an earlier one was interrupted, and
/// skips finished runs.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sae sweep configs/sweeps/rust-lm.toml
  # What would run, with tokens and memory
  sae sweep configs/sweeps/gpt2-small.toml --dry-run
  # Jobs for what starts them elsewhere, a line each: here GNU parallel, eight at a time
  sae sweep configs/sweeps/gpt2-small.toml --launcher commands
  parallel --jobs 8 < runs/gpt2-small/jobs.txt
  # Another seed of every run, in a folder of its own
  sae sweep configs/sweeps/rust-lm.toml --set sae.seed=1 --out runs/seed-1
  # A sweep of the reference
  sae sweep gpt2_e2e_sweep.yaml --out /scratch/runs")]
pub(crate) struct Arguments {
    /// The sweep's TOML, or a Weights & Biases sweep of the reference (YAML)
    config: PathBuf,
    /// Print jobs and runs, with tokens and memory, and stop
    #[arg(long)]
    dry_run: bool,
    /// What starts the jobs: this machine, or, as lines of jobs.txt, something else
    #[arg(long, value_name = "NAME", default_value = launchers().next(), value_parser = PossibleValuesParser::new(launchers()))]
    launcher: String,
    /// Jobs at a time [default: one a CUDA device, one on a CPU]
    #[arg(long, short, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// The folder that the sweep's own folder is made in
    #[arg(long, value_name = "FOLDER", default_value = "runs")]
    out: PathBuf,
    /// Analyse without loading the model: no activations are measured, no features looked at; `sae analyze` does it later
    #[arg(long)]
    no_activations: bool,
    #[command(flatten)]
    settings: RunSettings,
    /// Expand to this many runs at most
    #[arg(long, value_name = "N", default_value_t = MOST_RUNS)]
    max_runs: usize,
}

/// A signal asked for the end; what was trained is saved.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; everything up to there is saved: the same command goes on from it")]
pub(crate) struct Interrupted;

pub(crate) fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<()> {
    let mut manifest = expand(arguments)?;
    arguments.settings.apply_to_sweep(&mut manifest)?;
    if arguments.dry_run {
        crate::print(&describe(&manifest))?;
        let folder = arguments.out.join(&manifest.sweep);
        let is_finished =
            |run: &ManifestRun| RunFolder::new(folder.join(&run.folder)).summary().is_file();
        let finished = manifest.runs().filter(|run| is_finished(run)).count();
        if finished > 0 {
            let folder = folder.display();
            tracing::info!(
                "finished in {folder}, and not trained again: {}",
                counted(finished, "run")
            );
        }
        return check_models(&manifest);
    }
    let out = std::path::absolute(&arguments.out).context("cannot tell where the sweep goes")?;
    let own =
        std::env::current_exe().context("cannot tell where `sae` is, to start jobs with it")?;
    let mut sweep =
        Sweep::write(manifest, &out, own, &mut |manifest| Ok(crate::pin::pin(manifest)?))?;
    sweep
        .analysis_arguments
        .extend(arguments.no_activations.then(|| "--no-activations".to_owned()));
    let settings = Settings {
        jobs: arguments.jobs,
        devices: devices(global.device)?,
        show: show(global),
        arguments: verbosity(global),
    };
    let launcher = launcher(&arguments.launcher, settings)
        .with_context(|| format!("there is no launcher {}", arguments.launcher))?;
    let began = Instant::now();
    match launcher.launch(&sweep)? {
        Outcome::Finished => {
            let report = layout::report(&sweep.folder);
            let took = HumanDuration(began.elapsed());
            tracing::info!("done in {took:#}; the report is {}", report.display());
            Ok(())
        }
        Outcome::Failed(jobs) => bail!(
            "jobs failed: {}; what they said is above. The same command tries again what is not finished; a run that \
             diverged is finished, and is trained anew once its folder is removed",
            jobs.join(", ")
        ),
        Outcome::Interrupted => Err(Interrupted.into()),
        Outcome::Prepared(how) => crate::print(&how),
    }
}

fn expand(arguments: &Arguments) -> anyhow::Result<Manifest> {
    let Arguments { config, max_runs, .. } = arguments;
    if reference::is_reference(config) {
        return load_sweep(config, *max_runs);
    }
    Ok(SweepConfig::load(config)?.expand(*max_runs)?.into())
}

/// Refuses runs whose model is not where they look for it.
fn check_models(manifest: &Manifest) -> anyhow::Result<()> {
    let places = manifest.runs().filter_map(|run| Some((&run.id, run.config.model.path.local()?)));
    match places.into_iter().find(|(_, path)| !path.exists()) {
        Some((id, path)) => bail!("{id} cannot run: there is no model at {}", path.display()),
        None => Ok(()),
    }
}

/// How the options of all commands would have jobs shown.
fn show(global: &Global) -> Show {
    match global.progress {
        ProgressMode::Json => Show::Json,
        _ if global.quiet => Show::Quiet,
        ProgressMode::Auto => Show::Auto,
        ProgressMode::Bars => Show::Bars,
        ProgressMode::Lines => Show::Lines,
    }
}

/// The same options for jobs.
fn verbosity(global: &Global) -> Vec<String> {
    let quiet = global.quiet.then(|| "--quiet".to_owned());
    quiet.into_iter().chain((0..global.verbose).map(|_| "--verbose".to_owned())).collect()
}

/// The CUDA devices that jobs get, by what the variable `CUDA_VISIBLE_DEVICES` calls them; none where jobs run on the CPU.
fn devices(choice: DeviceChoice) -> anyhow::Result<Vec<String>> {
    let Device::Cuda(index) = choice.resolve()? else { return Ok(Vec::new()) };
    let mut visible = visible_cuda_devices();
    if visible.is_empty() {
        // A container may have devices and no tool that lists them.
        visible = (0..tch::Cuda::device_count()).map(|device| device.to_string()).collect();
    }
    // libtorch counts among the visible ones.
    let one = || visible.get(index).cloned().into_iter().collect();
    Ok(if choice == DeviceChoice::Auto { visible } else { one() })
}

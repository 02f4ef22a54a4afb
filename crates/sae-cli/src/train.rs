//! `sae train`: one run, or one job of a sweep.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use sae_model::device::DeviceChoice;
use sae_record::metric::name;
use sae_record::summary::Status;
use sae_record::{Manifest, RunFolder, Summary};
use sae_train::{RunSpec, made_with, train};

use crate::configuration::{Settings, load_run};
use crate::profile::Profiler;
use crate::telemetry::Telemetry;

/// Train SAEs: one run from its TOML, or a job of a sweep's manifest (a bank of runs)
///
/// Writes config.toml, metrics.jsonl, summary.json, features.parquet and the weights, in SAELens' directory format, to
/// the run's folder. The same command goes on where an earlier one was interrupted, and does nothing for a finished run.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # One run
  sae train configs/runs/rust-lm.toml --out runs/first
  # The same with another rate
  sae train configs/runs/rust-lm.toml --set train.lr=1e-3 --out runs/second
  # A configuration of the reference, imported
  sae train gpt2_e2e.yaml --out runs/gpt2-e2e
  # The third bank of a sweep, as launchers do
  sae train --manifest runs/rust-lm/manifest.json --job 2")]
pub(crate) struct Arguments {
    /// The run's configuration: TOML, or the reference's YAML
    #[arg(required_unless_present = "manifest", conflicts_with = "manifest")]
    config: Option<PathBuf>,
    /// The run's folder
    #[arg(long, value_name = "FOLDER", conflicts_with = "manifest", required_unless_present_any = ["manifest", "print_config"])]
    out: Option<PathBuf>,
    /// A sweep's manifest
    #[arg(long, value_name = "FILE", requires = "job")]
    manifest: Option<PathBuf>,
    /// The job of the manifest, counted from 0
    #[arg(long, value_name = "INDEX", requires = "manifest")]
    job: Option<usize>,
    /// Print the configuration, checked without its model and data, and stop
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    settings: Settings,
    /// Print where a step's time goes, once all are taken
    #[arg(long)]
    profile: bool,
}

pub(crate) fn run(
    arguments: &Arguments,
    device: DeviceChoice,
    telemetry: &mut Telemetry,
) -> anyhow::Result<()> {
    let mut specs = match (&arguments.config, &arguments.manifest, arguments.job) {
        (Some(config), ..) => vec![single(config, arguments.out.as_deref())?],
        (None, Some(manifest), Some(job)) => job_of(manifest, job)?,
        _ => bail!("give a configuration, or --manifest with --job"),
    };
    for spec in &mut specs {
        spec.config = arguments.settings.apply(spec.config.clone())?;
    }
    if arguments.print_config {
        for spec in &specs {
            let text = spec.config.to_toml()?;
            // A bank's runs are told apart by their names.
            let shown =
                if arguments.manifest.is_some() { format!("# {}\n{text}", spec.id) } else { text };
            crate::print(&shown)?;
        }
        return Ok(());
    }
    let finished_before: Vec<String> = specs
        .iter()
        .filter(|spec| spec.folder.summary().is_file())
        .map(|spec| spec.id.clone())
        .collect();
    let (device, made_with) = (device.resolve()?, made_with(env!("SAE_COMMIT")));
    let summaries = if arguments.profile {
        let mut profiler = Profiler::new(telemetry, device);
        let summaries = train(&specs, device, &made_with, &mut profiler)?;
        if let Some(table) = &profiler.table {
            crate::print(table)?;
        }
        summaries
    } else {
        train(&specs, device, &made_with, telemetry)?
    };
    for (summary, spec) in summaries.iter().zip(&specs) {
        report(summary, finished_before.contains(&spec.id), spec);
    }
    let diverged: Vec<&str> = summaries
        .iter()
        .filter(|summary| summary.status == Status::Diverged)
        .map(|summary| summary.id.as_str())
        .collect();
    if !diverged.is_empty() {
        bail!("diverged: {}; their last good states are kept, and evaluated", diverged.join(", "));
    }
    Ok(())
}

fn single(config: &Path, out: Option<&Path>) -> anyhow::Result<RunSpec> {
    let out = out.unwrap_or(Path::new("."));
    let name = out.file_name().unwrap_or(out.as_os_str());
    Ok(RunSpec {
        id: name.to_string_lossy().into_owned(),
        folder: RunFolder::new(out),
        config: load_run(config)?,
    })
}

fn job_of(path: &Path, index: usize) -> anyhow::Result<Vec<RunSpec>> {
    let manifest = Manifest::load(path)?;
    let jobs = manifest.jobs.len();
    let job = manifest.jobs.into_iter().nth(index).with_context(|| {
        format!("{} has {jobs} jobs, counted from 0; there is no job {index}", path.display())
    })?;
    let base = path.parent().unwrap_or(Path::new("."));
    Ok(job
        .runs
        .into_iter()
        .map(|run| RunSpec {
            id: run.id,
            folder: RunFolder::new(base.join(run.folder)),
            config: run.config,
        })
        .collect())
}

fn report(summary: &Summary, was_finished: bool, spec: &RunSpec) {
    let found = &summary.evaluation.values;
    let alive: u64 = summary.alive.values().sum();
    tracing::info!(
        "{}: L0 {:.1}, alive {alive}, CE increase {:.4}, KL {:.4}; {} {}",
        summary.id,
        found.get(name::L0),
        found.get(name::CE_INCREASE),
        found.get(name::KL),
        if was_finished { "it was finished already, in" } else { "wrote" },
        spec.folder.path().display()
    );
}

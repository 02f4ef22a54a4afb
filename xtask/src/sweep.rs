//! `cargo xtask sweep`: sets up and builds what `sae sweep` needs, makes the corpus where the sweep trains on it, and runs it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use clap::Args;
use sae_config::sweep::MOST_RUNS;
use sae_config::{SweepConfig, reference};
use sae_launch::describe;
use sae_record::Manifest;

use crate::{corpus, tool};

/// Run a sweep: expand, train, evaluate, analyse; without a configuration, the paper's three types on the embedded model
///
/// Sets up libtorch, builds `sae` and makes the corpus first, then calls `sae sweep`. A second call goes on where the first
/// was interrupted, and skips finished runs.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo xtask sweep
  cargo xtask sweep configs/sweeps/rust-lm.toml --dry-run")]
pub(crate) struct Arguments {
    /// The sweep's TOML, or a Weights & Biases sweep of the reference (YAML)
    #[arg(default_value = "configs/sweeps/rust-lm.toml")]
    config: PathBuf,
    /// Print jobs and runs, with tokens and memory, and stop
    #[arg(long)]
    dry_run: bool,
    /// Jobs at a time [default: one a CUDA device, one on a CPU]
    #[arg(long, short, value_name = "N")]
    jobs: Option<std::num::NonZeroUsize>,
    /// The folder that the sweep's own folder is made in [default: runs, in the workspace]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Use this binary instead of building one
    #[arg(long, value_name = "PATH")]
    sae: Option<PathBuf>,
    /// Expand to this many runs at most
    #[arg(long, value_name = "N", default_value_t = MOST_RUNS)]
    max_runs: usize,
    /// More for `sae sweep`, after `--`: a launcher, a device
    #[arg(last = true, value_name = "ARGUMENTS")]
    rest: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    // The default is named as seen from the workspace, from wherever the task is called.
    let config = std::path::absolute(&arguments.config)?;
    let config = if config.is_file() { config } else { tool::root().join(&arguments.config) };
    let out = match &arguments.out {
        Some(out) => std::path::absolute(out)?,
        None => tool::root().join("runs"),
    };
    let sae = arguments.sae.as_deref().map(std::path::absolute).transpose()?;
    // What the reference's sweeps are of is left to the binary, which knows models.
    let manifest: Option<Manifest> = if reference::is_reference(&config) {
        None
    } else {
        Some(SweepConfig::load(&config)?.expand(arguments.max_runs)?.into())
    };
    if let (true, Some(manifest)) = (arguments.dry_run, &manifest) {
        return tool::print(&describe(manifest));
    }
    let sae = tool::sae(sae.as_deref())?;
    let ours = tool::root().canonicalize()?.join("data/corpus");
    let is_ours = |path: &Path| path.starts_with(&ours);
    let mut runs = manifest.iter().flat_map(Manifest::runs);
    let needs_corpus = runs.any(|run| run.config.data.train.local().is_some_and(is_ours));
    if needs_corpus {
        corpus::ensure(Some(&sae))?;
    }
    let mut command = Command::new(sae);
    command.arg("sweep").arg(&config).arg("--out").arg(out);
    command.arg("--max-runs").arg(arguments.max_runs.to_string());
    if let Some(jobs) = arguments.jobs {
        command.arg("--jobs").arg(jobs.to_string());
    }
    if arguments.dry_run {
        command.arg("--dry-run");
    }
    command.args(&arguments.rest);
    replace(command)
}

/// Becomes the command, so that signals reach it and its exit code is ours.
#[cfg(unix)]
fn replace(mut command: Command) -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt;
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", tool::show(&command)))
}

#[cfg(not(unix))]
fn replace(mut command: Command) -> anyhow::Result<()> {
    tool::run(&mut command)
}

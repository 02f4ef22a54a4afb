//! `sae import`: the reference's YAML → this project's TOML.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use sae_config::file::write_atomically;
use sae_config::reference::{self, Kind};
use sae_config::sweep::MOST_RUNS;

use crate::configuration::{load_run, load_sweep};
use crate::pretrain::load_pretraining;

/// Read a configuration of the reference (e2e_sae) and write it as TOML
///
/// What has no meaning here, or another one, is named in a warning. `sae train` takes the YAML of a run itself too, `sae
/// pretrain` that of a language model. A W&B sweep becomes a manifest, JSON, for `sae train --manifest`; `sae sweep`
/// takes its YAML itself.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sae import gpt2_e2e.yaml
  sae import gpt2_e2e.yaml --out configs/runs/gpt2-e2e.toml
  sae import tiny_gpt2.yaml --out configs/pretrain/tiny-gpt2.toml")]
pub(crate) struct Arguments {
    /// The reference's YAML
    config: PathBuf,
    /// The file to write; stdout where left out
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Expand a sweep to this many runs at most
    #[arg(long, value_name = "N", default_value_t = MOST_RUNS)]
    max_runs: usize,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let config = &arguments.config;
    let text = match reference::kind(config)? {
        Kind::Sweep => serde_json::to_string_pretty(&load_sweep(config, arguments.max_runs)?)?,
        Kind::LanguageModel => load_pretraining(config)?.to_toml()?,
        // What is not taken is refused there.
        Kind::Run | Kind::Mnist => load_run(config)?.to_toml()?,
    };
    match &arguments.out {
        None => crate::print(text.trim_end()),
        Some(path) => {
            write_atomically(path, text.as_bytes())
                .with_context(|| format!("cannot write {}", path.display()))?;
            tracing::info!("wrote {}", path.display());
            Ok(())
        }
    }
}

//! `sae import`: the reference's YAML → this project's TOML.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use sae_config::reference;

use crate::configuration::{load_run, load_sweep};

/// Read a configuration of the reference (e2e_sae) and write it as TOML
///
/// What has no meaning here is named in a warning. `sae train` takes the YAML itself too. A W&B sweep becomes a manifest,
/// JSON, for `sae train --manifest`; `cargo xtask sweep` takes its YAML itself.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sae import gpt2_e2e.yaml
  sae import gpt2_e2e.yaml --out configs/runs/gpt2-e2e.toml")]
pub(crate) struct Arguments {
    /// The reference's YAML
    config: PathBuf,
    /// The file to write; stdout where left out
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let toml = if reference::is_sweep(&arguments.config)? {
        serde_json::to_string_pretty(&load_sweep(&arguments.config)?)?
    } else {
        load_run(&arguments.config)?.to_toml()?
    };
    match &arguments.out {
        None => crate::print(toml.trim_end()),
        Some(path) => {
            std::fs::write(path, toml)
                .with_context(|| format!("cannot write {}", path.display()))?;
            tracing::info!("wrote {}", path.display());
            Ok(())
        }
    }
}

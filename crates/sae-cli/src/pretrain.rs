//! `sae pretrain`: a small language model from nothing.

use std::path::{Path, PathBuf};

use clap::Args;
use sae_config::{PretrainConfig, reference};
use sae_model::device::DeviceChoice;

use crate::configuration::Settings;
use crate::telemetry::Telemetry;

/// Train a small language model of GPT-2's architecture
///
/// Writes config.json, model.safetensors (half precision), tokenizer.json, training.json and a model card. The same command goes on
/// where an earlier one was interrupted, and does nothing for a finished model; another model in the folder is not replaced.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sae pretrain configs/pretrain/rust-lm.toml --out data/rust-lm
  # A smaller one, for a try
  sae pretrain configs/pretrain/rust-lm.toml --set train.n_steps=500 --set train.warmup_steps=50 --set model.n_layers=2 --out models/try
  # A language model's configuration of the reference, imported
  sae pretrain tiny_gpt2.yaml --out models/tiny-gpt2")]
pub(crate) struct Arguments {
    /// The configuration: TOML, or the reference's YAML
    config: PathBuf,
    #[command(flatten)]
    settings: Settings,
    /// The folder to write to
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

pub(crate) fn run(
    arguments: &Arguments,
    device: DeviceChoice,
    telemetry: &mut Telemetry,
) -> anyhow::Result<()> {
    let config = arguments.settings.apply_to_pretraining(load_pretraining(&arguments.config)?)?;
    let device = device.resolve()?;
    let result = sae_train::pretrain::pretrain(&config, &arguments.out, device, telemetry)?;
    tracing::info!(
        "validation loss {:.4} nats a token, a bigram model's {:.4}; the model is {}",
        result.validation_loss,
        result.bigram_validation_loss,
        arguments.out.display()
    );
    Ok(())
}

/// Loads a pretraining's configuration; warnings of an import are logged.
pub(crate) fn load_pretraining(path: &Path) -> anyhow::Result<PretrainConfig> {
    if !reference::is_reference(path) {
        return Ok(PretrainConfig::load(path)?);
    }
    let mut imported = reference::load_language_model(path)?;
    for warning in &imported.warnings {
        tracing::warn!("{}: {warning}", path.display());
    }
    // As there, to the working directory.
    imported.config.resolve_paths(Path::new("."));
    Ok(imported.config)
}

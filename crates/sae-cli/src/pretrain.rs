//! `sae pretrain`: a small language model from nothing.

use std::path::PathBuf;

use clap::Args;
use sae_config::PretrainConfig;
use sae_model::device::DeviceChoice;

use crate::telemetry::Telemetry;

/// Train a small language model of GPT-2's architecture
///
/// Writes config.json, model.safetensors (half precision), tokenizer.json, training.json and a model card.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  sae pretrain configs/pretrain/rust-lm.toml --out data/rust-lm")]
pub(crate) struct Arguments {
    /// The configuration, TOML
    config: PathBuf,
    /// The folder to write to
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

pub(crate) fn run(
    arguments: &Arguments,
    device: DeviceChoice,
    telemetry: &mut Telemetry,
) -> anyhow::Result<()> {
    let config = PretrainConfig::load(&arguments.config)?;
    let device = device.resolve()?;
    let result = sae_train::pretrain::pretrain(&config, &arguments.out, device, telemetry)?;
    tracing::info!(
        "validation loss {:.4} nats a token, a bigram model's {:.4}; wrote {}",
        result.validation_loss,
        result.bigram_validation_loss,
        arguments.out.display()
    );
    Ok(())
}

//! `sae eval`: evaluate SAEs.

use std::path::PathBuf;

use clap::Args;
use sae_config::Source;
use sae_model::device::DeviceChoice;

use crate::configuration::{Settings, Trained, check_place, trained};
use crate::telemetry::Telemetry;

/// Evaluate SAEs, on their own evaluation set or another
///
/// Takes a run's folder, a checkpoint in it, or the reference's samples_N.pt (beside final_config.yaml, or a .yaml of its own name), here or on
/// the hub. Prints all metrics as JSON; with --progress json as the line whose `event` is `result`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sae eval runs/rust-lm/e2e_sparsity-0.8
  # A checkpoint that log.checkpoint_every_n_steps has kept
  sae eval runs/gpt2/checkpoints/step_2500
  # More windows, of other data
  sae eval runs/rust-lm/e2e_sparsity-0.8 --data data/corpus/validation --n-samples 2048
  # A model that has moved since; where it is another one, a warning says so
  sae eval runs/gpt2 --set model.path=/models/gpt2
  # Published SAEs of the reference
  sae eval hf://apollo-research/e2e-saes-gpt2/e2e_similar_ce_layer_6.pt")]
pub(crate) struct Arguments {
    /// A run's folder, a checkpoint in it, or a .pt of the reference
    #[arg(value_name = "SAES")]
    saes: String,
    /// Their configuration, where it does not lie beside them
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Evaluate on this data instead: a path, or hf://owner/name
    #[arg(long, value_name = "PATH")]
    data: Option<Source>,
    /// The split of that data
    #[arg(long, requires = "data")]
    split: Option<String>,
    /// The column of that data, where it is not the training data's
    #[arg(long, requires = "data")]
    column: Option<String>,
    #[command(flatten)]
    settings: Settings,
    /// Evaluate on so many windows instead
    #[arg(long, value_name = "WINDOWS", value_parser = clap::value_parser!(u64).range(1..))]
    n_samples: Option<u64>,
}

pub(crate) fn run(
    arguments: &Arguments,
    device: DeviceChoice,
    telemetry: &mut Telemetry,
) -> anyhow::Result<()> {
    let Trained { config, saes } = trained(&arguments.saes, arguments.config.as_deref())?;
    let mut config = arguments.settings.apply_to_trained(config)?;
    check_place(&config)?;
    if let Some(data) = &arguments.data {
        config.eval.data = data.clone();
        config.eval.split.clone_from(&arguments.split);
        if arguments.column.is_some() {
            config.eval.column.clone_from(&arguments.column);
        }
    }
    if let Some(n_samples) = arguments.n_samples {
        config.eval.n_samples = Some(n_samples);
    }
    let evaluation = sae_train::evaluate_saes(&config, &saes, device.resolve()?, telemetry)?;
    telemetry.result(&evaluation)
}

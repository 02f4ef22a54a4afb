//! `sae eval`: evaluate a run's SAEs.

use std::path::PathBuf;

use clap::Args;
use sae_model::device::DeviceChoice;

use crate::telemetry::Telemetry;

/// Evaluate a run's SAEs, on its own evaluation set or another
///
/// Prints all metrics as JSON.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sae eval runs/rust-lm/e2e_sparsity-2
  # More windows, of other data
  sae eval runs/rust-lm/e2e_sparsity-2 --data data/corpus/validation --n-samples 2048")]
pub(crate) struct Arguments {
    /// The run's folder
    run: PathBuf,
    /// Evaluate on this data instead
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Evaluate on so many windows instead
    #[arg(long, value_name = "WINDOWS")]
    n_samples: Option<u64>,
}

pub(crate) fn run(
    arguments: &Arguments,
    device: DeviceChoice,
    telemetry: &mut Telemetry,
) -> anyhow::Result<()> {
    let change = |config: &mut sae_config::RunConfig| {
        if let Some(data) = &arguments.data {
            config.eval.data.clone_from(data);
        }
        if let Some(n_samples) = arguments.n_samples {
            config.eval.n_samples = n_samples;
        }
    };
    let folder = sae_config::RunFolder::new(&arguments.run);
    if folder.config().is_file() && !folder.summary().is_file() {
        anyhow::bail!(
            "{} is not finished: it has no summary.json; `sae train` with its configuration goes on with it",
            arguments.run.display()
        );
    }
    let evaluation = sae_train::evaluate_run(&arguments.run, device.resolve()?, change, telemetry)?;
    crate::print(&serde_json::to_string_pretty(&evaluation)?)
}

//! `sae convert`: SAEs of the reference → SAELens's format.

use std::path::PathBuf;

use clap::Args;

use crate::configuration::trained;

/// Write SAEs in the directory format of SAELens, a folder a site
///
/// Reads the reference's samples_N.pt (beside final_config.yaml, or a .yaml of its own name), here or on the hub. Tensors
/// are read, nothing in the file is executed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sae convert out/run/samples_400000.pt --out saes/run
  sae convert hf://apollo-research/e2e-saes-gpt2/e2e_similar_ce_layer_6.pt --out saes/e2e-6")]
pub(crate) struct Arguments {
    /// A .pt of the reference, a run's folder, or a checkpoint in it
    #[arg(value_name = "SAES")]
    saes: String,
    /// Its configuration, where it does not lie beside it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder to write to
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let found = trained(&arguments.saes, arguments.config.as_deref())?;
    for folder in sae_train::convert(&found.config, &found.saes, &arguments.out)? {
        tracing::info!("wrote {}", folder.display());
    }
    Ok(())
}

//! `sae pin`: a manifest with the commits of all that it names on the hub.

use std::path::PathBuf;

use clap::Args;
use sae_record::Manifest;
use sae_train::{Sources, TrainError};

/// Record in a sweep's manifest the commits that its branches and tags of the hub stand for now
///
/// All runs of the sweep then read the same commit of each repository, whenever their jobs start. `sae sweep` does this
/// when it writes a manifest.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  sae pin runs/pythia/manifest.json")]
pub(crate) struct Arguments {
    /// The manifest
    manifest: PathBuf,
    /// The file to write [default: the manifest itself]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Pins every run of a manifest.
pub(crate) fn pin(manifest: &mut Manifest) -> Result<(), TrainError> {
    let sources = Sources::default();
    let mut runs = manifest.jobs.iter_mut().flat_map(|job| &mut job.runs);
    runs.try_for_each(|run| sources.pin(&mut run.config))
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut manifest = Manifest::load(&arguments.manifest)?;
    pin(&mut manifest)?;
    manifest.save(arguments.out.as_ref().unwrap_or(&arguments.manifest))?;
    Ok(())
}

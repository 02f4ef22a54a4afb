//! `sae frontier`: a sweep's finished runs → table, pictures, report.

use std::path::PathBuf;

use clap::Args;

/// Draw the frontiers of a sweep's finished runs
///
/// Writes frontier.json, frontier.csv, frontier.svg, frontier.png and report.html into the sweep's folder, and prints
/// the table.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  sae frontier runs/rust-lm")]
pub(crate) struct Arguments {
    /// The sweep's folder
    sweep: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let analysis = sae_analysis::analyse(&arguments.sweep)?;
    crate::print(&analysis.text)?;
    tracing::info!("wrote {}", analysis.report.display());
    Ok(())
}

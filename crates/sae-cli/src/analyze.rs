//! `sae analyze`: finished runs → measurements of activations, tables, pictures, report.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use sae_analysis::embedding::Region;
use sae_analysis::{AnalysisOptions, SweepRuns, analyse_with, matching::MatchBy};
use sae_model::device::DeviceChoice;
use sae_train::dashboards::make_dashboards;
use sae_train::progress::Observer;
use sae_train::{TrainError, measure::measure_activations};

use crate::configuration::{Settings, load_runs, specs_of};
use crate::telemetry::Telemetry;

/// Make the tables, figures and report of finished runs: of a sweep, of a single run, or of runs side by side
///
/// Measures the model's and the SAEs' activations, and makes the dashboards of features (`sae features`), where that has not been done, then writes report.html, analysis.json
/// and a CSV, SVG and PNG of each subject (frontier, downstream, geometry, umap, activations, stability, features, concepts, explanations, tasks, gradients, training; matches
/// also as Markdown and LaTeX) into the folder, and prints the table of runs and what was found.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sae analyze runs/rust-lm
  # A single run
  sae analyze runs/rust-lm/e2e_sparsity-0.3
  # Look closely at runs of equal L0
  sae analyze runs/rust-lm --match l0
  # Frontiers of their own for every dictionary size and learning rate
  sae analyze runs/gpt2 --facet sae.expansion --facet train.lr
  # Where the model has moved since; activations of another one are not measured
  sae analyze runs/rust-lm --set model.path=/models/rust-lm
  # Without the features that are hardly ever active
  sae analyze runs/rust-lm --alive-above 1e-4")]
pub(crate) struct Arguments {
    /// The folder of a sweep, of a run, or of several runs
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// What the runs that are looked at closely are equal in: ce (CE increase), l0, or alive (features)
    #[arg(long = "match", value_name = "WHAT", default_value_t = MatchBy::CeIncrease)]
    match_by: MatchBy,
    /// Split the frontiers by a key of the configuration; may be given several times
    #[arg(long = "facet", value_name = "KEY")]
    facets: Vec<String>,
    /// Count as alive only features that are active on more than this share of tokens; 0: all that were active once
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    alive_above: f64,
    /// Do not load the model to measure activations and to look at features; what was measured before is shown
    #[arg(long)]
    no_activations: bool,
    /// Draw and list these regions of the pictures of pairs: TOML with a table `[[region]]` each: name, `x = [from, to]`,
    /// `y = [from, to]` and, where it is of one pair alone, `runs = [ID, ID]`
    #[arg(long, value_name = "TOML")]
    regions: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

pub(crate) fn run(
    arguments: &Arguments,
    device: DeviceChoice,
    telemetry: &mut Telemetry,
) -> anyhow::Result<()> {
    let Arguments { folder, match_by, facets, alive_above, no_activations, regions, settings } =
        arguments;
    let options = AnalysisOptions {
        match_by: *match_by,
        facets: facets.clone(),
        alive_above: *alive_above,
        regions: regions.as_deref().map_or_else(|| Ok(Vec::new()), Region::read)?,
        ..AnalysisOptions::default()
    };
    let runs = load_runs(folder, &options)?;
    let unknown =
        options.regions.iter().flat_map(|region| &region.runs).find(|id| runs.run(id).is_none());
    if let Some(unknown) = unknown {
        bail!("a region is of the run {unknown}, which {} has not", folder.display());
    }
    if !no_activations {
        measure(&runs, settings, device, telemetry)?;
    }
    let analysis = analyse_with(folder, &options, &mut |event| telemetry.notice(event))?;
    telemetry.result(&analysis.text)?;
    tracing::info!(
        "wrote {} files; the report is {}",
        analysis.files.len(),
        analysis.report.display()
    );
    Ok(())
}

/// Without these the analysis is poorer, but not wrong: all but a wish to stop is a warning.
fn measure(
    runs: &SweepRuns,
    settings: &Settings,
    device: DeviceChoice,
    telemetry: &mut Telemetry,
) -> anyhow::Result<()> {
    let specs = specs_of(runs, settings)?;
    let device = device.resolve()?;
    let measured = measure_activations(&runs.folder, &specs, device, telemetry);
    unless_stopped(measured, "activations are not measured", telemetry)?;
    let made = make_dashboards(&specs, None, device, telemetry);
    unless_stopped(made.map(|_| ()), "no dashboards of features are made", telemetry)
}

fn unless_stopped(
    outcome: Result<(), TrainError>,
    what: &str,
    telemetry: &mut Telemetry,
) -> anyhow::Result<()> {
    match outcome {
        Ok(()) => Ok(()),
        Err(error @ TrainError::InterruptedEvaluation) => bail!(error),
        Err(error) => {
            telemetry.finish();
            tracing::warn!("{what}: {error}");
            Ok(())
        }
    }
}

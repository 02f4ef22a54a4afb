//! `sae concepts`: finished runs → how well their features tell the concepts of a text.

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;
use sae_analysis::AnalysisOptions;
use sae_interp::{Labeller, Language};
use sae_model::device::DeviceChoice;
use sae_train::concepts::{Concepts, TOKENS, measure_concepts};

use crate::configuration::{Settings, load_runs, specs_of};
use crate::telemetry::Telemetry;

/// Measure how well the features of finished runs tell what tokens are: interpretability without a judge
///
/// A parser says of every token of the evaluation data which concepts it has: which keyword, the name of a function, within a match
/// arm, … Of every concept the best feature is found, with a threshold, on one half of the documents, and its F1 measured on
/// the other; the same for dimensions of the residual stream, neurons, principal and random directions. `sae analyze` shows it, with
/// intervals. The evaluation data has to be text in the language.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sae concepts runs/rust-lm
  sae analyze runs/rust-lm      # the table, the figure, the section of the report
  sae concepts runs/rust-lm --tokens 50000")]
pub(crate) struct Arguments {
    /// The folder of a sweep, of a run, or of several runs
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// The language of the evaluation data
    #[arg(long, value_name = "NAME", default_value = Language::Rust.name(), value_parser = PossibleValuesParser::new(Language::ALL.map(Language::name)))]
    language: String,
    /// Tokens to measure on, an even sample of the evaluation data's windows
    #[arg(long, value_name = "N", default_value_t = TOKENS, value_parser = clap::value_parser!(u64).range(1..))]
    tokens: u64,
    #[command(flatten)]
    settings: Settings,
}

pub(crate) fn run(
    arguments: &Arguments,
    device: DeviceChoice,
    telemetry: &mut Telemetry,
) -> anyhow::Result<()> {
    let Arguments { folder, language, tokens, settings } = arguments;
    let language: Language = language.parse()?;
    let runs = load_runs(folder, &AnalysisOptions::default())?;
    let specs = specs_of(&runs, settings)?;
    let all: Vec<[&str; 3]> = language
        .concepts()
        .iter()
        .map(|concept| [concept.name, concept.group, concept.meaning])
        .collect();
    let mut labeller = Labeller::new(language)?;
    let mut label = |text: &str, tokens: &[[u32; 2]]| {
        labeller.label(text, tokens).map_err(|error| error.to_string())
    };
    let concepts = Concepts { language: language.name(), all: &all, label: &mut label };
    let device = device.resolve()?;
    measure_concepts(&runs.folder, &specs, concepts, *tokens, device, telemetry)?;
    tracing::info!("measured; `sae analyze {}` shows it", folder.display());
    Ok(())
}

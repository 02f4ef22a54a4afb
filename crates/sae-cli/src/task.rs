//! `sae task`: finished runs and prompts with two answers → what of the model's preferences is left with SAEs spliced in.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use sae_analysis::AnalysisOptions;
use sae_model::device::DeviceChoice;
use sae_train::task::measure_task;

use crate::configuration::{Settings, load_runs, specs_of};
use crate::telemetry::Telemetry;

/// Measure what of a task is left with SAEs spliced in: as subject–verb agreement
///
/// A task is a file of JSON lines with a prompt (clean_prefix), what is right after it (clean_answer) and what is wrong (patch_answer);
/// of either the first token counts. Faithfulness is the mean difference of their logits with SAEs spliced in over that of the original
/// model. `sae analyze` compares the types, with intervals. A task needs a model that can do it: English for agreement, Rust for
/// configs/tasks/rust-brackets.jsonl.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sae task runs/rust-lm configs/tasks/rust-brackets.jsonl
  sae analyze runs/rust-lm      # the table and the figure
  # The data of Marks et al. 2024 (arXiv 2403.19647)
  sae task runs/gpt2-small rc_test.json")]
pub(crate) struct Arguments {
    /// The folder of a sweep, of a run, or of several runs
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// The task; its file's name is its name
    #[arg(value_name = "JSONL")]
    task: PathBuf,
    #[command(flatten)]
    settings: Settings,
}

pub(crate) fn run(
    arguments: &Arguments,
    device: DeviceChoice,
    telemetry: &mut Telemetry,
) -> anyhow::Result<()> {
    let Arguments { folder, task, settings } = arguments;
    let runs = load_runs(folder, &AnalysisOptions::default())?;
    let found = measure_task(&specs_of(&runs, settings)?, task, device.resolve()?, telemetry)?;
    let Some(first) = found.first() else { bail!("no run could be measured") };
    let n = first.task.original.len();
    let [original, _] = first.task.accuracies();
    let mut lines =
        vec![format!("{n} prompts, of which the original model gets {original:.3} right")];
    lines.extend(found.iter().map(|own| {
        let [_, spliced] = own.task.accuracies();
        let faithfulness = own.task.faithfulness(&vec![1.0; n]);
        format!("{:<40} faithfulness {faithfulness:.3}, {spliced:.3} right", own.run)
    }));
    telemetry.result(&lines.join("\n"))
}

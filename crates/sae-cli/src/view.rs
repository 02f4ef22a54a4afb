//! `sae view`: finished runs in a browser, served on this machine.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use sae_analysis::AnalysisOptions;
use sae_model::device::DeviceChoice;
use sae_view::{Library, PromptThread, serve};

use crate::configuration::{Settings, load_runs, specs_of};

/// Look at the features of finished runs in a browser, and try prompts with them
///
/// Serves what `sae features` has made on this machine alone, at an address that it prints: every feature of every run, the report,
/// and a prompt, of which it shows the active features, and what the model expects next by itself, with the SAEs spliced in, and
/// with features ablated, scaled or set. Ends with Ctrl-C.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sae view runs/rust-lm
  # On another machine: forward the port, the same on both sides, then open the address here
  ssh -t -L 8765:127.0.0.1:8765 cluster sae view runs/gpt2 --port 8765
  # Without the model
  sae view runs/rust-lm --no-model")]
pub(crate) struct Arguments {
    /// The folder of a sweep, of a run, or of several runs
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// The port; 0: a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,
    /// Do not offer prompts, which load the model
    #[arg(long)]
    no_model: bool,
    #[command(flatten)]
    settings: Settings,
}

pub(crate) fn run(arguments: &Arguments, device: DeviceChoice) -> anyhow::Result<()> {
    let Arguments { folder, port, no_model, settings } = arguments;
    let found = load_runs(folder, &AnalysisOptions::default())?;
    let groups = found.finished.iter().map(|run| run.group.to_string());
    let runs = specs_of(&found, settings)?.into_iter().zip(groups).collect();
    let library = Library::open(folder, runs)?;
    let prompts = match no_model {
        true => None,
        false => Some(PromptThread::start(device.resolve()?)),
    };
    let server = serve(library, prompts, *port)?;
    crate::print(&server.address)?;
    tracing::info!("open it in a browser on this machine; Ctrl-C ends");
    server.join().context("the server has ended")
}

//! `cargo xtask bench`: this project beside its Python peers, in one run that alternates between them, written to
//! `docs/benchmarks.md`.

mod data;
mod page;
mod peer;
mod train;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::tool;

/// Measure speed and memory beside the Python peers, and write docs/benchmarks.md
///
/// The peers need `python3`; their packages are installed into a virtual environment under target/.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  cargo xtask bench data
  cargo xtask bench train --shapes tiny")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
    /// Use this binary instead of building one
    #[arg(long, value_name = "PATH", global = true)]
    sae: Option<PathBuf>,
    /// Times that each side is measured
    #[arg(long, value_name = "N", global = true, default_value = "5")]
    rounds: std::num::NonZeroUsize,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Reading windows and tokenising text, against Hugging Face datasets and tokenizers
    Data,
    /// Training steps, against PyTorch on TransformerLens
    Train {
        /// The shapes to measure: tiny, ts1m, gpt2, and for a GPU gpt2-paper
        #[arg(long, value_delimiter = ',', default_value = "tiny,ts1m,gpt2")]
        shapes: Vec<String>,
        /// cpu, cuda or cuda:NUMBER, for both sides
        #[arg(long, default_value = "cpu")]
        device: String,
    },
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let sae = tool::sae(arguments.sae.as_deref())?;
    let python = peer::python()?;
    let rounds = arguments.rounds.get();
    match &arguments.what {
        What::Data => data::run(&sae, &python, rounds),
        What::Train { shapes, device } => train::run(&sae, &python, shapes, device, rounds),
    }
}

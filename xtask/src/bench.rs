//! `cargo xtask bench`: this project beside its Python peers, in one run that alternates between them, written to
//! `docs/benchmarks.md`.

mod analysis;
mod data;
mod features;
mod page;
mod peer;
mod train;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::tool;

/// Measure speed and memory beside the Python peers, and write docs/benchmarks.md
///
/// Of one benchmark alone the table is printed: the page is one run of all of them. The peers need `python3`; their packages are installed into a virtual environment under target/.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo xtask bench                        # data, training on the CPU, analysis: docs/benchmarks.md
  cargo xtask bench train --shapes tiny
  cargo xtask bench train --before /tmp/sae    # whether a change has made training slower
  cargo xtask bench train --device cuda --shapes gpt2,gpt2-paper")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    /// Use this binary instead of building one
    #[arg(long, value_name = "PATH", global = true)]
    sae: Option<PathBuf>,
    /// Times that each side is measured
    #[arg(long, value_name = "N", global = true, default_value = "5")]
    rounds: std::num::NonZeroUsize,
    /// Write the page of a tree that differs from its commit, too
    #[arg(long)]
    allow_dirty: bool,
}

/// The shapes that a CPU is measured at.
const SHAPES: [&str; 3] = ["tiny", "ts1m", "gpt2"];

#[derive(Debug, Subcommand)]
enum What {
    /// Reading windows and tokenising text, against Hugging Face datasets and tokenizers
    Data,
    /// Training steps, against PyTorch on TransformerLens
    Train {
        /// The shapes to measure: tiny, ts1m, gpt2, and for a GPU gpt2-paper
        #[arg(long, value_delimiter = ',', default_values = SHAPES)]
        shapes: Vec<String>,
        /// cpu, cuda or cuda:NUMBER, for both sides
        #[arg(long, default_value = "cpu")]
        device: String,
        /// Measure against another build of `sae` instead of the peer, and print the table
        #[arg(long, value_name = "PATH")]
        before: Option<PathBuf>,
    },
    /// The look at features: random codes, and runs beside their evaluation
    Features {
        /// The finished sweep's folder
        #[arg(long, value_name = "FOLDER", default_value = features::SWEEP)]
        sweep: PathBuf,
    },
    /// Cosines of dictionaries, against PyTorch, and `sae analyze` of a whole sweep
    Analysis {
        /// The finished sweep's folder
        #[arg(long, value_name = "FOLDER", default_value = analysis::SWEEP)]
        sweep: PathBuf,
    },
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.what.is_none() && !arguments.allow_dirty {
        page::ensure_clean()?;
    }
    let sae = tool::sae(arguments.sae.as_deref())?;
    let rounds = arguments.rounds.get();
    if let Some(What::Train { shapes, device, before: Some(before) }) = &arguments.what {
        let before = tool::sae(Some(before))?;
        return train::against(&sae, &before, shapes, device, rounds);
    }
    match &arguments.what {
        Some(What::Data) => data::run(&sae, &peer::python()?, rounds)?,
        Some(What::Train { shapes, device, before: _ }) => {
            train::run(&sae, &peer::python()?, shapes, device, rounds)?
        }
        Some(What::Features { sweep }) => features::run(&sae, sweep, rounds)?,
        Some(What::Analysis { sweep }) => analysis::run(&sae, &peer::python()?, sweep, rounds)?,
        None => {
            let python = peer::python()?;
            return page::write(&[
                data::run(&sae, &python, rounds)?,
                train::run(&sae, &python, &SHAPES.map(str::to_owned), "cpu", rounds)?,
                analysis::run(&sae, &python, Path::new(analysis::SWEEP), rounds)?,
                features::run(&sae, Path::new(features::SWEEP), rounds)?,
            ]);
        }
    };
    Ok(())
}

//! `cargo xtask test`: every test of the workspace, after what they need is there.

use clap::Args;

use crate::{corpus, setup, tool};

/// Run all tests, documentation tests included
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo xtask test
  cargo xtask test -- spliced")]
pub(crate) struct Arguments {
    /// Passed on to `cargo test`
    #[arg(last = true)]
    rest: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    setup::ensure()?;
    tool::say(
        "building; the first build compiles the libtorch binding and takes about 12 minutes on 2 cores",
    );
    // Libraries and binaries first: the corpus, which some tests read, is made by the same build of `sae` that they test.
    tool::run(tool::cargo().args(["build", "--workspace"]))?;
    corpus::ensure(Some(&tool::root().join("target/debug/sae")))?;
    tool::run(tool::cargo().args(["test", "--workspace"]).args(&arguments.rest))
}

//! `cargo xtask test`: every test of the workspace, after what they need is there.

use std::process::Command;

use anyhow::{Context, ensure};
use clap::Args;

use crate::{check, corpus, outside, setup, tool};

/// Run all tests, documentation tests included
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo xtask test
  cargo xtask test -- spliced
  cargo xtask test --long    # on Debian: apt-get install qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross")]
pub(crate) struct Arguments {
    /// Run what takes longer or needs other tools too: the crates' examples in a project of their own, crates without
    /// libtorch checked for aarch64, the kernels' tests run on an emulated one
    #[arg(long)]
    long: bool,
    /// Passed on to `cargo test`
    #[arg(last = true)]
    rest: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    setup::ensure()?;
    tool::say(
        "building; the first build compiles the libtorch binding and takes about 10 minutes on 2 cores",
    );
    // Libraries and binaries first: the corpus, which some tests read, is made by the same build of `sae` that they test.
    tool::run(tool::cargo().args(["build", "--workspace"]))?;
    corpus::ensure(Some(&tool::root().join("target/debug/sae")))?;
    tool::run(tool::cargo().args(["test", "--workspace"]).args(&arguments.rest))?;
    if arguments.long {
        outside::run()?;
        other_processors()?;
    }
    Ok(())
}

const AARCH64: &str = "aarch64-unknown-linux-gnu";
const COMPILER: &str = "aarch64-linux-gnu-gcc";
const EMULATOR: &str = "qemu-aarch64";

/// Checks the crates without libtorch for aarch64, and runs the tests of the kernels there, whose loops are compiled for
/// each processor on its own.
fn other_processors() -> anyhow::Result<()> {
    for needed in [COMPILER, EMULATOR] {
        let found = Command::new(needed).arg("--version").output();
        let found = found.with_context(|| {
            format!(
                "cannot start {needed}, which compiles or runs for aarch64; on Debian: apt-get install qemu-user \
                 gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
            )
        })?;
        ensure!(found.status.success(), "`{needed} --version` failed ({})", found.status);
    }
    tool::run(Command::new("rustup").args(["target", "add", AARCH64]).current_dir(tool::root()))?;
    let cross = || {
        let mut cargo = tool::cargo();
        cargo.env("CC_aarch64_unknown_linux_gnu", COMPILER);
        cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", COMPILER);
        let emulated = format!("{EMULATOR} -L /usr/aarch64-linux-gnu");
        cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", emulated);
        cargo
    };
    tool::say("aarch64: checking the crates without libtorch");
    let packages = check::WITHOUT_TORCH.iter().flat_map(|name| ["--package", name]);
    tool::run(cross().args(["check", "--target", AARCH64]).args(packages))?;
    tool::say("aarch64: the kernels' tests, emulated");
    let tests = ["test", "--target", AARCH64, "--package", "sae-kernels"];
    tool::run(cross().args(tests))
}

//! The Python side: its virtual environment, and runs of either side that print a line of JSON.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::tool;

const REQUIREMENTS: &str = "scripts/peer/requirements.txt";

/// The interpreter of `target/venv-tlens`.
pub(crate) fn python() -> anyhow::Result<PathBuf> {
    tool::environment("venv-tlens", REQUIREMENTS, &[], "the Python peers, about 3 GB")
}

/// A script of `scripts/peer`.
pub(crate) fn script(python: &Path, name: &str) -> Command {
    let mut command = Command::new(python);
    command.arg("-B").arg(tool::root().join("scripts/peer").join(name));
    command
}

/// Runs a command and reads the last line that it prints as JSON.
pub(crate) fn json(command: &mut Command) -> anyhow::Result<Value> {
    let shown = tool::show(command);
    let output = command
        .current_dir(tool::root())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .with_context(|| format!("cannot start {shown}"))?;
    if !output.status.success() {
        bail!("{shown} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().with_context(|| format!("{shown} printed nothing"))?;
    serde_json::from_str(line).with_context(|| format!("{shown} printed no JSON: {line}"))
}

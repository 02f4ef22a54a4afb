//! The Python side: its virtual environment, and runs of either side that print a line of JSON.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::tool;

const REQUIREMENTS: &str = "scripts/peer/requirements.txt";

/// The interpreter of `target/venv-tlens`, made where it is missing or has other versions than are pinned.
pub(crate) fn python() -> anyhow::Result<PathBuf> {
    let folder = tool::root().join("target/venv-tlens");
    let python = folder.join("bin/python");
    let requirements = std::fs::read_to_string(tool::root().join(REQUIREMENTS))
        .with_context(|| format!("cannot read {REQUIREMENTS}"))?;
    let stamp = folder.join("requirements");
    if std::fs::read_to_string(&stamp).is_ok_and(|found| found == requirements) {
        return Ok(python);
    }
    if !python.is_file() {
        tool::run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    }
    tool::say("installing the Python peers, about 3 GB");
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "-r"]).arg(tool::root().join(REQUIREMENTS));
    tool::run(&mut pip)?;
    std::fs::write(&stamp, requirements).context("cannot write the stamp of the environment")?;
    Ok(python)
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

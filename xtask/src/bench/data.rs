//! Reading windows and tokenising text, against Hugging Face `datasets` and `tokenizers`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};
use sae_record::{Event, Phase};

use super::page::{Section, Spread, spread};
use super::peer;
use crate::{corpus, tool};

const CONTEXT: usize = 128;
const BATCH: usize = 16;
/// The embedded corpus, and how many of its windows are read and tokenised in a round.
const TEXT: &str = "data/corpus/train";
const TOKENIZER: &str = "data/rust-lm/tokenizer.json";
const WINDOWS: usize = 40_000;

/// Tokens a second of both sides.
struct Row {
    ours: Vec<f64>,
    peers: Vec<f64>,
}

pub(crate) fn run(sae: &Path, python: &Path, rounds: usize) -> anyhow::Result<Section> {
    corpus::ensure(Some(sae))?;
    let windows = windows(sae)?;
    let mut rows =
        [Row { ours: Vec::new(), peers: Vec::new() }, Row { ours: Vec::new(), peers: Vec::new() }];
    for round in 1..=rounds {
        tool::say(&format!("round {round} of {rounds}"));
        rows[0].ours.push(rate(&mut ours(sae, &windows, "input_ids"))?);
        rows[0].peers.push(rate(&mut theirs(python, &windows, "input_ids", "windows"))?);
        let (text, tokenizer) = (Path::new(TEXT), ["--tokenizer", TOKENIZER]);
        rows[1].ours.push(rate(ours(sae, text, "text").args(tokenizer))?);
        rows[1].peers.push(rate(theirs(python, text, "text", "text").args(tokenizer))?);
    }
    let training = training_rate(sae)?;
    let [read, text] = rows.map(|row| (spread(&row.ours), spread(&row.peers)));
    let line = |what: &str, (ours, peers): (Spread, Spread)| {
        format!(
            "| {what} | {} | {} | {:.1}× |\n",
            million(ours),
            million(peers),
            ours.median / peers.median
        )
    };
    let body = format!(
        "{WINDOWS} windows of {CONTEXT} tokens in batches of {BATCH}, of the embedded corpus; median of {rounds} rounds, least and \
         most in brackets. Reading goes through a shuffle buffer of 1 000 windows on both sides.\n\n\
         | | this project, M tokens/s | `datasets` + `tokenizers`, M tokens/s | ratio |\n| --- | ---: | ---: | ---: |\n\
         {}{}\n\
         The fastest training here (`local`, one SAE, `configs/runs/rust-lm.toml`) takes {:.0} tokens/s: reading windows \
         is {:.0} times as fast, tokenising text {:.0} times.\n",
        line("reading windows", read),
        line("tokenising text", text),
        training,
        read.0.median / training,
        text.0.median / training,
    );
    tool::print(&body)?;
    Ok(Section { title: "Data", body })
}

fn million(Spread { median, least, most }: Spread) -> String {
    format!("{:.2} [{:.2}, {:.2}]", median / 1e6, least / 1e6, most / 1e6)
}

/// The corpus as windows, made once.
fn windows(sae: &Path) -> anyhow::Result<PathBuf> {
    let folder = PathBuf::from("target/bench/windows");
    if !tool::root().join(&folder).is_dir() {
        let mut command = Command::new(sae);
        command.current_dir(tool::root());
        command.args(["prepare", "--shards", TEXT, "--tokenizer", TOKENIZER, "--context-length"]);
        tool::run(command.arg(CONTEXT.to_string()).arg("--out").arg(&folder))?;
    }
    Ok(folder)
}

fn ours(sae: &Path, folder: &Path, column: &str) -> Command {
    let mut command = Command::new(sae);
    command.args(["bench", "data"]).arg(folder);
    sizes(&mut command, column);
    command
}

fn theirs(python: &Path, folder: &Path, column: &str, mode: &str) -> Command {
    let mut command = peer::script(python, "data.py");
    command.arg(folder).args(["--mode", mode]);
    sizes(&mut command, column);
    command
}

fn sizes(command: &mut Command, column: &str) {
    command.args(["--column", column, "--context-length", &CONTEXT.to_string()]);
    command.args(["--batch-size", &BATCH.to_string(), "--max-windows", &WINDOWS.to_string()]);
}

fn rate(command: &mut Command) -> anyhow::Result<f64> {
    let line = peer::json(command)?;
    line["tokens_per_second"]
        .as_f64()
        .with_context(|| format!("{} printed no tokens_per_second: {line}", tool::show(command)))
}

/// Tokens a second of a training of type `local`, between its first steps and its last.
fn training_rate(sae: &Path) -> anyhow::Result<f64> {
    const WARM_UP: u64 = 20;
    let folder = tool::root().join("target/bench/local");
    // The measurement is of steps, not of what an earlier one has left.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).context("cannot create target/bench/local")?;
    let text = std::fs::read_to_string(tool::root().join("configs/runs/rust-lm.toml"))?;
    let root = tool::root().display().to_string();
    let text = text
        .replace("\"../../", &format!("\"{root}/"))
        .replace("kl = { coeff = 1.0 }", "local = { coeff = 1.0 }")
        .replace("n_samples = 4000", "n_samples = 2400")
        .replace("alive_tokens = 500_000", "alive_tokens = 2_048");
    let config = folder.join("run.toml");
    std::fs::write(&config, text)?;
    let mut command = Command::new(sae);
    command.current_dir(tool::root()).args(["--progress", "json", "train"]).arg(&config);
    command.arg("--out").arg(folder.join("run"));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let (mut unit, mut first, mut last) = (0, None, None);
    let mut training = false;
    for line in BufReader::new(child.stdout.take().context("no output")?).lines() {
        match serde_json::from_str(&line?) {
            Ok(Event::Began { phase, tokens_per_unit, .. }) => {
                training = phase == Phase::Train;
                if training {
                    unit = tokens_per_unit;
                }
            }
            Ok(Event::Advanced { done, .. }) if training => {
                if done == WARM_UP {
                    first = Some(Instant::now());
                }
                last = Some((done, Instant::now()));
            }
            _ => {}
        }
    }
    if !child.wait()?.success() {
        bail!("{} failed", tool::show(&command));
    }
    match (first, last) {
        (Some(first), Some((done, last))) if done > WARM_UP => {
            Ok(((done - WARM_UP) * unit) as f64 / last.duration_since(first).as_secs_f64())
        }
        _ => bail!("{} told of no steps", tool::show(&command)),
    }
}

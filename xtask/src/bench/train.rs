//! Training steps, against PyTorch on TransformerLens written as the reference trains.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::page::{Section, Spread, spread};
use super::peer;
use crate::tool;

const TYPES: [&str; 3] = ["local", "e2e", "e2e+ds"];
const BANK: usize = 5;
/// Seconds that a side's steps of a round are to take, about.
const ROUND: f64 = 1.5;

/// The shapes of the table; weights and tokens are random.
fn shape(name: &str) -> anyhow::Result<Value> {
    let shape = match name {
        "tiny" => json!({
            "family": "gpt2", "layers": 6, "d_model": 128, "heads": 4, "vocab": 4096, "batch": 16, "context": 128,
            "layer": 3, "expansion": 16, "active": null,
        }),
        "ts1m" => json!({
            "family": "gpt_neo", "layers": 8, "d_model": 64, "heads": 16, "vocab": 50257, "batch": 4, "context": 512,
            "layer": 4, "expansion": 50, "active": null,
        }),
        // With about as many active features as a real run has nearly all the time.
        "gpt2" => json!({
            "family": "gpt2", "layers": 12, "d_model": 768, "heads": 12, "vocab": 50257, "batch": 1, "context": 128,
            "layer": 6, "expansion": 8, "active": 50,
        }),
        "gpt2-paper" => json!({
            "family": "gpt2", "layers": 12, "d_model": 768, "heads": 12, "vocab": 50257, "batch": 16, "context": 1024,
            "layer": 6, "expansion": 60, "active": 50,
        }),
        other => bail!("no shape `{other}`: there are tiny, ts1m, gpt2, and for a GPU gpt2-paper"),
    };
    Ok(shape)
}

/// A process that takes steps when it is asked to.
struct Side {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    shown: String,
    seconds: Vec<f64>,
    last: Value,
}

impl Side {
    /// Starts it and waits until it is warm.
    fn start(mut command: Command) -> anyhow::Result<Self> {
        let shown = tool::show(&command);
        let mut child = command
            .current_dir(tool::root())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {shown}"))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().context("no output")?);
        let stdout = BufReader::new(stdout);
        let mut side = Self { child, stdin, stdout, shown, seconds: Vec::new(), last: Value::Null };
        side.answer()?;
        Ok(side)
    }

    fn answer(&mut self) -> anyhow::Result<Value> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            bail!("{} ended", self.shown);
        }
        serde_json::from_str(&line).with_context(|| format!("{} said {line}", self.shown))
    }

    /// Takes about a round's worth of steps.
    fn round(&mut self) -> anyhow::Result<()> {
        let steps = match self.seconds.last() {
            None => 1,
            Some(seconds) => ((ROUND / seconds).ceil() as usize).clamp(1, 50),
        };
        let stdin = self.stdin.as_mut().context("no input")?;
        writeln!(stdin, "{steps}")?;
        stdin.flush()?;
        self.last = self.answer()?;
        let seconds = self.last["seconds"].as_array().context("no seconds")?;
        let median = spread(&seconds.iter().filter_map(Value::as_f64).collect::<Vec<_>>()).median;
        self.seconds.push(median);
        Ok(())
    }

    /// Tokens a second and SAE; each round's median is one value, the first, which only tells how long a step is, left
    /// out.
    fn rate(&self, members: usize) -> Spread {
        let tokens = self.last["tokens_per_step"].as_f64().unwrap_or(f64::NAN) * members as f64;
        let rates: Vec<f64> = self.seconds[1..].iter().map(|seconds| tokens / seconds).collect();
        spread(&rates)
    }

    fn peak(&self, key: &str) -> f64 {
        self.last[key].as_f64().unwrap_or(f64::NAN)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // It ends when its input does.
        self.stdin = None;
        let _ = self.child.wait();
    }
}

/// A line of the table.
struct Row {
    shape: String,
    kind: &'static str,
    ours: Spread,
    bank: Spread,
    peers: Spread,
    our_peak: f64,
    bank_peak: f64,
    peers_peak: f64,
    peers_imports: f64,
    floor: f64,
    parts: BTreeMap<String, f64>,
}

pub(crate) fn run(
    sae: &Path,
    python: &Path,
    shapes: &[String],
    device: &str,
    rounds: usize,
) -> anyhow::Result<Section> {
    let mut rows = Vec::new();
    for name in shapes {
        for kind in TYPES {
            tool::say(&format!("{name}, {kind}"));
            rows.push(row(sae, python, name, kind, device, rounds)?);
        }
    }
    let mut body = described(shapes)?;
    body.push_str(&table(&rows, rounds, device));
    if device == "cpu" {
        body.push_str(
            "\n`gpt2-paper` is for a GPU and was not measured in this run: `cargo xtask bench train --device cuda --shapes \
             gpt2,gpt2-paper` does.\n",
        );
    }
    tool::print(&body)?;
    Ok(Section { title: "Training", body })
}

/// A shape with a type, as both sides take it.
fn settings(name: &str, kind: &str) -> anyhow::Result<Value> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let mut settings = shape(name)?;
    settings["type"] = kind.into();
    settings["warmup_steps"] = 2.into();
    // Small, so that as many features stay active as there were.
    settings["lr"] = 1e-5.into();
    settings["threads"] = threads.into();
    Ok(settings)
}

/// `sae bench COMMAND` at these settings.
fn own(sae: &Path, device: &str, settings: &Value, members: usize, command: &str) -> Command {
    let mut settings = settings.clone();
    settings["members"] = members.into();
    if device != "cpu" {
        settings["precision"] = "bf16".into();
    }
    let mut process = Command::new(sae);
    process.args(["--device", device, "bench", command]).arg(settings.to_string());
    process
}

/// How much slower than before a row may be.
const SLOWER: f64 = 0.05;

/// The build of after a change beside that of before it, in rounds that alternate. An error where a row is slower.
pub(crate) fn against(
    sae: &Path,
    before: &Path,
    shapes: &[String],
    device: &str,
    rounds: usize,
) -> anyhow::Result<()> {
    let mut text = format!(
        "Tokens a second, Adam and clipping included: medians of {rounds} rounds, least and most in brackets.\n\n\
         | shape | type | SAEs | before | after | ratio |\n| --- | --- | ---: | ---: | ---: | ---: |\n"
    );
    let mut slower = Vec::new();
    for name in shapes {
        for (kind, members) in TYPES.into_iter().flat_map(|kind| [(kind, 1), (kind, BANK)]) {
            tool::say(&format!("{name}, {kind}, {members}"));
            let settings = settings(name, kind)?;
            let mut old = Side::start(own(before, device, &settings, members, "train"))?;
            let mut new = Side::start(own(sae, device, &settings, members, "train"))?;
            for _ in 0..=rounds {
                old.round()?;
                new.round()?;
            }
            let (old, new) = (old.rate(members), new.rate(members));
            let ratio = new.median / old.median;
            if ratio < 1.0 - SLOWER {
                slower.push(format!("{name}, {kind}, {members}: {ratio:.3}"));
            }
            text.push_str(&cells(&[
                format!("`{name}`"),
                format!("`{kind}`"),
                members.to_string(),
                rate(old),
                rate(new),
                format!("{ratio:.3}"),
            ]));
        }
    }
    tool::print(&text)?;
    if !slower.is_empty() {
        bail!("slower than before by more than {:.0} %: {}", 100.0 * SLOWER, slower.join("; "));
    }
    Ok(())
}

fn row(
    sae: &Path,
    python: &Path,
    name: &str,
    kind: &'static str,
    device: &str,
    rounds: usize,
) -> anyhow::Result<Row> {
    let settings = settings(name, kind)?;
    let on_gpu = device != "cpu";
    let own = |members: usize, command: &str| own(sae, device, &settings, members, command);
    let mut ours = Side::start(own(1, "train"))?;
    let mut bank = Side::start(own(BANK, "train"))?;
    let mut theirs = settings.clone();
    theirs["device"] = device.into();
    let mut peers = peer::script(python, "train.py");
    peers.arg(theirs.to_string()).arg("--serve");
    let mut peers = Side::start(peers)?;
    for _ in 0..=rounds {
        for side in [&mut ours, &mut bank, &mut peers] {
            side.round()?;
        }
    }
    let floor = peer::json(&mut own(1, "floor"))?;
    let seconds = |key: &str| floor[key].as_f64().unwrap_or(f64::NAN);
    let tokens = ours.last["tokens_per_step"].as_f64().unwrap_or(f64::NAN);
    // On a GPU: what the card has given the process, against what PyTorch has allocated of it.
    let peak = if on_gpu { "device_peak_bytes" } else { "peak_bytes" };
    Ok(Row {
        shape: name.to_owned(),
        kind,
        ours: ours.rate(1),
        bank: bank.rate(BANK),
        peers: peers.rate(1),
        our_peak: ours.peak(peak),
        bank_peak: bank.peak(peak),
        peers_peak: peers.peak(peak),
        peers_imports: peers.peak("import_bytes"),
        floor: tokens / (seconds("products") + seconds("adam")),
        parts: serde_json::from_value(ours.last["parts"].clone()).unwrap_or_default(),
    })
}

/// The shapes in words.
fn described(shapes: &[String]) -> anyhow::Result<String> {
    let mut text = "| shape | model | batch | dictionary | active features |\n| --- | --- | --- | --- | --- |\n".to_owned();
    for name in shapes {
        let shape = shape(name)?;
        let number = |key: &str| shape[key].as_u64().unwrap_or_default();
        let width = number("d_model");
        let active = match shape["active"].as_u64() {
            Some(active) => format!("about {active} a token, by the encoder's bias"),
            None => "those of the initialisation".to_owned(),
        };
        text.push_str(&cells(&[
            format!("`{name}`"),
            format!(
                "{}, {} layers of {width}, vocabulary {}",
                shape["family"].as_str().unwrap_or_default(),
                number("layers"),
                number("vocab")
            ),
            format!("{} × {} tokens", number("batch"), number("context")),
            format!("{} elements before block {}", number("expansion") * width, number("layer")),
            active,
        ]));
    }
    text.push('\n');
    Ok(text)
}

fn table(rows: &[Row], rounds: usize, device: &str) -> String {
    let memory = if device == "cpu" {
        "peak resident memory of the process, and what of it the peer's imports alone (Python, PyTorch, TransformerLens) take, \
         before there is a model"
    } else {
        "peak memory of the card: what it has given to our process, what PyTorch has allocated of it. Ours is in bf16 but \
         for KL, the peer in f32, as the reference trains"
    };
    let mut text = format!(
        "Tokens a second, Adam and clipping included: medians of {rounds} rounds, least and most in brackets; {memory}. The peer is PyTorch eager on TransformerLens. The bank has {BANK} SAEs, its rate is \
         of all together, and its last column is its time against {BANK} single runs. The floor is the step's matrix \
         products, each at the rate of its own shape, and Adam's bytes.\n\n\
         | shape | type | one SAE | peer | ratio | GB | peer's GB | of it imports | ratio | of the floor | bank | GB | time |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    );
    for row in rows {
        let line = [
            format!("`{}`", row.shape),
            format!("`{}`", row.kind),
            rate(row.ours),
            rate(row.peers),
            format!("{:.1}×", row.ours.median / row.peers.median),
            format!("{:.2}", row.our_peak / 1e9),
            format!("{:.2}", row.peers_peak / 1e9),
            // The card's memory holds no imports.
            if device == "cpu" { format!("{:.2}", row.peers_imports / 1e9) } else { String::new() },
            format!("{:.2}×", row.our_peak / row.peers_peak),
            format!("{:.0} %", 100.0 * row.ours.median / row.floor),
            rate(row.bank),
            format!("{:.2}", row.bank_peak / 1e9),
            format!("{:.2}×", row.ours.median / row.bank.median),
        ];
        text.push_str(&cells(&line));
    }
    text.push_str(
        "\nWhat the floor leaves out: two exponentials a logit and the passes over them, attention's softmax, GELU and \
         norms with their gradients, the SAE's dictionary and ReLU, clipping; and it takes the best time of each product \
         by itself, where the table has medians of whole steps.\n",
    );
    text.push_str("\nWhere a step's time goes, one SAE, in milliseconds:\n\n");
    let mut names: Vec<&String> = rows.iter().flat_map(|row| row.parts.keys()).collect();
    names.sort();
    names.dedup();
    let head =
        ["shape", "type"].map(str::to_owned).into_iter().chain(names.iter().map(|n| (*n).clone()));
    text.push_str(&cells(&head.collect::<Vec<_>>()));
    let rule = (0..2).map(|_| "---").chain(names.iter().map(|_| "---:")).map(str::to_owned);
    text.push_str(&cells(&rule.collect::<Vec<_>>()));
    for row in rows {
        let mut line = vec![format!("`{}`", row.shape), format!("`{}`", row.kind)];
        for name in &names {
            line.push(row.parts.get(*name).map_or("–".to_owned(), |ms| format!("{ms:.1}")));
        }
        text.push_str(&cells(&line));
    }
    text
}

/// The middle of the rounds, and the ends.
fn rate(Spread { median, least, most }: Spread) -> String {
    format!("{median:.0} [{least:.0}, {most:.0}]")
}

/// A line of a table.
fn cells(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

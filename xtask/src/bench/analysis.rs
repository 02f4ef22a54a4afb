//! The analysis: the cosines of a pair of dictionaries of GPT-2 small's size, against PyTorch; and of a whole sweep.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};
use sae_record::{Manifest, RunFolder, layout};
use serde_json::Value;

use super::page::{Section, Spread, spread};
use super::peer;
use crate::tool;

/// The sweep whose analysis is timed.
pub(super) const SWEEP: &str = "runs/rust-lm-paper";

/// GPT-2 small at 60 times its width.
const ROWS: u64 = 46_080;
const COLUMNS: u64 = 768;

/// Of a side: seconds and gigabytes, a number a round.
#[derive(Default)]
struct Side {
    within: Vec<f64>,
    across: Vec<f64>,
    gigabytes: Vec<f64>,
}

impl Side {
    fn take(&mut self, found: &Value) -> anyhow::Result<()> {
        let number = |key: &str| {
            found[key].as_f64().with_context(|| format!("there is no {key} in {found}"))
        };
        self.within.push(number("within_seconds")?);
        self.across.push(number("across_seconds")?);
        self.gigabytes.push(number("peak_bytes")? / 1e9);
        Ok(())
    }

    fn total(&self) -> Vec<f64> {
        self.within.iter().zip(&self.across).map(|(within, across)| within + across).collect()
    }
}

pub(super) fn run(
    sae: &Path,
    python: &Path,
    sweep: &Path,
    rounds: usize,
) -> anyhow::Result<Section> {
    let (mut ours, mut peers) = (Side::default(), Side::default());
    for round in 1..=rounds {
        tool::say(&format!("cosines, round {round} of {rounds}"));
        let mut command = Command::new(sae);
        ours.take(&peer::json(sized(command.args(["bench", "cosines"])))?)?;
        peers.take(&peer::json(sized(&mut peer::script(python, "cosines.py")))?)?;
    }
    let line = |what: &str, of: fn(&Side) -> Vec<f64>, decimals: usize| {
        let (ours, peers) = (spread(&of(&ours)), spread(&of(&peers)));
        let cell = |Spread { median, least, most }: Spread| {
            format!("{median:.decimals$} [{least:.decimals$}, {most:.decimals$}]")
        };
        format!(
            "| {what} | {} | {} | {:.2}× |\n",
            cell(ours),
            cell(peers),
            ours.median / peers.median
        )
    };
    let mut body = format!(
        "The largest cosine of every element of two dictionaries of {ROWS} × {COLUMNS} random numbers: to its own \
         dictionary's others, twice, and to the other dictionary's, both ways. The peer forms the whole matrix of \
         cosines, as the reference does. Medians of {rounds} rounds, least and most in brackets.\n\n\
         | | this project | PyTorch | ratio |\n| --- | ---: | ---: | ---: |\n{}{}{}{}",
        line("within both, s", |side| side.within.clone(), 1),
        line("across, s", |side| side.across.clone(), 1),
        line("both, s", Side::total, 1),
        line("peak memory, GB", |side| side.gigabytes.clone(), 2),
    );
    body.push('\n');
    body.push_str(&whole_sweep(sae, sweep)?);
    tool::print(&body)?;
    Ok(Section { title: "Analysis", body })
}

fn sized(command: &mut Command) -> &mut Command {
    command.args(["--rows", &ROWS.to_string(), "--columns", &COLUMNS.to_string()])
}

/// `sae analyze` of a finished sweep, with its measurements of activations made anew.
fn whole_sweep(sae: &Path, sweep: &Path) -> anyhow::Result<String> {
    let folder = tool::root().join(sweep);
    let path = layout::manifest(&folder);
    if !path.is_file() {
        return Ok(format!(
            "The analysis of a whole sweep was not measured: there is none in {}.\n",
            sweep.display()
        ));
    }
    let manifest = Manifest::load(&path)?;
    let runs: Vec<_> = manifest.runs().collect();
    let unfinished = runs
        .iter()
        .filter(|run| !RunFolder::new(folder.join(&run.folder)).summary().is_file())
        .count();
    if unfinished > 0 {
        bail!(
            "{unfinished} of {} runs in {} are not finished: `cargo xtask sweep` goes on with them",
            runs.len(),
            sweep.display()
        );
    }
    let measured: Vec<PathBuf> = runs
        .iter()
        .flat_map(|run| {
            let site = |site| layout::activations(&folder, site);
            let own = RunFolder::new(folder.join(&run.folder)).activations();
            run.config.sae.sites.iter().copied().map(site).chain([own])
        })
        .collect();
    for path in measured {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
    }
    tool::say(&format!("sae analyze {}", sweep.display()));
    let mut command = Command::new(sae);
    command.current_dir(tool::root()).arg("--quiet").arg("analyze").arg(sweep);
    let began = Instant::now();
    tool::run(command.stdout(Stdio::null()))?;
    let measured = began.elapsed().as_secs_f64();
    let began = Instant::now();
    tool::run(command.arg("--no-activations"))?;
    let again = began.elapsed().as_secs_f64();
    let config = &runs[0].config;
    Ok(format!(
        "`sae analyze {}`, {} runs with dictionaries of {} times the model's width: {measured:.0} s, of which {again:.0} s \
         are left where the activations were measured before.\n",
        sweep.display(),
        runs.len(),
        config.sae.expansion.get()
    ))
}

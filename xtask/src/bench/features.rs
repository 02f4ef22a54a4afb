//! Looking at features: the gathering alone, on random codes, and beside an evaluation of the same tokens.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use sae_record::{Manifest, layout};
use serde_json::Value;

use super::page::{Section, spread};
use super::peer;
use crate::tool;

/// The sweep whose runs are looked at.
pub(super) const SWEEP: &str = "runs/rust-lm";

pub(super) fn run(sae: &Path, sweep: &Path, rounds: usize) -> anyhow::Result<Section> {
    tool::say("features of random codes");
    let found = peer::json(Command::new(sae).args(["bench", "gather"]))?;
    let number = |found: &Value, key: &str| {
        found[key].as_f64().with_context(|| format!("there is no {key} in {found}"))
    };
    let (tokens, seconds) = (number(&found, "tokens")?, number(&found, "seconds")?);
    let mut body = format!(
        "Gathering density, histograms, examples and partners of 46 080 features from random codes, 50 of them active on a token \
         (`sae bench gather`): {:.1} M tokens in {seconds:.0} s, {:.0} k tokens a second, {:.1} GB at most.\n\n",
        tokens / 1e6,
        tokens / seconds / 1e3,
        number(&found, "peak_bytes")? / 1e9,
    );
    body.push_str(&beside_evaluation(sae, sweep, rounds)?);
    tool::print(&body)?;
    Ok(Section { title: "Features", body })
}

/// A run of each job of a finished sweep.
fn beside_evaluation(sae: &Path, sweep: &Path, rounds: usize) -> anyhow::Result<String> {
    let folder = tool::root().join(sweep);
    let path = layout::manifest(&folder);
    if !path.is_file() {
        return Ok(format!(
            "Features of runs were not measured: there is no sweep in {}.\n",
            sweep.display()
        ));
    }
    let manifest = Manifest::load(&path)?;
    let mut table = "The evaluation of a run, and the look at its features on the same tokens, from the data set on (`sae bench \
                     features`), tokens a second.\n\n| run | evaluation | features | ratio |\n| --- | ---: | ---: | ---: |\n"
        .to_owned();
    for run in manifest.jobs.iter().filter_map(|job| job.runs.first()) {
        let (mut evaluation, mut features, mut ratio) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=rounds {
            tool::say(&format!("features of {}, round {round} of {rounds}", run.id));
            let mut command = Command::new(sae);
            let found =
                peer::json(command.args(["bench", "features"]).arg(folder.join(&run.folder)))?;
            let number = |key: &str| {
                found[key].as_f64().with_context(|| format!("there is no {key} in {found}"))
            };
            let tokens = number("tokens")?;
            evaluation.push(tokens / number("evaluation_seconds")?);
            features.push(tokens / number("features_seconds")?);
            ratio.push(number("evaluation_seconds")? / number("features_seconds")?);
        }
        let medians = [&evaluation, &features, &ratio].map(|found| spread(found).median);
        let [evaluation, features, ratio] = medians;
        let id = &run.id;
        let _ = writeln!(table, "| `{id}` | {evaluation:.0} | {features:.0} | {ratio:.1}× |");
    }
    Ok(table)
}

//! `cargo xtask compare`: whether two builds of `sae` train and evaluate the same, bit for bit.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use clap::Args;
use sae_config::SweepConfig;
use sae_record::{Manifest, RunFolder, layout};
use serde_json::Value;

use crate::{corpus, tool};

/// Compare what two builds of `sae` train, bit for bit
///
/// Trains small SAEs with both (20 steps of each type: plain, with accumulation, at several sites, beside a frozen SAE,
/// with activation checkpointing, with p = 0.5, in double precision, with few active features, of every architecture, as
/// transcoders; in banks of three, and the plain ones alone), each process with one thread, and compares metrics, weights,
/// optimiser states and features. Cases that the binary of before does not know are left out, and named.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cp target/release/sae /tmp/before    # then change the code
  cargo xtask compare --before /tmp/before")]
pub(crate) struct Arguments {
    /// The binary of before a change
    #[arg(long, value_name = "PATH")]
    before: PathBuf,
    /// The binary of after it, instead of building one
    #[arg(long, value_name = "PATH")]
    after: Option<PathBuf>,
}

/// What every run of the comparison has.
const COMMON: &str = r#"
base = "configs/runs/rust-lm.toml"
[set]
"sae.expansion" = 8
"train.n_samples" = 160
"train.batch_size" = 8
"train.lr" = 1e-2
"train.schedule.warmup_samples" = 16
"eval.n_samples" = 16
"eval.alive_tokens" = 4_096
"data.context_length" = 64
"data.shuffle_buffer" = 64
"log.every_n_steps" = 1
"log.checkpoint_every_n_steps" = 20
"#;

/// The SAE that some of the runs begin with: trained until few features are active.
const PRETRAINED: &str = r#"
[[variants]]
name = "sae"
set = { "sae.sites" = ["blocks.2.hook_resid_pre"], "train.n_samples" = 1200, "train.lr" = 3e-2, "loss.kl.coeff" = 1.0, "loss.sparsity.coeff" = 40.0 }
"#;

/// The paper's types: the name, a variant's `unset` and `set`, three sparsity coefficients.
const TYPES: [(&str, &str, &str, [f64; 3]); 3] = [
    ("local", r#"["loss.kl"]"#, r#""loss.local.coeff" = 1.0"#, [0.7, 2.5, 30.0]),
    ("e2e", "[]", r#""loss.kl.coeff" = 1.0"#, [1.0, 4.0, 40.0]),
    (
        "e2e+ds",
        "[]",
        r#""loss.kl.coeff" = 0.5, "loss.downstream.total_coeff" = 2.5"#,
        [3.0, 15.0, 90.0],
    ),
];

/// What is tried with each type: the name, and what it sets.
const CASES: [(&str, &str); 13] = [
    ("plain", ""),
    ("accumulated", r#""train.batch_size" = 4, "train.effective_batch_size" = 8"#),
    (
        "sites",
        r#""sae.sites" = ["blocks.1.hook_resid_pre", "blocks.3.hook_mlp_out", "blocks.4.hook_resid_pre"]"#,
    ),
    (
        "frozen",
        r#""sae.sites" = ["blocks.2.hook_resid_pre", "blocks.4.hook_resid_pre"], "sae.pretrained" = [PRETRAINED]"#,
    ),
    ("recomputed", r#""train.recompute" = true"#),
    ("p-half", r#""loss.sparsity.p" = 0.5"#),
    ("f64", r#""train.precision" = "f64""#),
    (
        "few",
        r#""sae.sites" = ["blocks.2.hook_resid_pre"], "sae.pretrained" = [PRETRAINED], "sae.retrain" = true"#,
    ),
    // Their sparsity term is trained on too: it has to stay the same as well.
    ("topk", r#""sae.architecture.topk.k" = 12"#),
    ("batch_topk", r#""sae.architecture.batch_topk.k" = 12"#),
    ("matryoshka", r#""sae.architecture.matryoshka.k" = 12"#),
    ("jumprelu", r#""sae.architecture.jumprelu" = { initial_threshold = 0.1, bandwidth = 0.5 }"#),
    (
        "transcoders",
        r#""sae.sites" = ["blocks.2.hook_mlp_out", "blocks.3.hook_mlp_out"], "sae.reads" = ["blocks.2.mlp.hook_in", "blocks.3.mlp.hook_in"], "sae.skip" = true"#,
    ),
];

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let before = tool::sae(Some(&arguments.before))?;
    let after = tool::sae(arguments.after.as_deref())?;
    std::env::set_current_dir(tool::root()).context("cannot enter the workspace")?;
    corpus::ensure(Some(&after))?;
    let root = tool::root().join("target/compare");
    if root.exists() {
        std::fs::remove_dir_all(&root)
            .with_context(|| format!("cannot remove {}", root.display()))?;
    }
    let pretrained = manifest("pretrained", 1, PRETRAINED)?;
    train(&before, &pretrained, &root)?;
    let pretrained = root.join("pretrained/sae");
    let (mut compared, mut differences, mut unknown) = (0, Vec::new(), Vec::new());
    let banks = CASES.iter().map(|case| (case.0.to_owned(), 3, case));
    for (name, bank_size, case) in banks.chain([("alone".to_owned(), 1, &CASES[0])]) {
        let manifest = manifest(&name, bank_size, &variants(case, &pretrained))?;
        if !knows(&before, &manifest, &root.join("before"))? {
            unknown.push(name);
            continue;
        }
        for (side, sae) in [("before", &before), ("after", &after)] {
            train(sae, &manifest, &root.join(side))?;
        }
        for run in manifest.runs() {
            let folder = |side: &str| root.join(side).join(&name).join(&run.folder);
            compared += 1;
            differences.extend(
                differing(&folder("before"), &folder("after"))?
                    .into_iter()
                    .map(|difference| format!("{name}/{}: {difference}", run.id)),
            );
        }
    }
    ensure!(
        differences.is_empty(),
        "{} differences in {compared} runs, which lie in {}:\n{}",
        differences.len(),
        root.display(),
        differences.join("\n")
    );
    let unknown = match unknown.as_slice() {
        [] => String::new(),
        names => format!("; not known to the binary of before: {}", names.join(", ")),
    };
    tool::print(&format!("{compared} runs are the same, bit for bit{unknown}"))
}

/// Whether a binary can read a manifest's configurations: an older one may lack an architecture. It is asked for a job that
/// is not there, which it says only after it has read them.
fn knows(sae: &Path, manifest: &Manifest, out: &Path) -> anyhow::Result<bool> {
    let path = write(manifest, out)?;
    let mut command = Command::new(sae);
    command.args(["--quiet", "train", "--manifest"]).arg(&path).args(["--job", "999999"]);
    let output = command.output().with_context(|| format!("cannot start {}", sae.display()))?;
    Ok(String::from_utf8_lossy(&output.stderr).contains("999999"))
}

/// Every type with a case.
fn variants((case, set): &(&str, &str), pretrained: &Path) -> String {
    let pretrained = format!("{:?}", pretrained.display().to_string());
    let set = set.replace("PRETRAINED", &pretrained);
    let mut text = String::new();
    for (kind, unset, own, coefficients) in &TYPES {
        let set = [own, set.as_str()].join(if set.is_empty() { "" } else { ", " });
        let _ = writeln!(
            text,
            "[[variants]]\nname = \"{kind}-{case}\"\nunset = {unset}\nset = {{ {set} }}\n\
             grid = {{ \"loss.sparsity.coeff\" = {coefficients:?} }}"
        );
    }
    text
}

fn manifest(name: &str, bank_size: usize, variants: &str) -> anyhow::Result<Manifest> {
    let text = format!("name = {name:?}\nbank_size = {bank_size}\n{COMMON}\n{variants}");
    let mut sweep = SweepConfig::parse(&text, "the comparison")?;
    sweep.base = tool::root().join(&sweep.base);
    Ok(sweep.expand(sae_config::sweep::MOST_RUNS)?.into())
}

/// Writes a manifest into its sweep's folder below `out`.
fn write(manifest: &Manifest, out: &Path) -> anyhow::Result<PathBuf> {
    let folder = out.join(&manifest.sweep);
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let path = layout::manifest(&folder);
    manifest.save(&path)?;
    Ok(path)
}

/// Trains all jobs below `out`, one after the other, with one thread: with more, libtorch's products differ in their last
/// bits from call to call.
fn train(sae: &Path, manifest: &Manifest, out: &Path) -> anyhow::Result<()> {
    let path = write(manifest, out)?;
    let folder = out.join(&manifest.sweep);
    for index in 0..manifest.jobs.len() {
        let first = &manifest.jobs[index].runs[0].id;
        tool::say(&format!(
            "{}: {first} ({} of {})",
            folder.display(),
            index + 1,
            manifest.jobs.len()
        ));
        let mut command = Command::new(sae);
        command.args(["--quiet", "train", "--manifest"]).arg(&path);
        command.arg("--job").arg(index.to_string());
        for threads in ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"] {
            command.env(threads, "1");
        }
        tool::run(&mut command)?;
    }
    Ok(())
}

/// What is not the same in two runs' folders.
fn differing(before: &Path, after: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = BTreeSet::new();
    files(before, Path::new(""), &mut names)?;
    files(after, Path::new(""), &mut names)?;
    ensure!(RunFolder::new(before).summary().is_file(), "{} is not finished", before.display());
    let mut found = Vec::new();
    for name in names {
        let read = |folder: &Path| std::fs::read(folder.join(&name)).ok();
        let (Some(a), Some(b)) = (read(before), read(after)) else {
            found.push(format!("{} is on one side only", name.display()));
            continue;
        };
        let is_json = name.extension().is_some_and(|extension| extension == "json");
        let same = if is_json { equal(&json(&a)?, &json(&b)?) } else { a == b };
        if !same {
            found.push(format!("{} differs", name.display()));
        }
    }
    Ok(found)
}

/// Whether a file of JSON holds what it held before. A summary may have values of a probe that is new, and lacks none.
fn equal(before: &Value, after: &Value) -> bool {
    let (Some(values), Some(of_after)) = (before.get("evaluation"), after.get("evaluation")) else {
        return before == after;
    };
    let rest = |whole: &Value| {
        let mut rest = whole.clone();
        rest.as_object_mut().map(|object| object.remove("evaluation"));
        rest
    };
    rest(before) == rest(after) && contains(of_after, values)
}

/// Whether everything that `before` has is in `after`.
fn contains(after: &Value, before: &Value) -> bool {
    match (after, before) {
        (Value::Object(after), Value::Object(before)) => {
            before.iter().all(|(key, value)| after.get(key).is_some_and(|own| contains(own, value)))
        }
        (after, before) => after == before,
    }
}

/// A file of JSON; of a summary, what it was made with and what its metrics are is left out.
fn json(bytes: &[u8]) -> anyhow::Result<Value> {
    let mut value: Value = serde_json::from_slice(bytes).context("cannot read JSON")?;
    if let Some(object) = value.as_object_mut() {
        if object.contains_key("evaluation") {
            object.remove("metrics");
        }
        object.remove("versions");
    }
    Ok(value)
}

fn files(root: &Path, inner: &Path, found: &mut BTreeSet<PathBuf>) -> anyhow::Result<()> {
    let folder = root.join(inner);
    for entry in
        std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let entry = entry?;
        let name = inner.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            files(root, &name, found)?;
        } else {
            found.insert(name);
        }
    }
    if found.len() > 10_000 {
        bail!("{} holds too many files to be a run", root.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_is_a_difference_and_another_commit_is_none() {
        let root = tempfile::tempdir().unwrap();
        let (before, after) = (root.path().join("before"), root.path().join("after"));
        for (folder, commit) in [(&before, "a"), (&after, "b")] {
            std::fs::create_dir_all(folder.join("sae")).unwrap();
            std::fs::write(folder.join("sae/weights"), [0, 1, 2]).unwrap();
            let summary = format!(r#"{{"l0": 1.5, "versions": {{"commit": "{commit}"}}}}"#);
            std::fs::write(folder.join("summary.json"), summary).unwrap();
        }
        assert!(differing(&before, &after).unwrap().is_empty());
        std::fs::write(after.join("sae/weights"), [0, 1, 3]).unwrap();
        std::fs::write(after.join("new"), "").unwrap();
        std::fs::write(after.join("summary.json"), r#"{"l0": 1.25, "versions": {}}"#).unwrap();
        assert_eq!(
            differing(&before, &after).unwrap(),
            ["new is on one side only", "sae/weights differs", "summary.json differs"]
        );
        // A new probe is no difference; another value is, and one that is gone.
        let write = |folder: &Path, values: &str| {
            std::fs::write(
                folder.join("summary.json"),
                format!(r#"{{"evaluation": {{"values": {values}}}}}"#),
            )
            .unwrap();
        };
        write(&before, r#"{"kl": 1.0}"#);
        write(&after, r#"{"kl": 1.0, "new": 2.0}"#);
        assert_eq!(differing(&before, &after).unwrap().len(), 2);
        for values in [r#"{"kl": 1.5, "new": 2.0}"#, r#"{"new": 2.0}"#] {
            write(&after, values);
            assert_eq!(differing(&before, &after).unwrap().len(), 3, "{values}");
        }
        std::fs::remove_file(before.join("summary.json")).unwrap();
        assert!(differing(&before, &after).is_err());
    }

    #[test]
    fn every_case_is_of_every_type() {
        for case in &CASES {
            let manifest =
                manifest(case.0, 3, &variants(case, Path::new("some where/sae"))).unwrap();
            assert_eq!(manifest.jobs.len(), TYPES.len());
            assert!(manifest.jobs.iter().all(|job| job.runs.len() == 3));
            let steps: BTreeSet<u64> = manifest.runs().map(|run| run.config.n_steps()).collect();
            assert_eq!(steps, BTreeSet::from([20]));
        }
        // The paper's, and every other architecture.
        for name in &sae_config::Architecture::NAMES[1..] {
            assert!(CASES.iter().any(|case| case.0 == *name), "{name} is not compared");
        }
    }
}

//! What must not happen without a word: results of another model or data, runs that end because nobody reads their log,
//! work that is lost to a signal, files written elsewhere.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.
#![cfg(unix)]

#[path = "../../sae-data/tests/support/hub_server.rs"]
#[allow(dead_code)] // No test needs all of it.
mod hub_server;
mod support;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hub_server::{Server, Shelf, answer};
use sae_config::SweepConfig;
use sae_record::{Manifest, Summary};
use support::{fails, model, sae, sae_with, says, stderr, succeeds, windows};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_sae");

fn toml(model: &str, n_samples: u64) -> String {
    format!(
        r#"
        model = {{ path = {model:?} }}
        data = {{ train = "train", column = "input_ids", context_length = 16 }}
        sae = {{ sites = ["blocks.1.hook_resid_pre"], expansion = 2 }}
        loss = {{ sparsity = {{ coeff = 0.5 }}, kl = {{ coeff = 1.0 }} }}
        train = {{ n_samples = {n_samples}, batch_size = 8, lr = 1e-3 }}
        eval = {{ data = "validation", n_samples = 16, alive_tokens = 500 }}
        log = {{ every_n_steps = 1 }}
        "#
    )
}

/// A folder with windows of random-looking tokens and a run's configuration.
fn place() -> TempDir {
    let place = TempDir::new().unwrap();
    for (name, n, step) in [("train", 200, 7), ("validation", 16, 11)] {
        windows(&place.path().join(name), n, step, 64);
    }
    let text = toml(&model().display().to_string(), 80);
    std::fs::write(place.path().join("run.toml"), text).unwrap();
    place
}

fn edited(at: &Path, name: &str, from: &str, to: &str) {
    let text = std::fs::read_to_string(at.join("run.toml")).unwrap();
    assert!(text.contains(from), "{from}");
    std::fs::write(at.join(name), text.replace(from, to)).unwrap();
}

/// The model of the fixtures, and one whose weights differ.
fn two_models() -> [Vec<(&'static str, Vec<u8>)>; 2] {
    let read = |name: &'static str| (name, std::fs::read(model().join(name)).unwrap());
    let files = ["config.json", "model.safetensors", "tokenizer.json"].map(read).to_vec();
    let mut other = files.clone();
    let weights = &mut other[1].1;
    let end = weights.len();
    for byte in (end - 40_000..end).skip(2).step_by(4) {
        weights[byte] ^= 0x40;
    }
    [files, other]
}

fn shelf(files: &[(&'static str, Vec<u8>)], revision: &'static str, commit: &str) -> Shelf {
    let slices: Vec<(&'static str, &[u8])> =
        files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    let mut shelf = Shelf::new("models", "lab/tiny", &slices);
    (shelf.revision, shelf.commit) = (revision, commit.repeat(20));
    shelf
}

fn online(server: &Server) -> [(&str, &str); 3] {
    [("HF_ENDPOINT", &server.url), ("HF_HUB_OFFLINE", "0"), ("NO_PROXY", "*")]
}

fn summary(run: &Path) -> Summary {
    Summary::load(&run.join("summary.json")).unwrap()
}

#[test]
fn another_revision_is_another_run() {
    let place = place();
    let at = place.path();
    let [first, second] = two_models();
    let shelves = vec![shelf(&first, "step1", "a1"), shelf(&second, "step2", "b2")];
    let server = Server::start(move |request| answer(&shelves, request));
    for revision in ["step1", "step2"] {
        std::fs::write(
            at.join(format!("{revision}.toml")),
            toml(&format!("hf://lab/tiny@{revision}"), 80),
        )
        .unwrap();
    }
    let train =
        |config: &str, out: &str| sae_with(&["train", config, "--out", out], at, &online(&server));
    succeeds(&train("step1.toml", "run"));
    let config = std::fs::read_to_string(at.join("run/config.toml")).unwrap();
    says(&config, &[&format!("path = \"hf://lab/tiny@step1:{}\"", "a1".repeat(20))]);
    // Into the same folder it is refused, whatever the revisions stand for; elsewhere it is the other model.
    fails(&train("step2.toml", "run"), &["run holds another run", "step1", "step2"]);
    succeeds(&train("step2.toml", "other"));
    let (a, b) = (summary(&at.join("run")), summary(&at.join("other")));
    assert!(
        (a.evaluation.values.get("ce_original") - b.evaluation.values.get("ce_original")).abs()
            > 1e-6
    );
    assert_ne!(a.inputs.unwrap().model, b.inputs.unwrap().model);
    succeeds(&train("step1.toml", "run"));
}

#[test]
fn a_pinned_sweep_is_of_one_model() {
    let place = place();
    let at = place.path();
    let [first, second] = two_models();
    let (before, after) = (vec![shelf(&first, "main", "a1")], vec![shelf(&second, "main", "b2")]);
    let has_moved = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&has_moved);
    let server = Server::start(move |request| {
        answer(if flag.load(Ordering::SeqCst) { &after } else { &before }, request)
    });
    std::fs::write(at.join("base.toml"), toml("hf://lab/tiny", 80)).unwrap();
    let sweep = format!(
        "name = \"two\"\nbase = {:?}\n[[variants]]\nname = \"e2e\"\n[grid]\n\"data.seed\" = [0, 1]",
        at.join("base.toml")
    );
    let manifest = Manifest::from(SweepConfig::parse(&sweep, "sweep").unwrap().expand(10).unwrap());
    assert_eq!(manifest.jobs.len(), 2, "the order of the data is a bank's");
    let path = at.join("two/manifest.json");
    std::fs::create_dir_all(at.join("two")).unwrap();
    manifest.save(&path).unwrap();
    succeeds(&sae_with(&["pin", "two/manifest.json"], at, &online(&server)));
    let pinned = Manifest::load(&path).unwrap();
    assert!(manifest.is_floating() && !pinned.is_floating() && manifest.is_same_sweep(&pinned));

    let job = |job: &str| {
        let arguments = ["train", "--manifest", "two/manifest.json", "--job", job];
        succeeds(&sae_with(&arguments, at, &online(&server)));
    };
    job("0");
    has_moved.store(true, Ordering::SeqCst);
    // What a machine that has never seen the repository asks for.
    std::fs::remove_dir_all(at.join("hf")).unwrap();
    let asked = server.requests().len();
    let failed =
        sae_with(&["train", "--manifest", "two/manifest.json", "--job", "1"], at, &online(&server));
    let requests = server.log().split_off(asked);
    assert!(requests.iter().all(|line| line.contains(&"a1".repeat(20))), "{requests:?}");
    fails(&failed, &["lab/tiny", "404"]);
    has_moved.store(false, Ordering::SeqCst);
    job("1");
    let model = |run: &str| summary(&at.join("two").join(run)).inputs.unwrap().model;
    assert_eq!(model("e2e_seed-0"), model("e2e_seed-1"));
    succeeds(&sae_with(&["analyze", "two"], at, &online(&server)));
}

#[test]
fn a_run_does_not_go_on_with_another_model_of_the_same_name() {
    let place = place();
    let at = place.path();
    let [first, second] = two_models();
    let write = |files: &[(&str, Vec<u8>)]| {
        std::fs::create_dir_all(at.join("lm")).unwrap();
        for (name, bytes) in files {
            std::fs::write(at.join("lm").join(name), bytes).unwrap();
        }
    };
    write(&first);
    std::fs::write(at.join("lm.toml"), toml("lm", 80)).unwrap();
    succeeds(&sae(&["train", "lm.toml", "--out", "run"], at));
    std::fs::remove_file(at.join("run/summary.json")).unwrap();
    write(&second);
    let refused = sae(&["train", "lm.toml", "--out", "run"], at);
    fails(&refused, &["begun with another model", "lm", "choose another folder"]);
    write(&first);
    succeeds(&sae(&["train", "lm.toml", "--out", "run"], at));
    // Finished, its numbers are not those of the other model either.
    write(&second);
    let refused = sae(&["train", "lm.toml", "--out", "run"], at);
    fails(&refused, &["begun with another model"]);
    // A folder in which nothing has begun holds nothing to go on from.
    edited(at, "lost.toml", "expansion = 2", "expansion = 2, pretrained = [\"nowhere\"]");
    fails(&sae(&["train", "lost.toml", "--out", "new"], at), &["nowhere"]);
    succeeds(&sae(&["train", "lm.toml", "--out", "new"], at));
    // An evaluation elsewhere may be meant, and is named.
    write(&second);
    let evaluated = sae(&["eval", "run"], at);
    succeeds(&evaluated);
    says(&stderr(&evaluated), &["the model is not the one that its SAEs were trained in"]);
}

#[test]
fn a_log_that_nobody_can_write_ends_no_run() {
    let place = place();
    let at = place.path();
    for (index, stderr) in ["2>/dev/full", "2>&-", "2>/dev/full -v"].into_iter().enumerate() {
        let script = format!("exec {BINARY} train run.toml --out run-{index} {stderr}");
        let status = Command::new("sh").args(["-c", &script]).current_dir(at).status().unwrap();
        assert!(status.success(), "{script}: {status}");
        assert!(at.join(format!("run-{index}/summary.json")).is_file(), "{script}");
    }
}

/// A configuration of 5 000 steps, with more in its log settings.
fn long(at: &Path, name: &str, log: &str) {
    windows(&at.join("long"), 40_000, 7, 4096);
    let toml = toml(&model().display().to_string(), 40_000)
        .replace("train = \"train\"", "train = \"long\"")
        .replace("every_n_steps = 1", &format!("every_n_steps = 1{log}"));
    std::fs::write(at.join(name), toml).unwrap();
}

/// Steps logged so far.
fn steps(run: &Path) -> usize {
    std::fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.lines().count())
}

#[test]
fn sigterm_and_sighup_save_what_was_done() {
    let place = place();
    let at = place.path();
    long(at, "long.toml", "");
    for signals in [&["TERM", "TERM", "HUP"][..], &["HUP"]] {
        let out = at.join(signals.join("-"));
        let mut child = Command::new(BINARY)
            .args(["train", "long.toml", "--device", "cpu", "--out"])
            .arg(&out)
            .current_dir(at)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_mins(1);
        while steps(&out) < 3 {
            assert!(Instant::now() < deadline, "no step is taken");
            std::thread::sleep(Duration::from_millis(20));
        }
        for signal in signals {
            let killed = Command::new("kill")
                .args([&format!("-{signal}"), &child.id().to_string()])
                .stderr(Stdio::null())
                .status();
            killed.unwrap();
        }
        let status = child.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(130), None), "{signals:?}");
        let checkpoint = std::fs::read_dir(out.join("checkpoints")).unwrap().next();
        assert!(checkpoint.unwrap().unwrap().path().join("state.json").is_file());
    }
}

#[test]
fn checkpoints_by_the_clock_stay_two_and_open_as_runs_do() {
    let place = place();
    let at = place.path();
    long(at, "often.toml", ", checkpoint_every_minutes = 1e-9");
    let mut child = Command::new(BINARY)
        .args(["train", "often.toml", "--device", "cpu", "--out", "run"])
        .current_dir(at)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    while steps(&at.join("run")) < 6 {
        assert!(Instant::now() < deadline, "no step is taken");
        std::thread::sleep(Duration::from_millis(20));
    }
    // As a lost machine leaves it.
    child.kill().unwrap();
    child.wait().unwrap();
    let mut found: Vec<u64> = std::fs::read_dir(at.join("run/checkpoints"))
        .unwrap()
        .filter_map(|entry| {
            entry.unwrap().file_name().to_str()?.strip_prefix("step_")?.parse().ok()
        })
        .collect();
    found.sort_unstable();
    // One more while an old one is about to go.
    assert!((2..=3).contains(&found.len()) && found[0] > 1, "{found:?}");
    let last = format!("run/checkpoints/step_{}", found[found.len() - 1]);
    says(&succeeds(&sae(&["eval", &last], at)), &["ce_increase"]);
    says(&succeeds(&sae(&["generate", &last, "--tokens", "3"], at)), &["with SAEs"]);
    succeeds(&sae(&["convert", &last, "--out", "saes"], at));
    assert!(at.join("saes/blocks.1.hook_resid_pre/cfg.json").is_file());
    // The folder of an unfinished run does not.
    fails(&sae(&["eval", "run"], at), &["not finished"]);
}

#[test]
fn an_sae_with_nan_gives_no_numbers_and_no_text() {
    let place = place();
    let at = place.path();
    succeeds(&sae(&["train", "run.toml", "--out", "run"], at));
    let path = at.join("run/sae/blocks.1.hook_resid_pre/sae_weights.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    for command in [&["eval", "run"][..], &["generate", "run", "--tokens", "3"]] {
        let output = sae(command, at);
        fails(&output, &["sae_weights.safetensors", "1 numbers that are NaN or infinite"]);
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn sizes_and_devices_end_in_a_sentence() {
    let place = place();
    let at = place.path();
    let refused = |from: &str, to: &str, parts: &[&str]| {
        edited(at, "large.toml", from, to);
        let output = sae(&["train", "large.toml", "--out", "large"], at);
        fails(&output, parts);
        let said = stderr(&output);
        assert!(!said.contains("frame #") && !said.contains("Exception raised"), "{said}");
    };
    refused("expansion = 2", "expansion = 1e9", &["sae.expansion", "per dimension"]);
    refused("expansion = 2", "expansion = 1e18", &["sae.expansion", "per dimension"]);
    let most = "9223372036854775807";
    refused(
        "n_samples = 16,",
        &format!("n_samples = 16, batch_size = {most},"),
        &["eval.batch_size", most],
    );
    refused("alive_tokens = 500", &format!("alive_tokens = {most}"), &["eval.alive_tokens", most]);

    std::fs::create_dir(at.join("odd")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", at.join("odd/config.json")).unwrap();
    std::fs::write(at.join("odd.toml"), toml("odd", 80)).unwrap();
    let output = sae(&["train", "odd.toml", "--out", "x"], at);
    fails(&output, &["odd/config.json", "device"]);
    let arguments = ["prepare", "--shards", "train", "--column", "input_ids", "--tokenizer"];
    let lm = model().display().to_string();
    let rest = [&*lm, "--context-length", "1", "--bos", "--out", "made"];
    fails(&sae(&[&arguments[..], &rest[..]].concat(), at), &["context length", "from 2"]);
}

#[test]
fn a_manifest_cannot_write_elsewhere() {
    let place = place();
    let at = place.path();
    let sweep =
        format!("name = \"s\"\nbase = {:?}\n[[variants]]\nname = \"e2e\"\n", at.join("run.toml"));
    let mut manifest =
        Manifest::from(SweepConfig::parse(&sweep, "sweep").unwrap().expand(10).unwrap());
    std::fs::create_dir_all(at.join("sweep")).unwrap();
    let path = at.join("sweep/manifest.json");
    let train = ["train", "--manifest", "sweep/manifest.json", "--job", "0"];
    for folder in ["../elsewhere".to_owned(), at.join("elsewhere").display().to_string()] {
        manifest.jobs[0].runs[0].folder = folder.into();
        manifest.save(&path).unwrap();
        fails(&sae(&train, at), &["folder", "elsewhere", "manifest"]);
        assert!(!at.join("elsewhere").exists());
    }
    manifest.jobs[0].runs[0].folder = "inside".into();
    manifest.jobs[0].runs[0].id = "\u{1b}]0;owned\u{7}".to_owned();
    manifest.save(&path).unwrap();
    let output = sae(&train, at);
    fails(&output, &["id"]);
    assert!(!stderr(&output).contains('\u{1b}'), "{:?}", stderr(&output));
    fails(&sae(&["train", "no\u{1b}[2Jwhere.toml", "--out", "x"], at), &["cannot read"]);
    let output = sae(&["train", "no\u{1b}[2Jwhere.toml", "--out", "x"], at);
    assert!(!stderr(&output).contains('\u{1b}'), "{:?}", stderr(&output));
}

#[test]
fn a_link_at_a_temporary_place_is_not_followed() {
    let place = place();
    let at = place.path();
    std::fs::write(at.join("precious"), "kept").unwrap();
    std::fs::create_dir_all(at.join("run/sae")).unwrap();
    std::fs::create_dir_all(at.join("folder")).unwrap();
    let link = |to: &str, from: &str| {
        std::os::unix::fs::symlink(at.join(to), at.join("run").join(from)).unwrap();
    };
    for name in ["config.toml", "inputs.json", "summary.json", "features.parquet", "metrics.jsonl"]
    {
        link("precious", &format!("{name}.partial"));
    }
    link("folder", "sae/blocks.1.hook_resid_pre.partial");
    succeeds(&sae(&["train", "run.toml", "--out", "run"], at));
    assert_eq!(std::fs::read_to_string(at.join("precious")).unwrap(), "kept");
    assert_eq!(std::fs::read_dir(at.join("folder")).unwrap().count(), 0);
}

#[test]
fn a_beginning_of_text_token_stands_before_a_prompt_where_it_is_asked_for() {
    let place = place();
    let at = place.path();
    succeeds(&sae(&["train", "run.toml", "--out", "run"], at));
    let generate = |more: &[&str]| {
        let arguments = ["generate", "run", "--prompt", "The quick", "--greedy", "--tokens", "8"];
        succeeds(&sae(&[&arguments[..], more].concat(), at))
    };
    let plain = generate(&[]);
    assert_eq!(plain, generate(&["--no-bos"]), "as in training, whose windows have none");
    assert_ne!(plain, generate(&["--bos"]));
    assert_eq!(sae(&["generate", "run", "--bos", "--no-bos"], at).status.code(), Some(2));
}

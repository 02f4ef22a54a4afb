//! `cargo xtask sweep` as a user runs it, on the embedded model: a sweep of about two minutes, interrupted once.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.
#![cfg(unix)]

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The binary that the same build has made.
fn sae() -> PathBuf {
    let path = Path::new(XTASK).with_file_name("sae");
    assert!(path.is_file(), "no {}: `cargo build --workspace` makes it", path.display());
    path
}

/// The default sweep, shortened: 24 steps and two coefficients a type.
fn write_configs(place: &Path) -> PathBuf {
    let edit = |from: &str, to: &Path, edits: &[(&str, &str)]| {
        let mut text = std::fs::read_to_string(root().join(from)).unwrap();
        for (from, to) in edits {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        std::fs::write(to, text).unwrap();
    };
    let base = place.join("base.toml");
    edit(
        "configs/runs/rust-lm.toml",
        &base,
        &[
            ("n_samples = 4000", "n_samples = 384"),
            ("warmup_samples = 320", "warmup_samples = 64"),
            ("n_samples = 256", "n_samples = 32"),
            ("alive_tokens = 500_000", "alive_tokens = 20_000"),
            ("shuffle_buffer = 8192", "shuffle_buffer = 512"),
            ("\"../../", &format!("\"{}/", root().canonicalize().unwrap().display())),
        ],
    );
    let sweep = place.join("sweep.toml");
    let base = format!("base = {base:?}");
    edit(
        "configs/sweeps/rust-lm.toml",
        &sweep,
        &[("base = \"../runs/rust-lm.toml\"", base.as_str())],
    );
    let text = std::fs::read_to_string(&sweep).unwrap();
    let text: String = text
        .lines()
        .map(|line| {
            if line.starts_with("grid = ") {
                "grid = { \"loss.sparsity.coeff\" = [1.0, 4.0] }"
            } else {
                line
            }
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    std::fs::write(&sweep, text).unwrap();
    sweep
}

fn sweep(config: &Path, out: &Path) -> Command {
    let mut command = Command::new(XTASK);
    command.arg("sweep").arg(config).arg("--out").arg(out).arg("--sae").arg(sae());
    command.env("CUDA_VISIBLE_DEVICES", "");
    command
}

#[test]
fn a_sweep_is_interrupted_goes_on_and_ends_with_the_picture() {
    let place = tempfile::tempdir().unwrap();
    let config = write_configs(place.path());
    let out = place.path().join("runs");

    // Ctrl-C reaches the whole group, as from a terminal, once the second job has begun.
    let mut child = sweep(&config, &out)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    let group = format!("-{}", child.id());
    let mut said = String::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        if line.contains("job 1") && line.contains("started") {
            // Its runs' folders are made just before the first step.
            let begun = out.join("rust-lm/e2e_sparsity-1/config.toml");
            let deadline = std::time::Instant::now() + std::time::Duration::from_mins(2);
            while !begun.is_file() {
                assert!(std::time::Instant::now() < deadline, "job 1 has not begun: {said}");
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            assert!(Command::new("kill").args(["-INT", "--", &group]).status().unwrap().success());
        }
        said.push_str(&line);
        said.push('\n');
    }
    assert!(!child.wait().unwrap().success(), "{said}");
    assert!(said.contains("the same command goes on from it"), "{said}");
    let folder = out.join("rust-lm");
    assert!(folder.join("local_sparsity-1/summary.json").is_file(), "{said}");
    assert!(!folder.join("e2e+ds_sparsity-1/summary.json").exists(), "{said}");

    let output = sweep(&config, &out).output().unwrap();
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("local ×2: finished before, skipped"), "{stderr}");
    assert!(stderr.contains("report.html"), "{stderr}");
    for part in ["CE increase", "expl. var.", "e2e+ds", "at equal L0", "alive"] {
        assert!(stdout.contains(part), "`{part}` is missing from: {stdout}");
    }

    let frontier: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("frontier.json")).unwrap())
            .unwrap();
    let points = frontier["points"].as_array().unwrap();
    assert_eq!(points.len(), 6);
    for key in [
        "run",
        "type",
        "site",
        "seed",
        "coeff",
        "l0",
        "alive",
        "ce_increase",
        "kl",
        "explained_variance",
    ] {
        assert!(points.iter().all(|point| !point[key].is_null()), "{key}");
    }
    // More sparsity pressure, fewer active features.
    for pair in points.chunks(2) {
        assert!(pair[0]["l0"].as_f64() > pair[1]["l0"].as_f64(), "{pair:?}");
    }
    assert_eq!(std::fs::read_to_string(folder.join("frontier.csv")).unwrap().lines().count(), 7);
    assert!(std::fs::read(folder.join("frontier.png")).unwrap().starts_with(b"\x89PNG"));
    assert!(folder.join("activations/blocks.3.hook_resid_pre.json").is_file());
    assert!(folder.join("local_sparsity-1/activations.json").is_file());
    for part in ["downstream", "geometry", "umap", "activations", "features"] {
        assert!(folder.join(format!("{part}.png")).is_file(), "{part}: {stdout}");
    }
    let report = std::fs::read_to_string(folder.join("report.html")).unwrap();
    assert!(report.contains("e2e+ds_sparsity-4") && !report.contains("https://"));

    // Nothing is left to do; another sweep of the same name is refused.
    let again = sweep(&config, &out).output().unwrap();
    assert!(String::from_utf8_lossy(&again.stderr).matches("skipped").count() == 3);
    let text = std::fs::read_to_string(&config).unwrap().replace("[1.0, 4.0]", "[1.0, 5.0]");
    std::fs::write(&config, text).unwrap();
    let other = sweep(&config, &out).output().unwrap();
    assert!(String::from_utf8_lossy(&other.stderr).contains("holds another sweep"));
}

#[test]
fn a_dry_run_prints_the_manifest_and_makes_nothing() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("runs");
    let output =
        sweep(Path::new("configs/sweeps/rust-lm.toml"), &out).arg("--dry-run").output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success());
    for part in ["e2e+ds_sparsity", "memory of the job", "12 runs in 3 jobs", "M training tokens"] {
        assert!(stdout.contains(part), "`{part}` is missing from: {stdout}");
    }
    assert!(!out.exists());
}

#[test]
fn a_sweep_of_the_reference_is_taken_as_it_is() {
    let sweep = root().join("crates/sae-config/tests/fixtures/reference/sweep.yaml");
    let dry_run = |config: &Path| {
        let mut command = Command::new(XTASK);
        command.arg("sweep").arg(config).arg("--dry-run").arg("--sae").arg(sae()).output().unwrap()
    };
    let output = dry_run(&sweep);
    let (shown, told) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}");
    let other = root().join("crates/sae-config/tests/fixtures/reference/tiny_gpt2.yaml");
    let refused = dry_run(&other);
    let refused = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.contains("sae pretrain") && !refused.contains("did you mean"), "{refused}");
    for part in ["e2e_seed-0_sparsity-0.8", "e2e_seed-1_sparsity-5", "6 runs in 2 jobs"] {
        assert!(shown.contains(part), "{part} is missing from: {shown}");
    }
    assert!(told.contains("wandb_project") && told.contains("held out"), "{told}");
}

#[test]
fn a_grid_that_is_too_large_is_refused_unless_asked_for() {
    let place = tempfile::tempdir().unwrap();
    let config = write_configs(place.path());
    let text = std::fs::read_to_string(&config).unwrap();
    let seeds: Vec<String> = (0..2_000).map(|seed| seed.to_string()).collect();
    let text = text.replacen(
        "[[variants]]",
        &format!("[grid]\n\"sae.seed\" = [{}]\n[[variants]]", seeds.join(", ")),
        1,
    );
    std::fs::write(&config, text).unwrap();
    let dry = |more: &[&str]| {
        Command::new(XTASK).arg("sweep").arg(&config).arg("--dry-run").args(more).output().unwrap()
    };
    let refused = String::from_utf8_lossy(&dry(&[]).stderr).into_owned();
    assert!(refused.contains("12000 runs") && refused.contains("--max-runs 12000"), "{refused}");
    let shown = dry(&["--max-runs", "12000"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("12000 runs in 1500 jobs"));
}

//! What the tests of the binary share: running it, what it must say, and a model and data to run it on.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sae_data::prepare::WindowWriter;

pub fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub fn model() -> PathBuf {
    crates().join("sae-model/tests/fixtures/gpt2").canonicalize().unwrap()
}

pub fn sae(arguments: &[&str], place: &Path) -> Output {
    sae_with(arguments, place, &[])
}

/// With more in its environment, which knows no hub otherwise.
pub fn sae_with(arguments: &[&str], place: &Path, environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sae"))
        .args(arguments)
        .current_dir(place)
        .env("HF_HOME", place.join("hf"))
        .env("HF_HUB_OFFLINE", "1")
        .envs(environment.iter().copied())
        .output()
        .expect("the binary starts")
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
pub fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
pub fn fails(output: &Output, parts: &[&str]) {
    let stderr = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    says(&stderr, parts);
}

#[track_caller]
pub fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is missing from: {text}");
    }
}

/// Windows of 16 tokens that look random, `per_shard` in a file.
pub fn windows(folder: &Path, n: u32, step: u32, per_shard: usize) {
    let mut writer = WindowWriter::create(folder, 16, per_shard).unwrap();
    for window in 0..n {
        let ids: Vec<u32> = (0..16).map(|t| (window * 13 + t * step) % 300).collect();
        writer.push(&ids).unwrap();
    }
    writer.finish().unwrap();
}

//! What the tests of whole runs share: a tiny model on tiny parquet, and what a run leaves.

#![allow(dead_code)] // No test needs all of it.

mod interrupt;

use std::path::{Path, PathBuf};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sae_config::RunConfig;
use sae_data::prepare::WindowWriter;
use sae_record::RunFolder;
use sae_record::summary::Summary;
use sae_train::progress::Silent;
use sae_train::{RunSpec, TrainError, made_with, train};
use tch::{Device, Tensor};
use tempfile::TempDir;

pub use interrupt::Interrupt;

/// Windows of tokens from a small Markov chain, so that there is something to model.
pub fn windows(path: &Path, n: usize, seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut writer = WindowWriter::create(path, 16, 64).unwrap();
    for _ in 0..n {
        let mut token = rng.random_range(0..300_u32);
        let window: Vec<u32> = (0..16)
            .map(|_| {
                token = (token * 7 + rng.random_range(0..3)) % 300;
                token
            })
            .collect();
        writer.push(&window).unwrap();
    }
    writer.finish().unwrap();
}

/// A folder with data to train and to evaluate on.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        // One thread: what is compared here bit by bit must not depend on how work is split.
        tch::set_num_threads(1);
        let place = Self(TempDir::new().unwrap());
        windows(&place.path("train"), 200, 1);
        windows(&place.path("validation"), 16, 2);
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// 20 steps of 8 windows.
    pub fn toml(&self) -> String {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sae-model/tests/fixtures/gpt2");
        format!(
            r#"
            [model]
            path = {model:?}
            [data]
            train = {train:?}
            column = "input_ids"
            context_length = 16
            shuffle_buffer = 32
            [sae]
            sites = ["blocks.1.hook_resid_pre"]
            expansion = 2
            [loss]
            sparsity = {{ coeff = 0.5 }}
            kl = {{ coeff = 1.0 }}
            [train]
            n_samples = 160
            batch_size = 8
            lr = 5e-3
            max_grad_norm = 1.0
            [train.schedule]
            warmup_samples = 32
            [eval]
            data = {validation:?}
            n_samples = 16
            alive_tokens = 500
            [log]
            every_n_steps = 1
            "#,
            train = self.path("train"),
            validation = self.path("validation"),
        )
    }

    pub fn spec(&self, id: &str, edits: &[(&str, &str)]) -> RunSpec {
        let mut text = self.toml();
        for (from, to) in edits {
            assert!(text.contains(from), "{from}");
            text = text.replacen(from, to, 1);
        }
        let config = RunConfig::parse(&text, id).unwrap();
        RunSpec { id: id.to_owned(), folder: RunFolder::new(self.path(id)), config }
    }
}

pub const DOWNSTREAM: (&str, &str) =
    ("kl = { coeff = 1.0 }", "kl = { coeff = 0.5 }\ndownstream = { total_coeff = 2.5 }");
pub const LOCAL: (&str, &str) = ("kl = { coeff = 1.0 }", "local = { coeff = 1.0 }");

pub fn run(specs: &[RunSpec]) -> Result<Vec<Summary>, TrainError> {
    train(specs, Device::Cpu, &made_with("test"), &mut Silent)
}

pub fn metrics(spec: &RunSpec) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(spec.folder.metrics()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Of the first site.
pub fn weights(spec: &RunSpec) -> Vec<(String, Tensor)> {
    site_weights(spec, &spec.config.sae.sites[0].to_string())
}

pub fn site_weights(spec: &RunSpec, site: &str) -> Vec<(String, Tensor)> {
    let path = spec.folder.sae(site.parse().unwrap()).join("sae_weights.safetensors");
    let mut tensors = Tensor::read_safetensors(path).unwrap();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    tensors
}

#[track_caller]
pub fn same_run(a: &RunSpec, b: &RunSpec) {
    assert_eq!(metrics(a), metrics(b));
    for ((name, a), (_, b)) in weights(a).iter().zip(&weights(b)) {
        assert!(a.equal(b), "{name}");
    }
}

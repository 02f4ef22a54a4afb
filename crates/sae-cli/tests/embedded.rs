//! The embedded language model is what its card says: its validation loss, computed again.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

use std::path::{Path, PathBuf};
use std::process::Command;

use sae_config::run::Processing;
use sae_data::{ShardSet, TextTokenizer};
use sae_model::load;
use sae_train::pretrain::{Pretrained, validation_loss};
use sae_train::progress::Silent;
use tch::{Device, Kind};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_validation_loss_is_the_cards() {
    let status = Command::new(env!("CARGO"))
        .args(["xtask", "corpus", "--sae", env!("CARGO_BIN_EXE_sae")])
        .current_dir(root())
        .status()
        .unwrap();
    assert!(status.success(), "cargo xtask corpus");
    let folder = root().join("data/rust-lm");
    let text = std::fs::read_to_string(folder.join("training.json")).unwrap();
    let stated: Pretrained = serde_json::from_str(&text).unwrap();
    let model = load::load(&folder, Processing::None, Device::Cpu, Kind::Float).unwrap();
    let tokenizer = TextTokenizer::load(&folder).unwrap();
    let validation = ShardSet::open(&root().join("data/corpus/validation"), "text").unwrap();
    let found = validation_loss(&model, validation, Some(&tokenizer), 128, &mut Silent).unwrap();
    assert_eq!(found.tokens, stated.validation_tokens);
    assert!(
        (found.mean - stated.validation_loss).abs() < 1e-3,
        "{} {}",
        found.mean,
        stated.validation_loss
    );
    assert!(
        found.mean + 1.0 <= stated.bigram_validation_loss,
        "at least 1 nat better than a bigram model"
    );
    let card = std::fs::read_to_string(folder.join("README.md")).unwrap();
    for number in [stated.validation_loss, stated.bigram_validation_loss] {
        assert!(card.contains(&format!("{number:.4} nats")), "{number} in the card");
    }
    assert!(card.contains(&stated.training_tokens.to_string()));
}

#[test]
fn the_embedded_model_takes_at_most_8_megabytes() {
    let bytes: u64 = std::fs::read_dir(root().join("data/rust-lm"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(bytes <= 8_000_000, "{bytes}");
}

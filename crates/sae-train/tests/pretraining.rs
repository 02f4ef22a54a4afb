//! Pretraining: an interrupted one goes on to the same bits; the card says what was measured.
#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

#[path = "support/interrupt.rs"]
mod interrupt;

use std::path::{Path, PathBuf};

use sae_config::PretrainConfig;
use sae_data::{ShardSet, prepare, train_tokenizer};
use sae_train::TrainError;
use sae_train::pretrain::pretrain;
use sae_train::progress::Silent;
use tch::Device;

use interrupt::Interrupt;

/// Text shards of small functions, a tokeniser, and a configuration.
fn config(place: &Path) -> PretrainConfig {
    tch::set_num_threads(1);
    for (name, n) in [("train", 60), ("validation", 30)] {
        let files: Vec<PathBuf> = (0..n)
            .map(|file| {
                let path = place.join(format!("{name}-{file}.rs"));
                let line = format!("fn {name}_{file}(x: u32) -> u32 {{ x * {file} + {file} }}\n");
                std::fs::write(&path, line.repeat(30)).unwrap();
                path
            })
            .collect();
        prepare::text_shards(&files, &place.join(name)).unwrap();
    }
    let shards = ShardSet::open(&place.join("train"), "text").unwrap();
    train_tokenizer(&shards, 280, &place.join("tokenizer")).unwrap();
    let toml = format!(
        r#"
        about = "Functions of the test."
        model = {{ n_layers = 1, d_model = 16, n_heads = 2, context_length = 16 }}
        data = {{ train = {:?}, validation = {:?}, column = "text", tokenizer = {:?}, shuffle_buffer = 64 }}
        train = {{ n_steps = 12, batch_size = 4, lr = 1e-2, warmup_steps = 2, min_lr_factor = 0.1, weight_decay = 0.1, max_grad_norm = 1.0 }}
        "#,
        place.join("train"),
        place.join("validation"),
        place.join("tokenizer"),
    );
    let path = place.join("pretrain.toml");
    std::fs::write(&path, toml).unwrap();
    PretrainConfig::load(&path).unwrap()
}

#[test]
fn an_interrupted_pretraining_goes_on_to_the_same_bits() {
    let place = tempfile::tempdir().unwrap();
    let config = config(place.path());
    let (whole, broken) = (place.path().join("whole"), place.path().join("broken"));
    let result = pretrain(&config, &whole, Device::Cpu, &mut Silent).unwrap();

    let mut interrupt = Interrupt { after: 5, done: 0 };
    let error = pretrain(&config, &broken, Device::Cpu, &mut interrupt).unwrap_err();
    assert!(matches!(error, TrainError::Interrupted { step: 5 }), "{error}");
    let mut other = config.clone();
    other.model.seed = 7;
    let error = pretrain(&other, &broken, Device::Cpu, &mut Silent).unwrap_err().to_string();
    assert!(
        error.contains("pretrain.toml"),
        "another configuration does not go on from it: {error}"
    );
    assert_eq!(pretrain(&config, &broken, Device::Cpu, &mut Silent).unwrap(), result);
    let weights = |folder: &Path| std::fs::read(folder.join("model.safetensors")).unwrap();
    assert!(weights(&whole) == weights(&broken) && !broken.join("checkpoint").exists());

    let card = std::fs::read_to_string(whole.join("README.md")).unwrap();
    let loss = format!("{:.4} nats", result.validation_loss);
    assert!(card.contains("Functions of the test.") && card.contains(&loss), "{card}");
}

/// The model's folder may be the tokeniser's, however it is spelt.
#[test]
fn a_tokeniser_in_its_place_survives() {
    let place = tempfile::tempdir().unwrap();
    let config = config(place.path());
    let out = place.path().join("validation/../tokenizer");
    pretrain(&config, &out, Device::Cpu, &mut Silent).unwrap();
    assert!(std::fs::metadata(out.join("tokenizer.json")).unwrap().len() > 1000);
}

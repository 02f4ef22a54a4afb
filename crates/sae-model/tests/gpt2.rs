//! GPT-2 against `transformers`: activations at every site and logits; loading, saving, and what is refused.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use sae_config::run::Processing;
use sae_model::{ModelError, Site, Transformer, load};
use tch::{Device, Kind, Tensor};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gpt2")
}

fn model() -> Transformer {
    load::load(&folder(), Processing::None, Device::Cpu, Kind::Float).unwrap()
}

fn expected() -> HashMap<String, Tensor> {
    Tensor::read_safetensors(folder().join("expected.safetensors")).unwrap().into_iter().collect()
}

#[track_caller]
fn close(a: &Tensor, b: &Tensor, bound: f64) {
    let difference = (a - b).abs().max().double_value(&[]);
    assert!(difference <= bound, "differs by {difference}");
}

fn logits(model: &Transformer, tokens: &Tensor) -> Tensor {
    let embedded = model.embed(tokens).unwrap();
    let last = model.run_to_end(0..3, embedded, &BTreeSet::new(), &mut nothing).unwrap();
    model.logits(&model.final_norm(&last).unwrap()).unwrap()
}

#[allow(clippy::unnecessary_wraps)] // As a hook is.
fn nothing(_: Site, x: Tensor) -> Result<Tensor, ModelError> {
    Ok(x)
}

/// The sites that the fixture has.
fn stored(expected: &HashMap<String, Tensor>) -> BTreeSet<Site> {
    expected.keys().filter_map(|name| name.parse().ok()).collect()
}

#[test]
fn every_site_and_the_logits_agree_with_transformers() {
    let (model, expected) = (model(), expected());
    let mut seen = 0;
    let mut compare = |site: Site, x: Tensor| {
        close(&x, &expected[&site.to_string()], 1e-5);
        seen += 1;
        Ok::<_, ModelError>(x)
    };
    let embedded = model.embed(&expected["tokens"]).unwrap();
    let last = model.run_to_end(0..3, embedded, &stored(&expected), &mut compare).unwrap();
    assert_eq!(seen, 27);
    let hidden = model.final_norm(&last).unwrap();
    close(&hidden, &expected["final_hidden"], 1e-5);
    close(&model.logits(&hidden).unwrap(), &expected["logits"], 1e-4);
}

#[test]
fn a_pass_stops_after_a_site_and_goes_on_from_a_block() {
    let (model, expected) = (model(), expected());
    let until: Site = "blocks.1.hook_resid_mid".parse().unwrap();
    let mut sites = Vec::new();
    let embedded = model.embed(&expected["tokens"]).unwrap();
    let mut see = |site: Site, x: Tensor| {
        sites.push(site);
        Ok::<_, ModelError>(x)
    };
    model.run_until(0, embedded, until, &stored(&expected), &mut see).unwrap();
    assert_eq!((sites.len(), sites.last()), (13, Some(&until)));
    let residual = expected["blocks.2.hook_resid_pre"].shallow_clone();
    let last = model.run_to_end(2..3, residual, &BTreeSet::new(), &mut nothing).unwrap();
    close(&last, &expected["blocks.2.hook_resid_post"], 1e-5);
}

#[test]
fn a_saved_model_loads_as_it_was() {
    let (model, expected) = (model(), expected());
    let folder = tempfile::tempdir().unwrap();
    load::save(&model, folder.path(), Kind::Float).unwrap();
    let again = load::load(folder.path(), Processing::None, Device::Cpu, Kind::Float).unwrap();
    assert_eq!(again.config(), model.config());
    close(&logits(&again, &expected["tokens"]), &logits(&model, &expected["tokens"]), 0.0);
    load::save(&model, folder.path(), Kind::Half).unwrap();
    let half = load::load(folder.path(), Processing::None, Device::Cpu, Kind::Float).unwrap();
    close(&logits(&half, &expected["tokens"]), &expected["logits"], 0.1);
}

fn refused(change: impl FnOnce(&Path)) -> String {
    let copy = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(folder().join(name), copy.path().join(name)).unwrap();
    }
    change(copy.path());
    load::load(copy.path(), Processing::None, Device::Cpu, Kind::Float).unwrap_err().to_string()
}

fn edit(path: &Path, from: &str, to: &str) {
    let file = path.join("config.json");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(&file, text.replace(from, to)).unwrap();
}

#[test]
fn damage_is_named() {
    let weights = |folder: &Path| folder.join("model.safetensors");
    let error = refused(|folder| std::fs::remove_file(weights(folder)).unwrap());
    assert!(error.contains("model.safetensors") && error.contains("expected one of"), "{error}");
    let error = refused(|folder| {
        let bytes = std::fs::read(weights(folder)).unwrap();
        std::fs::write(weights(folder), &bytes[..bytes.len() - 100]).unwrap();
    });
    assert!(error.contains("truncated"), "{error}");
    let error = refused(|folder| edit(folder, "\"n_embd\": 32", "\"n_embd\": 64"));
    assert!(error.contains("wte.weight") && error.contains("[300, 64]"), "{error}");
    let error = refused(|folder| edit(folder, "\"gpt2\"", "\"gpt9\""));
    assert!(error.contains("`gpt9`") && error.contains("supported are gpt2"), "{error}");
    let error = refused(|folder| edit(folder, "\"n_head\": 4", "\"n_head\": 5"));
    assert!(error.contains("5 heads") && error.contains("divide the width 32"), "{error}");
}

#[test]
fn a_context_longer_than_the_models_is_refused() {
    let tokens = Tensor::zeros([1, 25], (Kind::Int64, Device::Cpu));
    let error = model().embed(&tokens).unwrap_err().to_string();
    assert!(error.contains("25") && error.contains("24"), "{error}");
}

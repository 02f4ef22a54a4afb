//! Every architecture against what PyTorch computes, gradients by its autograd (`scripts/fixtures_architectures.py`).

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use std::collections::HashMap;

use sae_config::Architecture;
use sae_nn::{Dictionary, Penalty};
use tch::{Kind, Tensor};

/// The case, the architecture, its prefixes, the p of the sparsity term.
const CASES: [(&str, &str, usize, f64); 8] = [
    ("relu", r#"{"relu": {}}"#, 1, 1.0),
    ("topk", r#"{"topk": {"k": 5}}"#, 1, 1.0),
    ("batch_topk", r#"{"batch_topk": {"k": 5}}"#, 1, 1.0),
    ("matryoshka", r#"{"matryoshka": {"k": 7, "prefixes": [0.25, 0.5]}}"#, 3, 1.0),
    ("transcoder", r#"{"relu": {}}"#, 1, 1.0),
    ("topk_transcoder", r#"{"topk": {"k": 4}}"#, 1, 1.0),
    ("jumprelu", r#"{"jumprelu": {"initial_threshold": 0.1, "bandwidth": 0.8}}"#, 1, 0.0),
    ("jumprelu_norm", r#"{"jumprelu": {"initial_threshold": 0.1, "bandwidth": 0.8}}"#, 1, 1.0),
];

fn fixture() -> HashMap<String, Tensor> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/architectures.safetensors");
    Tensor::read_safetensors(path).unwrap().into_iter().collect()
}

#[track_caller]
fn close(what: &str, found: &Tensor, expected: &Tensor, bound: f64) {
    assert_eq!(found.size(), expected.size(), "{what}");
    let found = found.to_kind(Kind::Double).detach();
    let difference = (found - expected.detach()).abs().max().double_value(&[]);
    let scale = expected.abs().max().double_value(&[]).max(1e-3);
    assert!(difference <= bound * scale, "{what} differs by {difference} of {scale}");
}

#[test]
fn every_architecture_agrees_with_pytorch() {
    let fixture = fixture();
    for (case, options, prefixes, p) in CASES {
        let get = |name: &str| &fixture[&format!("{case}.{name}")];
        let options: Architecture = serde_json::from_str(options).unwrap();
        // In double precision by libtorch's operations, in single precision by kernels.
        for (kind, bound) in [(Kind::Double, 1e-12), (Kind::Float, 1e-5)] {
            let names = ["w_enc", "b_enc", "w_dec", "b_dec", "w_skip", "log_threshold"];
            let stored = |name: &&str| fixture.contains_key(&format!("{case}.{name}"));
            let names: Vec<&str> = names.into_iter().filter(stored).collect();
            let tensors = names.iter().map(|name| get(name).to_kind(kind)).collect();
            let dictionary = Dictionary::from_tensors(&options, tensors).unwrap();
            let x = fixture["x"].to_kind(kind);
            let tape = dictionary.pass(&x).unwrap();
            assert_eq!(tape.reconstructions.len(), prefixes, "{case}");
            for (index, found) in tape.reconstructions.iter().enumerate() {
                close(case, found, get(&format!("x_hat_{index}")), bound);
            }
            let l0 = get("c").gt(0.0).sum(Kind::Double) / x.size()[0] as f64;
            close(case, &tape.l0().unwrap(), &l0, 0.0);
            for found in &tape.observed {
                close(case, found, get("smallest"), bound);
            }
            let weights: Vec<Option<Tensor>> = (0..prefixes)
                .map(|index| Some(get(&format!("weights_{index}")).to_kind(kind)))
                .collect();
            let penalty = Penalty { p, weight: 3.0 };
            let found = tape.backward(&dictionary, &weights, penalty, true).unwrap();
            close(case, &found.input.unwrap(), get("grad_x"), bound);
            for (name, found) in names.iter().zip(&found.parameters.unwrap()) {
                close(&format!("{case} {name}"), found, get(&format!("grad_{name}")), bound);
            }
            // In use, a threshold a little below the smallest that was kept keeps the same.
            if let Some(smallest) = tape.observed.first() {
                dictionary.observe(&[smallest * 0.999]).unwrap();
                close(case, &dictionary.encode(&x).unwrap(), get("c"), bound);
            }
        }
    }
}

//! Runs with SAEs that are there already, kept as they are or trained on, beside new ones at other sites.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

mod support;

use std::path::Path;

use sae_train::{made_with, train};
use support::{Interrupt, Place, metrics, run, site_weights};
use tch::{Device, Tensor};

fn largest_difference(a: &[(String, Tensor)], b: &[(String, Tensor)]) -> f64 {
    let difference = |(a, b): (&(String, Tensor), &(String, Tensor))| {
        (&a.1 - &b.1).abs().max().double_value(&[])
    };
    a.iter().zip(b).map(difference).fold(0.0, f64::max)
}

#[test]
fn pretrained_saes_stay_as_they_are_or_are_trained_on() {
    let place = Place::new();
    let first = place.spec("first", &[]);
    run(std::slice::from_ref(&first)).unwrap();
    let with = |name: &str, rest: &str| {
        let pretrained = format!(
            "expansion = 2\npretrained = [{:?}]{rest}",
            first.folder.path().to_string_lossy()
        );
        let sites = "\"blocks.0.hook_mlp_out\", \"blocks.1.hook_resid_pre\"";
        place.spec(name, &[("\"blocks.1.hook_resid_pre\"", sites), ("expansion = 2", &pretrained)])
    };
    let (frozen, trained) = (with("frozen", ""), with("trained", "\nretrain = true"));
    let summary = run(std::slice::from_ref(&frozen)).unwrap().remove(0);
    assert_eq!(summary.alive.len(), 2);
    run(std::slice::from_ref(&trained)).unwrap();

    let (own, other) = ("blocks.1.hook_resid_pre", "blocks.0.hook_mlp_out");
    let before = site_weights(&first, own);
    let kept = largest_difference(&before, &site_weights(&frozen, own));
    // The decoder's rows are stored at unit length, and are scaled to it once more.
    assert!(kept < 1e-6, "{kept}");
    assert!(largest_difference(&before, &site_weights(&trained, own)) > 1e-3);
    let start = place.spec(
        "start",
        &[
            ("n_samples = 160", "n_samples = 8"),
            ("warmup_samples = 32", "warmup_samples = 8"),
            ("\"blocks.1.hook_resid_pre\"", "\"blocks.0.hook_mlp_out\""),
        ],
    );
    run(std::slice::from_ref(&start)).unwrap(); // One step at a rate of 0: the initial weights.
    let moved = largest_difference(&site_weights(&start, other), &site_weights(&frozen, other));
    assert!(moved > 1e-3, "the SAE beside the frozen one has not been trained: {moved}");

    // Interrupted, it goes on to the same bits.
    let broken = with("broken", "");
    let mut interrupt = Interrupt { after: 7, done: 0 };
    let specs = std::slice::from_ref(&broken);
    train(specs, Device::Cpu, &made_with("test"), &mut interrupt).unwrap_err();
    run(specs).unwrap();
    assert_eq!(metrics(&frozen), metrics(&broken));

    // An SAE for a site that the run does not have; nothing left to train.
    let pretrained = format!("expansion = 2\npretrained = [{:?}]", first.folder.path());
    let wrong = place.spec(
        "wrong",
        &[("blocks.1.hook_resid_pre", "blocks.0.hook_resid_pre"), ("expansion = 2", &pretrained)],
    );
    let error = run(std::slice::from_ref(&wrong)).unwrap_err().to_string();
    assert!(error.contains("blocks.1.hook_resid_pre") && error.contains("sae.sites"), "{error}");
    let nothing = place.spec("nothing", &[("expansion = 2", &pretrained)]);
    let error = run(std::slice::from_ref(&nothing)).unwrap_err().to_string();
    assert!(error.contains("no SAE is left to train"), "{error}");
}

/// What is trained on is of the architecture that the configuration names, and reads where it says.
#[test]
fn another_architecture_or_another_site_read_is_refused() {
    let place = Place::new();
    let first = place.spec("first", &[]);
    run(std::slice::from_ref(&first)).unwrap();
    let refused = |name: &str, sae: &str, edits: &[(&str, &str)]| {
        let sae = format!("expansion = 2\npretrained = [{:?}]\n{sae}", first.folder.path());
        let edits = [&[("expansion = 2", sae.as_str())][..], edits].concat();
        run(&[place.spec(name, &edits)]).unwrap_err().to_string()
    };
    let error = refused("topk", "retrain = true\narchitecture = { topk = { k = 3 } }", &[]);
    assert!(error.contains("relu") && error.contains(r#"{"topk":{"k":3}}"#), "{error}");
    let sites =
        ("\"blocks.1.hook_resid_pre\"", "\"blocks.0.hook_mlp_out\", \"blocks.1.hook_resid_pre\"");
    let reads = r#"reads = ["blocks.0.mlp.hook_in", "blocks.0.hook_mlp_out"]"#;
    let error = refused("reads", reads, &[sites]);
    assert!(
        error.contains("reads blocks.1.hook_resid_pre") && error.contains("sae.reads"),
        "{error}"
    );
}

#[test]
fn the_references_saes_are_a_start() {
    let place = Place::new();
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../sae-nn/tests/fixtures/e2e_sae/samples_400.pt");
    let sites = "\"blocks.1.hook_resid_pre\", \"blocks.2.hook_resid_pre\"";
    let spec = place.spec(
        "run",
        &[
            ("\"blocks.1.hook_resid_pre\"", sites),
            ("expansion = 2", &format!("expansion = 2\npretrained = [{file:?}]\nretrain = true")),
            ("n_samples = 160", "n_samples = 8"),
            ("warmup_samples = 32", "warmup_samples = 8"),
        ],
    );
    // One step at a rate of 0.
    run(std::slice::from_ref(&spec)).unwrap();
    let expected =
        sae_nn::reference::load(&file, Device::Cpu, tch::Kind::Float).unwrap().remove(1).dictionary;
    let stored = site_weights(&spec, "blocks.2.hook_resid_pre");
    let w_enc = &stored.iter().find(|(name, _)| name == "W_enc").unwrap().1;
    assert!(w_enc.tr().equal(expected.parameter("w_enc").unwrap()));
}

#[test]
fn a_downstream_term_before_a_frozen_sae_trains_what_lies_before_it() {
    let place = Place::new();
    let first = place.spec("first", &[]);
    run(std::slice::from_ref(&first)).unwrap();
    let spec = place.spec(
        "beside",
        &[
            (
                "\"blocks.1.hook_resid_pre\"",
                "\"blocks.0.hook_mlp_out\", \"blocks.1.hook_resid_pre\"",
            ),
            ("expansion = 2", &format!("expansion = 2\npretrained = [{:?}]", first.folder.path())),
            (
                "kl = { coeff = 1.0 }",
                "downstream = { total_coeff = 1.0, sites = [\"blocks.1.hook_resid_pre\"] }",
            ),
        ],
    );
    run(std::slice::from_ref(&spec)).unwrap();
    let losses = metrics(&spec);
    assert!(losses[19]["downstream"].as_f64() < losses[0]["downstream"].as_f64());
}

#[test]
fn every_dictionary_has_its_own_size_in_the_summary() {
    let place = Place::new();
    let first = place.spec("first", &[]);
    run(std::slice::from_ref(&first)).unwrap();
    let pretrained =
        format!("expansion = 3\npretrained = [{:?}]", first.folder.path().to_string_lossy());
    let sites = "\"blocks.0.hook_mlp_out\", \"blocks.1.hook_resid_pre\"";
    let both = place
        .spec("both", &[("\"blocks.1.hook_resid_pre\"", sites), ("expansion = 2", &pretrained)]);
    let summary = run(std::slice::from_ref(&both)).unwrap().remove(0);
    let sizes: Vec<(String, u64)> =
        summary.n_features.iter().map(|(site, size)| (site.to_string(), *size)).collect();
    assert_eq!(
        sizes,
        [("blocks.0.hook_mlp_out".to_owned(), 96), ("blocks.1.hook_resid_pre".to_owned(), 64)]
    );
}

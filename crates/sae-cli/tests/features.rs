//! Dashboards of features, and their edits, driven as a user does, on a tiny model.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.
#![allow(clippy::float_cmp)] // The same numbers are expected, not near ones.

#[path = "support/small_run.rs"]
mod small_run;
mod support;

use std::path::Path;

use sae_config::Site;
use sae_record::RunFolder;
use sae_record::dashboard::Dashboard;
use small_run::{OF_WINDOWS, small_run};
use support::{fails, sae, says, stderr, succeeds, windows};
use tempfile::TempDir;

const SITE: &str = "blocks.1.hook_resid_pre";

/// Two finished runs, and their configurations.
fn place() -> TempDir {
    let place = TempDir::new().unwrap();
    for (name, n, step) in [("train", 200, 7), ("validation", 40, 11)] {
        windows(&place.path().join(name), n, step, 64);
    }
    for (name, term, seed) in [("first", "kl", 0), ("second", "local", 1)] {
        let toml = small_run(term, seed, OF_WINDOWS);
        let config = format!("{name}.toml");
        std::fs::write(place.path().join(&config), toml).unwrap();
        let out = format!("runs/{name}");
        succeeds(&sae(&["train", &config, "--out", &out], place.path()));
    }
    place
}

fn dashboard(run: &Path) -> Dashboard {
    let site: Site = SITE.parse().unwrap();
    Dashboard::load(&RunFolder::new(run).dashboard(site)).unwrap().unwrap()
}

#[test]
fn every_feature_has_a_card_with_examples_that_are_found_again() {
    let place = place();
    let at = place.path();
    // 500 tokens are 32 windows of 16.
    let made = sae(&["features", "runs", "--tokens", "500"], at);
    succeeds(&made);
    says(&stderr(&made), &["first: ", "second: ", "have a card"]);
    let found = dashboard(&at.join("runs/first"));
    assert_eq!((found.gathered.tokens, found.gathered.context_length), (512, 16));
    assert!(!found.cards.is_empty());
    for card in &found.cards {
        assert_eq!(card.histogram.iter().sum::<u64>(), card.active);
        assert!((card.density - card.active as f64 / 512.0).abs() < 1e-12);
        assert!(card.decoder_norm.is_some_and(|norm| norm > 0.0));
        assert_eq!((card.highest.len(), card.lowest.len()), (10, 10));
        // Three of its own dictionary, and the nearest of the other run's.
        let others: Vec<&str> = card.near.iter().filter_map(|near| near.run.as_deref()).collect();
        assert_eq!((card.near.len(), others), (4, vec!["second"]));
        let examples = found.examples(card).unwrap();
        assert!(examples[0].interval.is_none() && (examples[0].peak - card.max).abs() < 1e-6);
        for example in &examples {
            assert_eq!(example.feature, card.feature);
            assert_eq!(example.tokens.len(), example.activations.len());
            assert!(example.activations[example.position as usize] == example.peak);
            // A row is a window here.
            assert_eq!(example.own, [0, 16]);
            // The row of the data set holds these tokens.
            let window: Vec<u32> =
                (0..16).map(|t| (example.row as u32 * 13 + t * 11) % 300).collect();
            assert_eq!(example.tokens, window, "row {}", example.row);
        }
    }
    // Made once; with more tokens, anew.
    let cards = at.join(format!("runs/first/dashboard/{SITE}/features.parquet"));
    let written = || std::fs::metadata(&cards).unwrap().modified().unwrap();
    let before = written();
    succeeds(&sae(&["features", "runs", "--tokens", "500"], at));
    assert_eq!(written(), before);
    succeeds(&sae(&["features", "runs", "--tokens", "100000"], at));
    assert_eq!(dashboard(&at.join("runs/first")).gathered.tokens, 640);

    let card = found.cards[0].feature.to_string();
    let shown = succeeds(&sae(&["features", "runs/first", "--show", &card], at));
    says(&shown, &["active on", "likelier", "near", "highest", "⟦"]);
    fails(&sae(&["features", "runs/first", "--show", "4000"], at), &["there is no feature 4000"]);
    fails(&sae(&["features", "runs", "--show", "0"], at), &["a single run, found 2"]);
    fails(&sae(&["features", "nowhere"], at), &["there is no folder nowhere"]);
    let shown =
        sae(&["features", "runs/first", "--show", "0", "--site", "blocks.0.hook_resid_pre"], at);
    fails(&shown, &["name a site of first", SITE]);
}

#[test]
fn text_with_edited_features_stands_beside_the_others() {
    let place = place();
    let at = place.path();
    let generate = |more: &[&str]| {
        let arguments =
            ["generate", "runs/first", "--prompt", "The quick", "--greedy", "--tokens", "6"];
        sae(&[&arguments[..], more].concat(), at)
    };
    let plain = succeeds(&generate(&[]));
    let edited = succeeds(&generate(&["--ablate", "3", "--set", "5=40", "--scale", "7=2"]));
    says(&edited, &["with SAEs, edited"]);
    assert!(!plain.contains("edited"));
    let site = format!("{SITE}:3");
    succeeds(&generate(&["--ablate", &site, "--set", "data.bos=false"]));
    for (arguments, said) in [
        (["--ablate", "4000"], "there is no feature 4000"),
        (["--set", "5=x"], "`x` is not a number"),
        (["--scale", "5"], "expected [SITE:]FEATURE=NUMBER"),
        (
            ["--ablate", "blocks.0.hook_resid_pre:3"],
            "there is no feature 3 at blocks.0.hook_resid_pre: no dictionary of the run writes there",
        ),
        (["--ablate", "nowhere:3"], "`nowhere` is no site"),
    ] {
        fails(&generate(&arguments), &[said]);
    }
}

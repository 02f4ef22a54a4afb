//! Concepts of Rust code, driven as a user does, on a tiny model.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

#[path = "support/small_run.rs"]
mod small_run;
mod support;

use std::fmt::Write;
use std::path::Path;

use sae_record::RunFolder;
use sae_record::activations::Measured;
use sae_record::concepts::{RunConcepts, SiteConcepts};
use sae_record::layout;
use small_run::{OF_WINDOWS, small_run};
use support::{fails, sae, says, stderr, succeeds, windows};
use tempfile::TempDir;

const SITE: &str = "blocks.1.hook_resid_pre";

/// A file of functions.
fn code(file: usize) -> String {
    let mut text = String::new();
    for place in 0..12 {
        let n = file * 12 + place;
        let _ = writeln!(text, "fn f{n}(x: u64) -> u64 {{ let y = x + {n}; y * {place} }}");
    }
    text
}

/// Text of these data sets, and a run on it.
fn train(at: &Path, name: &str, term: &str, data: &str) {
    let toml = small_run(term, 0, data);
    let config = format!("{name}.toml");
    std::fs::write(at.join(&config), toml).unwrap();
    succeeds(&sae(&["train", &config, "--out", &format!("runs/{name}")], at));
}

#[test]
fn features_are_held_against_what_a_parser_says_of_their_tokens() {
    let place = TempDir::new().unwrap();
    let at = place.path();
    for (folder, files) in [("train", 0..6), ("validation", 6..14)] {
        let mut list = Vec::new();
        for file in files {
            let name = format!("{file}.rs");
            std::fs::write(at.join(&name), code(file)).unwrap();
            list.push(name);
        }
        std::fs::write(at.join("list.txt"), list.join("\n")).unwrap();
        succeeds(&sae(&["prepare", "--file-list", "list.txt", "--out", folder], at));
    }
    train(at, "first", "kl", "");
    train(at, "second", "local", "");
    let measured = sae(&["concepts", "runs", "--tokens", "1600"], at);
    succeeds(&measured);
    says(&stderr(&measured), &["sae analyze"]);
    let site = SITE.parse().unwrap();
    let found = Measured::<SiteConcepts>::load(&layout::concepts(&at.join("runs"), site));
    let SiteConcepts { text, baselines } = found.unwrap().unwrap().values;
    assert_eq!((text.tokens[0] + text.tokens[1], text.documents), (1600, [4, 4]));
    let concept = |name: &str| {
        let place = text.concepts.iter().position(|concept| concept.name == name).unwrap();
        (place, &text.concepts[place])
    };
    // A function has a semicolon and a `let`, of two tokens here, and no `match`.
    let counts = |name: &str| concept(name).1.positives.iter().sum::<u32>();
    assert_eq!((counts("let") > 20, counts("match")), (true, 0));
    let (lets, semicolons) = (counts("let"), counts(";"));
    assert!(lets.abs_diff(2 * semicolons) <= semicolons / 2, "{lets} {semicolons}");
    assert_eq!(baselines.len(), 4);
    let dictionary =
        Measured::<RunConcepts>::load(&RunFolder::new(at.join("runs/first")).concepts());
    let dictionary = &dictionary.unwrap().unwrap().values[&site];
    for units in baselines.values().chain([dictionary]) {
        assert!(units.active > 0 && units.active <= units.units);
        let best = units.best[concept("let").0].as_ref().unwrap();
        let bounded = |part: &[u32], whole: &[u32]| part.iter().zip(whole).all(|(a, b)| a <= b);
        assert!(bounded(&best.hits, &best.guesses));
        assert!(bounded(&best.hits, &concept("let").1.positives));
        assert!(best.f1_chosen > 0.0 && best.f1_chosen <= 1.0);
    }
    // Measured once.
    let path = at.join("runs/first/concepts.json");
    let written = || std::fs::metadata(&path).unwrap().modified().unwrap();
    let before = written();
    succeeds(&sae(&["concepts", "runs", "--tokens", "1600"], at));
    assert_eq!(written(), before);
    let shown = succeeds(&sae(&["analyze", "runs", "--no-activations"], at));
    says(&shown, &["coverage of concepts"]);
    let csv = std::fs::read_to_string(at.join("runs/concepts.csv")).unwrap();
    says(
        &csv,
        &["first", "second", "neurons", "random directions", "principal directions", "dimensions"],
    );
    let page = std::fs::read_to_string(at.join("runs/report.html")).unwrap();
    says(&page, &["Interpretability without a judge", "name of a function"]);
    let unknown = sae(&["concepts", "runs", "--language", "cobol"], at);
    says(&stderr(&unknown), &["possible values: rust"]);
}

#[test]
fn token_ids_are_no_text() {
    let place = TempDir::new().unwrap();
    let at = place.path();
    for (name, n, step) in [("train", 200, 7), ("validation", 40, 11)] {
        windows(&at.join(name), n, step, 64);
    }
    train(at, "first", "kl", OF_WINDOWS);
    fails(&sae(&["concepts", "runs/first"], at), &["holds token ids, expected text"]);
}

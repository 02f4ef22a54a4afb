//! What a language model is shown of a feature.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

use std::collections::BTreeMap;

use sae_interp::explain::{Audience, audience, question};
use sae_record::dashboard::{Dashboard, ExampleRecord, FeatureCard, Gathered, LensToken};
use tempfile::TempDir;

/// Rows whose documents may be shown, and rows that are kept for scoring.
fn rows(shown: bool) -> Vec<u64> {
    let is_shown = |row: u64| audience(0, row, false) == Audience::Explainer;
    (0..100).filter(|&row| is_shown(row) == shown).take(3).collect()
}

fn example(row: u64, interval: Option<u8>, own: [u32; 2]) -> ExampleRecord {
    ExampleRecord {
        feature: 7,
        interval,
        peak: 4.0,
        position: 2,
        own,
        tokens: vec![0, 1, 2, 3, 4],
        activations: vec![0.0, 2.0, 4.0, 1.0, 3.0],
        first: 0,
        file: 0,
        row,
        bytes: [0; 2],
    }
}

fn dashboard(place: &TempDir, examples: Vec<ExampleRecord>) -> Dashboard {
    let card = FeatureCard {
        feature: 7,
        active: 40,
        density: 0.01,
        mean: 1.0,
        max: 4.0,
        decoder_norm: None,
        encoder_bias: 0.0,
        histogram_width: 0.25,
        histogram: vec![1],
        peak_tokens: vec![2],
        highest: vec![LensToken { token: 1, logit: 1.0 }],
        lowest: Vec::new(),
        near: Vec::new(),
        partners: Vec::new(),
        examples: 0..0,
    };
    let gathered = Gathered {
        of: BTreeMap::new(),
        compared_with: String::new(),
        tokens: 4000,
        context_length: 5,
        n_features: 8,
        data: "data".to_owned(),
        files: vec!["shard.parquet".to_owned()],
        are_windows: false,
    };
    let vocabulary = ["let", " mut", " x", "\n", " \"y\""].map(str::to_owned);
    let examples = std::iter::once(examples);
    Dashboard::write(place.path(), &gathered, &[card], examples, &vocabulary).unwrap();
    Dashboard::load(place.path()).unwrap().unwrap()
}

#[test]
fn marked_windows_of_one_half_of_the_documents_are_shown() {
    let place = TempDir::new().unwrap();
    let (shown, kept) = (rows(true), rows(false));
    let examples = vec![
        example(shown[0], None, [0, 5]),
        example(kept[0], None, [0, 5]),
        // The rest of the window is of another document.
        example(shown[1], Some(3), [1, 4]),
        example(kept[1], Some(0), [0, 5]),
    ];
    let dashboard = dashboard(&place, examples);
    let card = dashboard.card(7).unwrap();
    let about = question(&dashboard, card, &dashboard.examples(card).unwrap(), 100).unwrap();
    assert_eq!(about.documents, [(0, shown[0]), (0, shown[1])]);
    let text = &about.question.text;
    // From 0.3 · 4 on, tokens that follow one another together; a line break is none.
    assert!(
        text.contains("1. let« mut x»⏎« \"y\"»\n   \" mut\" 5, \" x\" 10, \" \\\"y\\\"\" 8\n"),
        "{text}"
    );
    assert!(text.contains("1. « mut x»⏎\n   \" mut\" 5, \" x\" 10\n"), "{text}");
    assert!(text.contains("likelier to come next: \" mut\""), "{text}");
    assert_eq!(text.matches("let").count(), 1, "{text}");
}

#[test]
fn a_feature_of_kept_documents_alone_is_not_asked_about() {
    let place = TempDir::new().unwrap();
    let examples = rows(false).into_iter().map(|row| example(row, None, [0, 5])).collect();
    let dashboard = dashboard(&place, examples);
    let card = dashboard.card(7).unwrap();
    assert!(question(&dashboard, card, &dashboard.examples(card).unwrap(), 100).is_none());
}

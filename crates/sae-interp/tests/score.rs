//! Which excerpts are shown to score an explanation, and how they are asked about.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

use std::collections::{BTreeMap, BTreeSet};

use sae_interp::score::{Drawn, Pool, Task, derangement, question};
use sae_record::excerpts::{ActiveExcerpt, Excerpt, FeatureExcerpts};
use sae_record::scores::ItemKind::{self, Active, Inactive, Near, Right, Wrong};

/// Forty excerpts of eight tokens, each of a document of its own; tokens are numbered through.
fn excerpts() -> Vec<Excerpt> {
    let excerpt = |row: u64| Excerpt {
        file: 0,
        row,
        tokens: (0..8).map(|place| row as u32 * 8 + place).collect(),
    };
    (0..40).map(excerpt).collect()
}

/// Active in an excerpt on two tokens.
fn active(excerpt: u32, peak: f32) -> ActiveExcerpt {
    let mut activations = vec![0.0; 8];
    activations[2] = peak;
    activations[3] = peak / 2.0;
    // Too weak to be marked.
    activations[4] = peak / 10.0;
    ActiveExcerpt { excerpt, activations }
}

fn features() -> FeatureExcerpts {
    let of = |places: std::ops::Range<u32>| {
        places.map(|place| active(place, 1.0 + place as f32)).collect::<Vec<_>>()
    };
    BTreeMap::from([(7, of(0..10)), (8, of(8..30)), (9, of(0..3)), (10, of(0..40))])
}

fn kinds(drawn: &Drawn<'_>) -> BTreeMap<ItemKind, usize> {
    let mut counts = BTreeMap::new();
    for shown in drawn.detection.iter().chain(&drawn.fuzzing) {
        *counts.entry(shown.item.kind).or_insert(0) += 1;
    }
    counts
}

#[test]
fn half_are_active_one_of_each_fifth_and_negatives_are_hard() {
    let (excerpts, features) = (excerpts(), features());
    let pool = Pool { excerpts: &excerpts, features: &features };
    let mut orders = BTreeSet::new();
    for seed in 0..20 {
        let drawn = pool.draw(7, &[8], seed).unwrap();
        assert_eq!(pool.draw(7, &[8], seed).unwrap(), drawn);
        let expected = [(Active, 5), (Near, 3), (Inactive, 2), (Right, 5), (Wrong, 5)];
        assert_eq!(kinds(&drawn), BTreeMap::from(expected));
        let rows = |kind| -> Vec<u64> {
            let own = drawn.detection.iter().filter(move |shown| shown.item.kind == kind);
            let mut rows: Vec<u64> = own.map(|shown| shown.item.document.1).collect();
            rows.sort_unstable();
            rows
        };
        // Peaks grow with the row: one of 0 and 1, one of 2 and 3, …
        let fifths: Vec<u64> = rows(Active).iter().map(|row| row / 2).collect();
        assert_eq!(fifths, [0, 1, 2, 3, 4]);
        assert!(rows(Near).iter().all(|row| (10..30).contains(row)), "not where 7 is active");
        assert!(rows(Inactive).iter().all(|row| *row >= 10));
        orders.insert(drawn.detection.iter().map(|own| own.item.kind).collect::<Vec<_>>());
        for shown in &drawn.fuzzing {
            let marked: Vec<usize> = (0..8).filter(|&place| shown.marks[place]).collect();
            if shown.item.kind == Right {
                assert_eq!(marked, [2, 3]);
            } else {
                assert_eq!(marked.len(), 2);
                assert!(marked.iter().all(|place| !(2..=4).contains(place)));
            }
        }
        let mut shown: Vec<u64> = drawn.fuzzing.iter().map(|own| own.item.document.1).collect();
        shown.sort_unstable();
        shown.dedup();
        assert_eq!(shown.len(), 10, "no excerpt twice");
    }
    assert!(orders.len() > 10, "the order tells nothing");
}

#[test]
fn features_with_too_little_to_show_are_left_out() {
    let (excerpts, features) = (excerpts(), features());
    let pool = Pool { excerpts: &excerpts, features: &features };
    assert!(pool.draw(9, &[], 0).is_none(), "three excerpts");
    assert!(pool.draw(10, &[], 0).is_none(), "active everywhere");
    assert!(pool.draw(11, &[], 0).is_none(), "not looked at");
    // Without anything near, the negatives are any.
    let drawn = pool.draw(7, &[], 0).unwrap();
    assert_eq!(kinds(&drawn).get(&ItemKind::Inactive), Some(&5));
    // A feature that is active on all tokens of an excerpt but one cannot be marked wrong there.
    let dense = |excerpt| ActiveExcerpt {
        excerpt,
        activations: (0..8).map(|place| if place == 0 { 0.0 } else { 1.0 }).collect(),
    };
    let features = BTreeMap::from([(7, (0..10).map(dense).collect())]);
    assert!(Pool { excerpts: &excerpts, features: &features }.draw(7, &[], 0).is_none());
}

#[test]
fn a_question_has_the_explanation_and_an_excerpt_a_line() {
    let (excerpts, features) = (excerpts(), features());
    let pool = Pool { excerpts: &excerpts, features: &features };
    let drawn = pool.draw(7, &[8], 0).unwrap();
    let texts: Vec<String> = (0..320).map(|token| format!(" t{token}\n")).collect();
    let text = |token: u32| texts[token as usize].as_str();
    let asked = question(Task::Detection, "Names.", &drawn.detection, text, 50);
    assert!(asked.text.starts_with("Explanation: Names.\n\nExcerpts:\n1.  t"), "{}", asked.text);
    assert_eq!(asked.text.lines().count(), 13);
    assert!(!asked.text.contains('«'));
    let asked = question(Task::Fuzzing, "Names.", &drawn.fuzzing, text, 50);
    let lines: Vec<&str> = asked.text.lines().skip(3).collect();
    assert!(lines.iter().all(|line| line.contains('«') && line.contains('»')), "{lines:?}");
    let right = drawn.fuzzing.iter().position(|own| own.item.kind == ItemKind::Right).unwrap();
    let first = drawn.fuzzing[right].tokens[0];
    let expected = format!("« t{}⏎ t{}⏎»", first + 2, first + 3);
    assert!(lines[right].contains(&expected), "{expected} in {}", lines[right]);
}

#[test]
fn every_feature_gets_the_explanation_of_another() {
    let features: Vec<u32> = (0..50).map(|feature| feature * 3).collect();
    let pairs = derangement(&features, 1);
    assert_eq!(pairs.iter().map(|(own, _)| *own).collect::<Vec<_>>(), features);
    assert!(pairs.iter().all(|(own, other)| own != other));
    let others: BTreeSet<u32> = pairs.iter().map(|(_, other)| *other).collect();
    assert_eq!(others.len(), features.len());
    assert_ne!(pairs, derangement(&features, 2));
    assert!(derangement(&[4], 0).is_empty());
}

//! Matches of points by hand.

use sae_config::Site;
use sae_record::metric::Values;

use super::{EQUAL, MOST_CHOICES, Match, MatchBy, match_groups, matches};
use crate::runs::{Group, Point};

const SITE: Site = Site::resid_pre(6);

/// A point whose other quantities are those of a frontier: CE increase falls as L0 and alive features rise.
fn point(group: &Group, run: &str, by: MatchBy, quantity: f64) -> Point {
    let (l0, ce_increase, alive) = match by {
        MatchBy::CeIncrease => (1.0 / quantity, quantity, 1.0 / quantity),
        MatchBy::L0 | MatchBy::Alive => (quantity, 1.0 / quantity, quantity),
    };
    Point {
        run: run.to_owned(),
        group: group.clone(),
        site: SITE,
        seed: 0,
        coeff: 1.0,
        l0,
        alive: alive.ceil() as u64,
        n_features: 1000,
        ce_increase,
        kl: ce_increase,
        explained_variance: 0.5,
        mse: 1.0,
        ce_recovered: 0.9,
        top1_agreement: 0.9,
        grad_norm: None,
        training_tokens: 1000,
        metrics: Values::default(),
        facets: crate::runs::facets::Facets::new(),
    }
}

/// Points of the three types with these quantities; a run's name is its type and number.
fn three(by: MatchBy, local: &[f64], e2e: &[f64], e2e_ds: &[f64]) -> Vec<Point> {
    let of = |group: &Group, letter: &'static str, quantities: &[f64]| -> Vec<Point> {
        let named = quantities.iter().enumerate();
        named.map(|(i, &q)| point(group, &format!("{letter}{i}"), by, q)).collect()
    };
    [of(&Group::LOCAL, "l", local), of(&Group::E2E, "e", e2e), of(&Group::E2E_DS, "d", e2e_ds)]
        .concat()
}

fn names(found: &Match) -> Vec<&str> {
    found.points.iter().map(|point| point.run.as_str()).collect()
}

fn only(points: &[Point], by: MatchBy) -> Match {
    let mut found = matches(points, by);
    assert_eq!(found.len(), 1);
    found.remove(0)
}

#[test]
fn the_smallest_ratio_wins() {
    for by in [MatchBy::CeIncrease, MatchBy::L0, MatchBy::Alive] {
        let points = three(by, &[2.0, 10.0, 50.0], &[3.0, 12.0], &[4.0, 15.0, 80.0]);
        // 15/10 = 1.5 is less than 4/2; by differences it would be 2, 3, 4.
        let found = only(&points, by);
        assert_eq!(names(&found), ["l1", "e1", "d1"], "{by}");
        assert_eq!((found.site, found.by), (SITE, by));
        assert!((found.ratio - 1.5).abs() < 1e-12, "{}", found.ratio);
        assert_eq!(found.of_group(&Group::E2E).map(|point| point.run.as_str()), Some("e1"));
        assert_eq!(found.of_group(&"topk local".parse().unwrap()), None);
    }
}

/// The ends match to the bit; the middle to 4 %, which is as good.
#[test]
fn among_equally_close_choices_the_middle_of_the_range_wins() {
    let by = MatchBy::L0;
    let points = three(by, &[1.0, 10.0, 100.0], &[1.0, 10.4, 100.0], &[1.0, 10.2, 100.0]);
    assert_eq!(names(&only(&points, by)), ["l1", "e1", "d1"]);
    // At 10 % it is not, and the earliest of the equal ends is taken.
    let points = three(by, &[1.0, 10.0, 100.0], &[1.0, 11.0, 100.0], &[1.0, 10.2, 100.0]);
    let found = only(&points, by);
    assert_eq!(names(&found), ["l0", "e0", "d0"]);
    assert!((found.ratio - 1.0).abs() < 1e-12);
}

#[test]
fn types_that_do_not_overlap_have_their_nearest_ends() {
    let points = three(MatchBy::L0, &[40.0, 60.0], &[10.0, 20.0], &[5.0, 19.0]);
    let found = only(&points, MatchBy::L0);
    assert_eq!(names(&found), ["l0", "e1", "d1"]);
    assert!((found.ratio - 40.0 / 19.0).abs() < 1e-12 && found.ratio > EQUAL);
}

#[test]
fn a_missing_type_leaves_a_pair_and_a_single_type_nothing() {
    let points = three(MatchBy::L0, &[10.0, 30.0], &[], &[29.0]);
    assert_eq!(names(&only(&points, MatchBy::L0)), ["l1", "d0"]);
    assert_eq!(matches(&points[..2], MatchBy::L0), []);
    assert_eq!(matches(&points[..1], MatchBy::L0), []);
    assert_eq!(matches(&[], MatchBy::L0), []);
    let pair = |groups: &[Group]| match_groups(&points, SITE, groups, MatchBy::L0);
    assert_eq!(pair(&[Group::LOCAL, Group::E2E]), None);
    assert_eq!(pair(&[Group::LOCAL]), None);
    assert_eq!(pair(&[]), None);
    // Whatever the groups are.
    let mut others = points.clone();
    let topk: Group = "topk local".parse().unwrap();
    others.push(point(&topk, "t0", MatchBy::L0, 10.0));
    assert_eq!(only(&others, MatchBy::L0).points.len(), 3);
    let asked = match_groups(&others, SITE, &[Group::LOCAL, topk], MatchBy::L0);
    assert_eq!(names(&asked.unwrap()), ["l0", "t0"]);
}

#[test]
fn a_pair_may_be_closer_than_the_triple_has_it() {
    let points = three(MatchBy::L0, &[10.0, 20.0], &[10.2, 30.0], &[40.0]);
    assert_eq!(names(&only(&points, MatchBy::L0)), ["l1", "e1", "d0"]);
    let pair = match_groups(&points, SITE, &[Group::LOCAL, Group::E2E], MatchBy::L0).unwrap();
    assert_eq!(names(&pair), ["l0", "e0"]);
    assert!((pair.ratio - 1.02).abs() < 1e-12, "{}", pair.ratio);
}

#[test]
fn points_that_say_nothing_are_passed_over() {
    type Spoil = fn(&mut Point);
    let spoil: [(&str, Spoil); 7] = [
        ("ce_increase is no number", |point| point.ce_increase = f64::NAN),
        ("ce_increase is infinite", |point| point.ce_increase = f64::INFINITY),
        ("ce_increase is below zero", |point| point.ce_increase = -0.001),
        ("nothing is active", |point| point.l0 = 0.0),
        ("nothing is alive", |point| point.alive = 0),
        ("as bad as zeros", |point| point.ce_recovered = 0.0),
        ("ce_recovered is no number", |point| point.ce_recovered = f64::NAN),
    ];
    for (what, spoil) in spoil {
        for by in [MatchBy::CeIncrease, MatchBy::L0, MatchBy::Alive] {
            let mut points = three(by, &[10.0, 20.0], &[10.0, 22.0], &[10.0, 22.0]);
            spoil(&mut points[0]);
            assert_eq!(names(&only(&points, by)), ["l1", "e1", "d1"], "{what}, by {by}");
        }
    }
}

#[test]
fn where_every_feature_is_alive_their_number_says_nothing() {
    let mut points = three(MatchBy::Alive, &[1000.0, 500.0], &[1000.0, 400.0], &[1000.0, 450.0]);
    assert_eq!(names(&only(&points, MatchBy::Alive)), ["l1", "e1", "d1"]);
    // By another quantity they count.
    assert_eq!(names(&only(&points, MatchBy::L0)), ["l0", "e0", "d0"]);
    points.retain(|point| point.alive == 1000);
    assert_eq!(matches(&points, MatchBy::Alive), []);
}

/// A run with a bad learning rate matches to the bit, and would make its type look worse than it is.
#[test]
fn dominated_runs_do_not_stand_for_their_type() {
    let mut points = three(MatchBy::CeIncrease, &[0.2], &[0.3], &[0.2]);
    let mut bad = points[1].clone();
    (bad.run, bad.ce_increase, bad.l0) = ("bad".to_owned(), 0.2, 500.0);
    points.push(bad.clone());
    // Nothing of its type is better in both: it is a candidate.
    assert_eq!(names(&only(&points, MatchBy::CeIncrease)), ["l0", "bad", "d0"]);
    let mut good = bad.clone();
    (good.run, good.ce_increase, good.l0) = ("good".to_owned(), 0.19, 5.0);
    points.push(good);
    let found = only(&points, MatchBy::CeIncrease);
    assert_eq!(names(&found), ["l0", "good", "d0"]);
    // Of another seed it dominates nothing.
    points[4].seed = 1;
    assert_eq!(names(&only(&points, MatchBy::CeIncrease)), ["l0", "bad", "d0"]);
    // Equal points both stay, and the earlier is taken.
    let mut twin = points[0].clone();
    twin.run = "twin".to_owned();
    points.push(twin);
    assert_eq!(names(&only(&points, MatchBy::CeIncrease)), ["l0", "bad", "d0"]);
}

#[test]
fn one_seed_goes_before_several() {
    let seeded = |mut point: Point, seed: u64| {
        point.seed = seed;
        point.run = format!("{}s{seed}", point.run);
        point
    };
    let mut points: Vec<Point> = Vec::new();
    for seed in 0..3 {
        // A choice of mixed seeds is equal to the bit and in the middle; those of one seed differ by 2 %.
        let at = |shift: u64| [10.0 + 0.1 * ((seed + shift) % 3) as f64];
        let of = three(MatchBy::L0, &at(0), &at(1), &at(2));
        points.extend(of.into_iter().map(|point| seeded(point, seed)));
    }
    let found = only(&points, MatchBy::L0);
    assert!(found.points.iter().all(|point| point.seed == found.points[0].seed), "{found:?}");
    // Far apart, the ratio goes first.
    let mut points = three(MatchBy::L0, &[10.0], &[20.0, 18.0], &[14.0]);
    points[2].seed = 1;
    assert_eq!(names(&only(&points, MatchBy::L0)), ["l0", "e1", "d0"]);
}

#[test]
fn sites_are_matched_apart_in_the_order_of_computation() {
    let mut points = three(MatchBy::L0, &[10.0], &[11.0], &[12.0]);
    let mut early = three(MatchBy::L0, &[30.0], &[40.0], &[]);
    for point in &mut early {
        point.site = Site::resid_pre(2);
    }
    points.extend(early);
    let found = matches(&points, MatchBy::L0);
    assert_eq!(found.iter().map(|found| found.site.block).collect::<Vec<_>>(), [2, 6]);
    assert_eq!(found.iter().map(|found| found.points.len()).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn words_round_trip_and_others_are_named() {
    for (word, by) in [("ce", MatchBy::CeIncrease), ("l0", MatchBy::L0), ("alive", MatchBy::Alive)]
    {
        assert_eq!((word.parse::<MatchBy>(), by.to_string()), (Ok(by), word.to_owned()));
        assert_eq!(serde_json::to_string(&by).unwrap(), format!("\"{word}\""));
    }
    let message = "L0".parse::<MatchBy>().unwrap_err().to_string();
    assert!(message.contains("`L0`") && message.contains("`alive`"), "{message}");
}

/// Nine groups of ten runs would have a thousand million choices.
#[test]
fn many_groups_are_matched_near_the_middle() {
    let names = [
        "local",
        "e2e",
        "e2e+ds",
        "topk local",
        "topk e2e",
        "topk e2e+ds",
        "fvu",
        "kl+output",
        "transcoder e2e",
    ];
    let by = MatchBy::L0;
    let points: Vec<Point> = names
        .iter()
        .enumerate()
        .flat_map(|(place, name)| {
            let group: Group = name.parse().unwrap();
            let apart = 1.0 + 0.004 * place as f64;
            (0..10).map(move |i| point(&group, &format!("{place}-{i}"), by, apart * 2_f64.powi(i)))
        })
        .collect();
    assert!(10_usize.pow(9) > MOST_CHOICES);
    let found = only(&points, by);
    assert_eq!(found.points.len(), 9);
    let numbers: Vec<char> =
        found.points.iter().filter_map(|point| point.run.chars().last()).collect();
    assert!(numbers.iter().all(|number| *number == numbers[0]), "{numbers:?}");
    assert!(matches!(numbers[0], '4' | '5') && found.ratio < 1.04);
}

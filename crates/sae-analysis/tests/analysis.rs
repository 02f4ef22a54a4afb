//! Whole analyses of sweeps written by hand: what is written, and the numbers in it.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sae_analysis::embedding::Region;
use sae_analysis::evidence::Evidence;
use sae_analysis::geometry::AcrossWhat;
use sae_analysis::matching::{Match, MatchBy};
use sae_analysis::{AnalysisOptions, Frontier, Group, analyse_with};
use sae_config::Variant;
use sae_record::activations::{
    Direction, EVALUATION, MODEL, Measured, RunActivations, SaeActivations, SiteActivations,
    TokensAlong,
};
use sae_record::layout;
use sae_record::metric::name;
use support::{LATER, SITES, Sweep, quick};

const TYPES: [Variant; 3] = [Variant::Local, Variant::E2e, Variant::E2eDs];

fn whole() -> Sweep {
    let sweep = Sweep::of(&TYPES, &[0, 1], &[1.0, 2.0, 4.0]);
    sweep.write();
    write_activations(&sweep);
    for run in &sweep.runs {
        // Of five steps the last three count; the norms grow with the coefficient.
        let line = |step: u64| {
            let norm =
                if step < 3 { 100.0 } else { run.config.loss.sparsity.coeff.get() * step as f64 };
            format!("{{\"step\": {step}, \"grad_norm\": {norm}}}\n")
        };
        let lines: String = (1..=5).map(line).collect();
        std::fs::write(sweep.run(&run.id).metrics(), lines).unwrap();
    }
    sweep
}

#[test]
fn gradient_norms_are_those_of_the_later_steps() {
    let sweep = whole();
    let found = analyse_with(sweep.path(), &quick(), &mut |_| {}).unwrap().evidence;
    for point in &found.frontier.points {
        near(point.grad_norm.unwrap(), 4.0 * point.coeff);
    }
    assert_eq!(found.gradients.points.len(), found.frontier.points.len());
    let table = cells(&layout::analysis(sweep.path(), "matches", "csv"));
    let column = table[0].iter().position(|key| key == "grad_norm").unwrap();
    near(table[1][column].parse().unwrap(), 4.0 * table[1][6].parse::<f64>().unwrap());
}

fn write_activations(sweep: &Sweep) {
    let write = |path: &Path, json: String| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, json).unwrap();
    };
    let direction = Direction {
        variance_share: 0.5,
        vector: vec![1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        by_position: vec![9.0, -1.0, 0.5],
        resampling_kl: 0.2,
    };
    let model = SiteActivations {
        tokens: 24,
        norm: vec![100.0, 3.0, 4.0],
        directions: vec![direction.clone(), Direction { resampling_kl: 0.1, ..direction }],
        random_resampling_kl: 0.01,
        first_position: vec![0.0, -1.0, 0.0, 0.0, 0.0, 0.0],
        along_first: ["first position", "other"]
            .map(|kind| TokensAlong {
                kind: kind.to_owned(),
                range: [-1.0, 3.0],
                counts: vec![3, 0, 9, 4],
            })
            .into(),
    };
    let of: BTreeMap<String, String> = [(MODEL, "model"), (EVALUATION, "evaluation")]
        .map(|(name, of)| (name.to_owned(), of.to_owned()))
        .into();
    let model = Measured { of: of.clone(), values: model };
    for site in SITES {
        let path = layout::activations(sweep.path(), site);
        write(&path, serde_json::to_string(&model).unwrap());
    }
    for run in sweep.runs.iter().take(4) {
        let found = SaeActivations {
            norm_ratio: vec![0.9, 0.8, 0.8],
            cosine: vec![0.95, 0.9, 0.9],
            explained_variance: vec![0.75, 0.5],
            correlation: vec![Some(0.9), None],
            reconstructed_by_position: vec![vec![8.0, -0.5, 0.25]; 2],
            cosines: vec![0, 1, 7, 16],
            norms: vec![[100.0, 90.0], [3.0, 2.5], [4.0, 3.0]],
        };
        let found: RunActivations = SITES.iter().map(|&site| (site, found.clone())).collect();
        write(
            &sweep.run(&run.id).activations(),
            serde_json::to_string(&Measured { of: of.clone(), values: found }).unwrap(),
        );
    }
}

/// The cells of a table without quotes, header first.
fn cells(path: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-9, "{found}, expected {expected}");
}

#[test]
fn a_whole_sweep_leaves_every_file() {
    let sweep = whole();
    let found = analyse_with(sweep.path(), &quick(), &mut |_| {}).unwrap();
    let written: BTreeSet<String> = found
        .files
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    let pictures = [
        "frontier",
        "downstream",
        "geometry",
        "umap",
        "activations",
        "stability",
        "features",
        "gradients",
    ];
    for name in pictures {
        for extension in ["csv", "svg", "png"] {
            let file = format!("{name}.{extension}");
            assert!(written.contains(&file), "{file} is missing of {written:?}");
        }
        let svg = std::fs::read_to_string(layout::analysis(sweep.path(), name, "svg")).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{name}");
        assert!(!svg.contains("NaN"), "{name}");
        let png = std::fs::read(layout::analysis(sweep.path(), name, "png")).unwrap();
        assert!(png.starts_with(b"\x89PNG"), "{name}");
    }
    for file in [
        "analysis.json",
        "frontier.json",
        "matches.json",
        "matches.csv",
        "matches.md",
        "matches.tex",
        "norm_ratios.tex",
        "geometry_grouped.csv",
        "geometry_histograms.csv",
        "unusual_features.csv",
        "report.html",
    ] {
        assert!(written.contains(file), "{file} is missing of {written:?}");
    }
    let json = std::fs::read_to_string(layout::analysis(sweep.path(), "analysis", "json")).unwrap();
    assert_eq!(serde_json::from_str::<Evidence>(&json).unwrap(), found.evidence);
    let evidence = &found.evidence;
    assert_eq!((evidence.runs.len(), evidence.frontier.points.len()), (18, 36));
    assert_eq!(evidence.geometry.within.len(), 36);
    assert_eq!(evidence.matches.len(), 6);
    // A run a type and site; pairs of types and of seeds.
    assert_eq!((evidence.downstream.len(), evidence.features.len()), (6, 6));
    assert_eq!((evidence.embeddings.len(), evidence.geometry.across.len()), (12, 24));
    assert_eq!(evidence.activations.len(), 2);
    assert_eq!(evidence.activations[&SITES[0]].runs.len(), 4);
    let seeds = evidence.geometry.across.iter().filter(|found| found.what == AcrossWhat::Seeds);
    assert_eq!(seeds.count(), 12);
}

/// Of 24 features the first are dead, 2 and as many as the coefficient says; frequencies are ½, ¼, … of those alive.
#[test]
fn dead_and_dense_features_are_listed() {
    let mut sweep = Sweep::of(&[Variant::Local], &[0], &[1.0]);
    for alive in sweep.runs[0].summary.alive.values_mut() {
        *alive = 22;
    }
    sweep.write();
    let found = analyse_with(sweep.path(), &quick(), &mut |_| {}).unwrap();
    let lines = cells(&layout::analysis(sweep.path(), "unusual_features", "csv"));
    let of_first: Vec<(&str, &str)> = lines
        .iter()
        .filter(|line| line[2] == SITES[0].to_string())
        .map(|line| (line[3].as_str(), line[4].as_str()))
        .collect();
    assert_eq!(
        of_first,
        [("dead", "0"), ("dead", "1"), ("ultra-dense", "2"), ("ultra-dense", "3")]
    );
    let report = std::fs::read_to_string(&found.report).unwrap();
    assert!(report.contains("Dead: 0, 1.") && report.contains("Ultra-dense: 2, 3."));
}

/// Frequencies are ½, ¼, 1/6, … : above 0.1 there are four, of which the first two are dead.
#[test]
fn alive_may_ask_for_more_than_once() {
    let mut sweep = Sweep::of(&[Variant::Local], &[0], &[1.0]);
    for alive in sweep.runs[0].summary.alive.values_mut() {
        *alive = 22;
    }
    sweep.write();
    let options = AnalysisOptions { alive_above: 0.1, ..quick() };
    let evidence = analyse_with(sweep.path(), &options, &mut |_| {}).unwrap().evidence;
    assert!(evidence.frontier.points.iter().all(|point| point.alive == 2));
    assert!(evidence.geometry.within.iter().all(|found| found.alive == 2));
    assert_eq!(evidence.features[0].statistics.dead.len(), 22);
    assert!(evidence.notes[0].contains("more than 0.1 of the tokens"), "{:?}", evidence.notes);
    let options = AnalysisOptions { alive_above: 1.0, ..quick() };
    let error = analyse_with(sweep.path(), &options, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("from 0 to below 1, found 1"), "{error}");
    // What cannot be counted is left out.
    std::fs::remove_file(sweep.run(&sweep.runs[0].id).features()).unwrap();
    let options = AnalysisOptions { alive_above: 0.1, ..quick() };
    let evidence = analyse_with(sweep.path(), &options, &mut |_| {}).unwrap().evidence;
    assert!(evidence.frontier.points.is_empty());
    assert!(evidence.notes.iter().any(|note| note.contains("features.parquet")));
    let report = std::fs::read_to_string(layout::report(sweep.path())).unwrap();
    assert!(
        report.contains("No run has numbers to compare") && !report.contains("dictionary is alive")
    );
}

/// What is drawn of a dictionary is named by the feature's number, not by its place among those alive.
#[test]
fn embedded_elements_are_features() {
    let sweep = whole();
    let all =
        Region { name: "everything".to_owned(), runs: Vec::new(), x: [-1e9, 1e9], y: [-1e9, 1e9] };
    let nothing = Region { name: "elsewhere".to_owned(), x: [1e8, 1e9], ..all.clone() };
    let other = Region { runs: vec!["a".to_owned(), "b".to_owned()], ..all.clone() };
    let options = AnalysisOptions { regions: vec![all, nothing, other], ..quick() };
    let found = analyse_with(sweep.path(), &options, &mut |_| {}).unwrap().evidence;
    let lines = cells(&layout::analysis(sweep.path(), "umap", "csv"));
    assert_eq!(lines[0][4], "feature");
    let named = cells(&layout::analysis(sweep.path(), "umap_regions", "csv"));
    assert_eq!(named.len(), lines.len());
    assert!(named[1..].iter().all(|line| line[0] == "everything"));
    assert!(found.embeddings.iter().all(|pair| pair.regions.len() == 2));
    // The cosine to a direction is the element's own component.
    let cosines: Vec<f64> = lines[1..].iter().map(|line| line[7].parse().unwrap()).collect();
    assert!(cosines.iter().all(|cosine| cosine.abs() <= 1.0 + 1e-6));
    let squares = |line: &Vec<String>| -> f64 {
        line[7..9].iter().map(|cell| cell.parse::<f64>().unwrap().powi(2)).sum()
    };
    assert!(lines[1..].iter().all(|line| squares(line) <= 1.0 + 1e-6));
    assert!(cosines.iter().any(|cosine| (cosine - cosines[0]).abs() > 1e-3));
    for line in &lines[1..] {
        let run = sweep.runs.iter().find(|run| run.id == line[2]).unwrap();
        let dead = 24 - run.summary.alive[&line[1].parse().unwrap()];
        assert!((dead..24).contains(&line[4].parse().unwrap()), "{line:?}, {dead} are dead");
    }
}

#[test]
fn seeds_of_different_settings_stay_apart() {
    let mut sweep = Sweep::empty(24, 6);
    for lr in ["1e-3", "1e-2"] {
        for seed in [0, 1] {
            let text = support::config(Variant::E2e, 2.0, seed, 4.0).to_toml().unwrap();
            let text = text.replace("lr = 0.001", &format!("lr = {lr}"));
            let config = sae_config::RunConfig::parse(&text, "by hand").unwrap();
            sweep.add(&format!("{lr}-{seed}"), config);
        }
    }
    sweep.write();
    let evidence = analyse_with(sweep.path(), &quick(), &mut |_| {}).unwrap().evidence;
    let first: Vec<(&str, usize)> = evidence
        .stability
        .iter()
        .filter(|seeds| seeds.site == SITES[0])
        .map(|seeds| (seeds.facets["train.lr"].as_str(), seeds.runs.len()))
        .collect();
    assert_eq!(first, [("0.001", 2), ("0.01", 2)]);
}

#[test]
fn a_type_that_cannot_be_matched_is_named() {
    let mut sweep = Sweep::of(&TYPES, &[0], &[1.0, 2.0, 4.0]);
    for run in sweep.runs.iter_mut().filter(|run| run.id.starts_with("local")) {
        run.summary.alive.values_mut().for_each(|alive| *alive = 24);
    }
    sweep.write();
    let options = AnalysisOptions { match_by: MatchBy::Alive, ..quick() };
    let evidence = analyse_with(sweep.path(), &options, &mut |_| {}).unwrap().evidence;
    let named = |note: &&String| note.contains("no run of local says enough to be matched");
    assert_eq!(evidence.notes.iter().filter(named).count(), 2, "{:?}", evidence.notes);
}

#[test]
fn csv_and_json_agree() {
    let sweep = whole();
    let evidence = analyse_with(sweep.path(), &quick(), &mut |_| {}).unwrap().evidence;
    let file = |name: &str, extension: &str| layout::analysis(sweep.path(), name, extension);
    let json = std::fs::read_to_string(file("frontier", "json")).unwrap();
    let frontier: Frontier = serde_json::from_str(&json).unwrap();
    assert_eq!(frontier, evidence.frontier);
    let table = cells(&file("frontier", "csv"));
    assert_eq!(table.len(), 1 + frontier.points.len());
    let column = |name: &str| table[0].iter().position(|head| head == name).unwrap();
    for row in &table[1..] {
        let same = |point: &&sae_analysis::Point| {
            point.run == row[column("run")] && point.site.to_string() == row[column("site")]
        };
        let point = frontier.points.iter().find(same).unwrap();
        for (name, value) in [
            ("l0", point.l0),
            ("ce_increase", point.ce_increase),
            ("kl", point.kl),
            ("mse", point.mse),
            ("coeff", point.coeff),
        ] {
            near(row[column(name)].parse().unwrap(), value);
        }
        assert_eq!(row[column("loss.kl.coeff")], point.facets["loss.kl.coeff"]);
    }
    let json = std::fs::read_to_string(file("matches", "json")).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Match>>(&json).unwrap(), evidence.matches);
    let rows: usize = evidence.matches.iter().map(|found| found.points.len()).sum();
    assert_eq!(cells(&file("matches", "csv")).len(), 1 + rows);
    let markdown = std::fs::read_to_string(file("matches", "md")).unwrap();
    assert_eq!(markdown.lines().filter(|line| line.starts_with("| blocks")).count(), rows);
    let latex = std::fs::read_to_string(file("matches", "tex")).unwrap();
    assert_eq!(latex.lines().filter(|line| line.starts_with("blocks")).count(), rows);
    assert!(latex.contains(r"blocks.1.hook\_resid\_pre & CE increase & e2e+ds & "), "{latex}");
    let layers: usize = evidence.downstream.iter().map(|run| run.layers.len()).sum();
    assert_eq!(cells(&file("downstream", "csv")).len(), 1 + layers);
}

#[test]
fn downstream_and_seeds_by_hand() {
    let sweep = whole();
    let evidence = analyse_with(sweep.path(), &quick(), &mut |_| {}).unwrap().evidence;
    // CE increase is 0.1 of the coefficient whatever the type; 2 is in the middle of 1, 2 and 4.
    let first: Vec<&str> =
        evidence.downstream.iter().take(3).map(|found| found.run.as_str()).collect();
    assert_eq!(
        first,
        ["local_sparsity-2_seed-0", "e2e_sparsity-2_seed-0", "e2e+ds_sparsity-2_seed-0"]
    );
    let local = &evidence.downstream[0];
    assert_eq!(local.layers.iter().map(|layer| layer.site).collect::<Vec<_>>(), LATER);
    // 0.25 · 2 · (1, 2, 3) / 2, and 1 − 0.125 of it.
    for (layer, mse) in local.layers.iter().zip([0.25, 0.5, 0.75]) {
        near(layer.mse, mse);
        near(layer.explained_variance, 1.0 - 0.125 * mse);
    }
    // The SAE at the second site has one later site less.
    let second = evidence.downstream.iter().find(|found| found.site == SITES[1]).unwrap();
    assert_eq!(second.layers.iter().map(|layer| layer.site).collect::<Vec<_>>(), LATER[1..]);
    assert_eq!(evidence.stability.len(), 18);
    let seeds = &evidence.stability[0];
    assert_eq!((&seeds.group, seeds.site), (&Group::LOCAL, SITES[0]));
    let expected = [(0, "local_sparsity-1_seed-0"), (1, "local_sparsity-1_seed-1")];
    assert_eq!(seeds.runs, expected.map(|(seed, run)| (seed, run.to_owned())));
    for (name, values) in [("l0", [40.0, 40.4]), ("alive", [21.0; 2]), ("kl", [0.15; 2])] {
        for (found, expected) in seeds.metrics[name].iter().zip(values) {
            near(*found, expected);
        }
    }
}

#[test]
fn differences_of_means_by_hand() {
    let mut sweep = Sweep::empty(4, 2);
    for variant in [Variant::Local, Variant::E2e] {
        let run = sweep.add(&variant.to_string(), support::config(variant, 1.0, 0, 2.0));
        run.summary.alive = SITES.iter().map(|&site| (site, 3)).collect();
    }
    sweep.write();
    for site in SITES {
        // The first feature is dead. The largest cosines of the other three: 0.8, 0.8, 0.6.
        sweep.write_rows(&sweep.run("local"), site, &[9.0, 9.0, 1.0, 0.0, 0.8, 0.6, 0.0, 1.0]);
        // Two at right angles and one opposite: 0, 0, 0.
        sweep.write_rows(&sweep.run("e2e"), site, &[9.0, 9.0, 1.0, 0.0, 0.0, 1.0, -1.0, 0.0]);
    }
    let evidence = analyse_with(sweep.path(), &quick(), &mut |_| {}).unwrap().evidence;
    let local = evidence.geometry.within.iter().find(|found| found.run == "local").unwrap();
    assert_eq!((local.alive, local.cosines.n), (3, 3));
    assert!((local.mean.value - 2.2 / 3.0).abs() < 1e-6, "{}", local.mean.value);
    for by in [MatchBy::CeIncrease, MatchBy::L0, MatchBy::Alive] {
        let mut found = evidence.geometry.differences.iter().filter(|found| found.by == by);
        let found = found.find(|found| found.site == SITES[0]).unwrap();
        assert_eq!((&found.of, &found.less), (&Group::E2E, &Group::LOCAL));
        assert!((found.estimate.value + 2.2 / 3.0).abs() < 1e-6);
        assert_eq!(found.estimate.options, quick().bootstrap);
    }
    // To local's (1, 0), (0.8, 0.6), (0, 1) are nearest: 1, 1, and of (−1, 0) the one at right angles, 0.
    let across = &evidence.geometry.across[1];
    assert_eq!((across.from.as_str(), across.to.as_str()), ("e2e", "local"));
    assert!((across.cosines.mean.unwrap() - 2.0 / 3.0).abs() < 1e-6);
}

#[test]
fn facets_split_the_frontier() {
    let mut sweep = Sweep::empty(24, 6);
    for variant in [Variant::Local, Variant::E2e] {
        for expansion in [4.0, 16.0] {
            for coeff in [1.0, 2.0, 4.0] {
                let config = support::config(variant, coeff, 0, expansion);
                let run = sweep.add(&format!("{variant}-{expansion}-{coeff}"), config);
                // The larger dictionary is twice as good for both types.
                if expansion > 4.0 {
                    let values = &mut run.summary.evaluation.values;
                    values.set(name::CE_INCREASE, values.get(name::CE_INCREASE) / 2.0);
                }
            }
        }
    }
    sweep.write();
    let facets = vec!["sae.expansion".to_owned()];
    let options = AnalysisOptions { facets, ..quick() };
    let evidence = analyse_with(sweep.path(), &options, &mut |_| {}).unwrap().evidence;
    let subsets = evidence.frontier.subsets();
    let values: Vec<&str> =
        subsets.iter().map(|subset| subset.facets["sae.expansion"].as_str()).collect();
    assert_eq!(values, ["4", "16", "4", "16"]);
    assert_eq!(evidence.frontier.summary.len(), 4);
    for comparison in &evidence.frontier.summary {
        // At every coefficient local has the CE increase of e2e at twice the L0.
        near(comparison.l0_at_equal_ce.mean.unwrap(), 0.5);
        assert!(comparison.facets.contains_key("sae.expansion"));
    }
    let svg = std::fs::read_to_string(layout::analysis(sweep.path(), "frontier", "svg")).unwrap();
    assert!(svg.contains("sae.expansion = 16"));
    let table = cells(&layout::analysis(sweep.path(), "frontier", "csv"));
    assert!(table[0].contains(&"sae.expansion".to_owned()));
    // Without the facet, one frontier a site.
    let plain = analyse_with(sweep.path(), &quick(), &mut |_| {}).unwrap().evidence;
    assert_eq!(plain.frontier.subsets().len(), 2);
    assert!(plain.frontier.points[0].facets.contains_key("sae.expansion"));
    let facets = vec!["sae.expansoin".to_owned()];
    let message = analyse_with(sweep.path(), &AnalysisOptions { facets, ..quick() }, &mut |_| {})
        .unwrap_err();
    let message = message.to_string();
    assert!(message.contains("`sae.expansoin`") && message.contains("sae.expansion"), "{message}");
}

/// An architecture and objective have a curve of their own, and are told apart in table and picture.
#[test]
fn architectures_have_curves_of_their_own() {
    let mut sweep = Sweep::empty(24, 6);
    for variant in [Variant::Local, Variant::E2e] {
        for k in [4, 8, 16] {
            let mut config = support::config(variant, 0.0, 0, 4.0);
            config.sae.architecture =
                serde_json::from_str(&format!(r#"{{"topk": {{"k": {k}}}}}"#)).unwrap();
            let run = sweep.add(&format!("{variant}-{k}"), config);
            let needs = if variant == Variant::Local { 2.0 } else { 1.0 };
            run.summary.evaluation.values.set(name::CE_INCREASE, needs / f64::from(k));
            for at in run.summary.evaluation.sites.values_mut() {
                at.set(name::L0, f64::from(k));
            }
        }
    }
    sweep.write();
    let analysis = analyse_with(sweep.path(), &quick(), &mut |_| {}).unwrap();
    let frontier = &analysis.evidence.frontier;
    let names: Vec<String> = frontier.groups().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["topk local", "topk e2e"]);
    // Without the paper's `local`, the one that reconstructs locally stands in for it.
    let found = &frontier.summary[0];
    assert_eq!(
        (found.group.to_string(), found.base.to_string()),
        (names[1].clone(), names[0].clone())
    );
    near(found.ce_at_equal_l0.mean.unwrap(), 0.5);
    assert!(analysis.text.contains("k = 16") && analysis.text.contains("compared with topk local"));
    let csv = cells(&layout::analysis(sweep.path(), "frontier", "csv"));
    let ks: Vec<&str> = csv[1..4].iter().map(|row| row.last().unwrap().as_str()).collect();
    assert_eq!((csv[1][1].as_str(), ks), ("topk local", vec!["4", "8", "16"]));
    let written =
        std::fs::read_to_string(layout::analysis(sweep.path(), "frontier", "json")).unwrap();
    assert_eq!(&serde_json::from_str::<Frontier>(&written).unwrap(), frontier);
    // The paper's types stand before it once they are there.
    for coeff in [1.0, 2.0, 4.0] {
        sweep.add(&format!("relu-{coeff}"), support::config(Variant::Local, coeff, 0, 4.0));
    }
    sweep.write();
    let analysis = analyse_with(sweep.path(), &quick(), &mut |_| {}).unwrap();
    let frontier = analysis.evidence.frontier;
    assert_eq!(frontier.groups().len(), 3);
    assert!(frontier.summary.iter().all(|found| found.base == Group::LOCAL));
}

#[test]
fn many_seeds_and_long_names_still_draw() {
    let mut sweep = Sweep::empty(24, 6);
    for seed in 0..9 {
        for variant in TYPES {
            let id = format!("{variant}_{}_seed-{seed}", "a-long-word-".repeat(12));
            sweep.add(&id, support::config(variant, 2.0, seed, 4.0));
        }
    }
    sweep.write();
    let evidence = analyse_with(sweep.path(), &quick(), &mut |_| {}).unwrap().evidence;
    // Each matched run to eight others and back, and three pairs of types, at two sites.
    assert_eq!(evidence.geometry.across.len(), 2 * (3 * 8 * 2 + 3 * 2));
    // But one pair of seeds a run is embedded.
    assert_eq!(evidence.embeddings.len(), 2 * (3 + 3));
    let svg = std::fs::read_to_string(layout::analysis(sweep.path(), "geometry", "svg")).unwrap();
    assert!(svg.contains("more"), "the legend has no room for 48 names");
}

#[test]
fn norms_and_directions_say_which_they_are() {
    let sweep = whole();
    analyse_with(sweep.path(), &quick(), &mut |_| {}).unwrap();
    let read = |name: &str, extension: &str| {
        std::fs::read_to_string(layout::analysis(sweep.path(), name, extension)).unwrap()
    };
    // Decoder rows are stored at unit length; the norms in the features are those before.
    assert!(read("report", "html").contains("decoder norm as trained"));
    assert!(read("features", "csv").lines().next().unwrap().contains("decoder_norm_as_trained"));
    assert!(read("report", "html").contains("KL(resampled ‖ original)"));
}

/// Without a manifest: a run's folder, or one that holds runs.
#[test]
fn runs_need_no_sweep() {
    let sweep = Sweep::of(&[Variant::Local, Variant::E2e], &[0], &[1.0, 2.0, 4.0]);
    sweep.write();
    let whole = analyse_with(sweep.path(), &quick(), &mut |_| {}).unwrap().evidence;
    std::fs::remove_file(layout::manifest(sweep.path())).unwrap();
    let loose = analyse_with(sweep.path(), &quick(), &mut |_| {}).unwrap().evidence;
    assert_eq!(loose.frontier.summary, whole.frontier.summary);
    assert_eq!(loose.runs.len(), 6);
    // In the order of their names.
    assert_eq!(loose.runs[0].run, "e2e_sparsity-1_seed-0");
    let one = sweep.run("local_sparsity-2_seed-0");
    let found = analyse_with(one.path(), &quick(), &mut |_| {}).unwrap();
    assert_eq!(found.evidence.runs.len(), 1);
    assert_eq!(found.evidence.sweep, "local_sparsity-2_seed-0");
    assert_eq!(found.report, one.path().join("report.html"));
    assert!(one.path().join("features.csv").is_file());
    let empty = tempfile::tempdir().unwrap();
    let message = analyse_with(empty.path(), &quick(), &mut |_| {}).unwrap_err().to_string();
    assert!(message.contains("holds no runs") && message.contains("manifest.json"), "{message}");
}

/// Runs of one type whose objectives differ in an option are groups of their own, and matched with the others.
#[test]
fn options_of_the_objective_make_groups() {
    let mut sweep = Sweep::of(&[Variant::Local], &[0], &[1.0, 2.0, 4.0]);
    for kl in ["0.5", "2.0"] {
        for coeff in [1.0, 2.0, 4.0] {
            let text = support::config(Variant::E2e, coeff, 0, 4.0).to_toml().unwrap();
            let text = text.replace("[loss.kl]\ncoeff = 1.0", &format!("[loss.kl]\ncoeff = {kl}"));
            let config = sae_config::RunConfig::parse(&text, "by hand").unwrap();
            sweep.add(&format!("e2e-{kl}-{coeff}"), config);
        }
    }
    sweep.write();
    let evidence = analyse_with(sweep.path(), &quick(), &mut |_| {}).unwrap().evidence;
    let names: Vec<String> = evidence.groups().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["local", "e2e, kl.coeff = 0.5", "e2e, kl.coeff = 2"]);
    assert!(evidence.matches.iter().all(|found| found.points.len() == 3));
    let svg = std::fs::read_to_string(layout::analysis(sweep.path(), "frontier", "svg")).unwrap();
    let colours: BTreeSet<&str> = svg
        .split("class=\"line\"")
        .skip(1)
        .filter_map(|line| line.split("stroke=\"").nth(1)?.split('"').next())
        .collect();
    assert_eq!(colours.len(), 3, "{colours:?}");
}

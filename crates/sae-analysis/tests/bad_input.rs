//! Sweeps with something broken or missing: the analysis comes all the same, and says what it left out.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod support;

use sae_analysis::evidence::Evidence;
use sae_analysis::{AnalysisOptions, analyse, analyse_with};
use sae_config::Variant;
use sae_record::layout;
use sae_record::metric::name;
use sae_record::summary::Status;
use sae_record::summary::{Inputs, Summary};
use support::{SITES, Sweep, quick};

const TYPES: [Variant; 3] = [Variant::Local, Variant::E2e, Variant::E2eDs];

/// The evidence, which is read back from its file as well.
fn analysed(sweep: &Sweep) -> Evidence {
    let evidence = analyse_with(sweep.path(), &quick(), &mut |_| {}).unwrap().evidence;
    let json = std::fs::read_to_string(layout::analysis(sweep.path(), "analysis", "json")).unwrap();
    let again: Evidence = serde_json::from_str(&json).unwrap();
    assert_eq!(again.notes, evidence.notes);
    evidence
}

fn noted(evidence: &Evidence, words: &[&str]) {
    let all = |note: &&String| words.iter().all(|word| note.contains(word));
    assert!(evidence.notes.iter().any(|note| all(&note)), "{words:?} not in {:#?}", evidence.notes);
}

fn sweep() -> Sweep {
    Sweep::of(&TYPES, &[0], &[1.0, 2.0, 4.0])
}

#[test]
fn unfinished_diverged_and_unreadable_runs_are_listed() {
    let mut sweep = sweep();
    sweep.runs[0].summary.status = Status::Diverged;
    let [diverged, unfinished, old, damaged] =
        [0, 1, 2, 3].map(|number: usize| sweep.runs[number].id.clone());
    sweep.write();
    std::fs::remove_file(sweep.run(&unfinished).summary()).unwrap();
    let path = sweep.run(&old).summary();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"libtorch\"", "\"tch\"")).unwrap();
    std::fs::write(sweep.run(&damaged).summary(), "{\"id\":").unwrap();
    let evidence = analysed(&sweep);
    assert_eq!((evidence.runs.len(), evidence.frontier.points.len()), (5, 10));
    noted(&evidence, &["Diverged", &diverged]);
    noted(&evidence, &["Not finished", &unfinished]);
    noted(&evidence, &["Unreadable", &old, "libtorch"]);
    noted(&evidence, &["Unreadable", &damaged, "EOF"]);
    // There is no local run left.
    assert!(evidence.frontier.summary.is_empty());
    assert_eq!(evidence.matches.iter().filter(|found| found.site == SITES[0]).count(), 3);
    assert!(evidence.matches.iter().all(|found| found.points.len() == 2));
}

#[test]
fn what_a_run_lacks_is_left_out() {
    let mut sweep = sweep();
    sweep.runs[0].summary.evaluation.sites.remove(&SITES[1]);
    sweep.runs[1].summary.alive.remove(&SITES[1]);
    sweep.runs[2].summary.alive.insert(SITES[0], 1);
    let ids: Vec<String> = sweep.runs.iter().map(|run| run.id.clone()).collect();
    sweep.write();
    std::fs::remove_dir_all(sweep.run(&ids[3]).sae(SITES[0])).unwrap();
    std::fs::remove_file(sweep.run(&ids[4]).features()).unwrap();
    let weights = sweep.run(&ids[5]).sae(SITES[1]).join("sae_weights.safetensors");
    std::fs::write(&weights, b"short").unwrap();
    let evidence = analysed(&sweep);
    assert_eq!(evidence.frontier.points.len(), 16);
    noted(&evidence, &[&ids[0], "no evaluation", "blocks.2"]);
    noted(&evidence, &[&ids[1], "no number of alive features", "blocks.2"]);
    noted(&evidence, &[&ids[2], "1 alive features", "blocks.1"]);
    noted(&evidence, &[&ids[3], "left out", "sae_weights.safetensors"]);
    noted(&evidence, &[&ids[4], "left out", "features.parquet"]);
    noted(&evidence, &[&ids[5], "truncated, damaged"]);
    // 16 points; less one alive feature, one without weights, two without features and one with damaged weights.
    assert_eq!(evidence.geometry.within.len(), 11);
}

fn shift_ce(summary: &mut Summary, by: f64) {
    let values = &mut summary.evaluation.values;
    values.set(name::CE_ORIGINAL, values.get(name::CE_ORIGINAL) + by);
}

#[test]
fn numbers_that_are_none_are_left_out_of_what_needs_them() {
    let mut sweep = Sweep::of(&TYPES, &[0, 1], &[1.0, 2.0, 4.0]);
    for (number, run) in sweep.runs.iter_mut().enumerate() {
        let evaluation = &mut run.summary.evaluation;
        match number {
            0 => evaluation.values.set(name::CE_INCREASE, f64::NAN),
            1 => evaluation.values.set(name::KL, f64::INFINITY),
            _ => {}
        }
        evaluation.downstream.values_mut().next().unwrap().set(name::MSE, f64::NAN);
    }
    let (none, infinite) = (sweep.runs[0].id.clone(), sweep.runs[1].id.clone());
    sweep.write();
    let evidence = analysed(&sweep);
    noted(&evidence, &[&none, "no finite CE increase"]);
    noted(&evidence, &[&infinite, "no finite KL"]);
    noted(&evidence, &["no finite reconstruction at blocks.2"]);
    assert!(evidence.matches.iter().flat_map(|found| &found.points).all(|p| p.run != none));
    assert!(evidence.downstream.iter().all(|found| found.layers.len() == 2));
    let seeds = &evidence.stability[0];
    assert!(!seeds.metrics.contains_key("ce_increase") && !seeds.metrics.contains_key("kl"));
    assert!(seeds.metrics.contains_key("l0"));
    let csv = std::fs::read_to_string(layout::analysis(sweep.path(), "frontier", "csv")).unwrap();
    assert!(!csv.contains("NaN") && !csv.contains("inf"), "{csv}");
    let svg = std::fs::read_to_string(layout::analysis(sweep.path(), "frontier", "svg")).unwrap();
    assert!(!svg.contains("NaN"));
}

#[test]
fn one_run_and_one_type_alone() {
    let mut sweep = Sweep::empty(24, 6);
    sweep.add("only", support::config(Variant::E2e, 2.0, 0, 4.0));
    sweep.write();
    let evidence = analysed(&sweep);
    assert!(evidence.matches.is_empty() && evidence.embeddings.is_empty());
    noted(&evidence, &["no runs are matched", "only"]);
    noted(&evidence, &["stability"]);
    noted(&evidence, &["Activations were not measured"]);
    assert_eq!((evidence.downstream.len(), evidence.features.len()), (2, 2));
    assert!(!layout::analysis(sweep.path(), "umap", "svg").exists());
    let text = analyse_with(sweep.path(), &quick(), &mut |_| {}).unwrap().text;
    assert!(text.contains("no site has `local` runs"), "{text}");
    // Of three runs of a type the middle one stands for it.
    let sweep = Sweep::of(&[Variant::Other], &[0], &[1.0, 2.0, 4.0]);
    sweep.write();
    let evidence = analysed(&sweep);
    assert_eq!(evidence.downstream[0].run, "other_sparsity-2_seed-0");
}

#[test]
fn several_models_and_nothing_finished_are_refused() {
    let mut sweep = sweep();
    let other = support::config(Variant::E2e, 8.0, 0, 4.0).to_toml().unwrap();
    let other = other.replace("models/tiny", "models/large");
    // Its summary has no fingerprints: the names are what can be compared.
    let other = sae_config::RunConfig::parse(&other, "by hand").unwrap();
    sweep.add("stranger", other).summary.inputs = None;
    sweep.write();
    let message = analyse(sweep.path()).unwrap_err().to_string();
    // The report says so too, instead of one of yesterday.
    let report = std::fs::read_to_string(layout::report(sweep.path())).unwrap();
    for word in
        ["cannot be compared", "differ in the model", "models/tiny", "models/large", "stranger"]
    {
        assert!(message.contains(word) && report.contains(word), "{message}");
    }
    let mut sweep = Sweep::empty(24, 6);
    sweep.add("only", support::config(Variant::E2e, 2.0, 0, 4.0));
    sweep.write();
    std::fs::write(sweep.run("only").summary(), "[]").unwrap();
    let message = analyse(sweep.path()).unwrap_err().to_string();
    assert!(message.contains("no finished run among its 1") && message.contains("summary.json"));
    std::fs::remove_file(sweep.run("only").summary()).unwrap();
    let message = analyse(sweep.path()).unwrap_err().to_string();
    assert!(message.contains("run the sweep first"), "{message}");
}

type Edit<'a> = &'a dyn Fn(&mut Summary);

#[test]
fn runs_computed_from_other_things_are_not_put_on_one_picture() {
    let refused = |edit: &dyn Fn(&mut Summary)| {
        let mut sweep = sweep();
        edit(&mut sweep.runs[3].summary);
        sweep.write();
        (analyse(sweep.path()).map(|_| ()).unwrap_err().to_string(), sweep.runs[3].id.clone())
    };
    let inputs = |edit: fn(&mut Inputs)| {
        move |summary: &mut Summary| {
            edit(summary.inputs.as_mut().unwrap());
        }
    };
    // A branch that moved between two jobs; data replaced under its name; a summary that does not say.
    let (model, training, evaluation) = (
        inputs(|inputs| inputs.model = "moved".to_owned()),
        inputs(|inputs| inputs.training = "replaced".to_owned()),
        inputs(|inputs| inputs.evaluation = "other".to_owned()),
    );
    let silent = |summary: &mut Summary| {
        summary.inputs = None;
        shift_ce(summary, 0.01);
    };
    let cases: [(Edit<'_>, [&str; 2]); 4] = [
        (&model, ["differ in the model", "moved"]),
        (&training, ["differ in the training data", "replaced"]),
        (&evaluation, ["differ in the evaluation set", "other"]),
        (&silent, ["cross-entropy of the original model", "2.0100"]),
    ];
    for (edit, words) in cases {
        let (message, run) = refused(edit);
        for word in words.into_iter().chain([&*run]) {
            assert!(message.contains(word), "`{word}` is missing from: {message}");
        }
    }
    // A first run of an earlier version, which knows nothing, does not hide that others differ.
    let mut sweep = sweep();
    sweep.runs[0].summary.inputs = None;
    sweep.write();
    analyse(sweep.path()).unwrap();
    sweep.runs[3].summary.inputs.as_mut().unwrap().evaluation = "other".to_owned();
    sweep.write();
    let message = analyse(sweep.path()).unwrap_err().to_string();
    assert!(message.contains("evaluation set") && message.contains("other"), "{message}");
    // A model that has moved is the model that it was.
    let mut sweep = Sweep::of(&TYPES, &[0], &[1.0, 2.0, 4.0]);
    sweep.runs[3].config.model.path = "elsewhere/tiny".parse().unwrap();
    sweep.write();
    analyse(sweep.path()).unwrap();
    // What threads do to the last digits is no difference.
    let mut sweep = Sweep::of(&TYPES, &[0], &[1.0, 2.0, 4.0]);
    shift_ce(&mut sweep.runs[3].summary, 1e-6);
    sweep.write();
    analyse(sweep.path()).unwrap();
}

#[test]
fn a_damaged_configuration_leaves_out_its_run_alone() {
    let sweep = sweep();
    sweep.write();
    let damaged = sweep.runs[2].id.clone();
    std::fs::write(sweep.run(&damaged).config(), "[model").unwrap();
    let evidence = analysed(&sweep);
    noted(&evidence, &["Unreadable, left out", &damaged, "config.toml"]);
    assert_eq!(evidence.runs.len(), sweep.runs.len() - 1);
}

#[test]
fn activations_of_another_model_are_not_shown() {
    let sweep = sweep();
    sweep.write();
    let path = layout::activations(sweep.path(), SITES[0]);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let of = r#"{"model": "another", "evaluation": "evaluation"}"#;
    let values = r#"{"tokens": 1, "norm": [1.0], "directions": [], "random_resampling_kl": 0.1,
        "first_position": [], "along_first": []}"#;
    std::fs::write(&path, format!(r#"{{"of": {of}, "values": {values}}}"#)).unwrap();
    let evidence = analysed(&sweep);
    assert!(evidence.activations.is_empty());
    noted(&evidence, &["another model or evaluation set", "blocks.1.hook_resid_pre.json"]);
    std::fs::write(
        &path,
        format!(r#"{{"of": {}, "values": {values}}}"#, of.replace("another", "model")),
    )
    .unwrap();
    assert_eq!(analysed(&sweep).activations.len(), 1);
}

#[test]
fn seeds_of_the_data_pair_runs_too() {
    // As sweeps of the reference are imported: one seed for initialisation and data.
    let mut sweep = Sweep::of(&TYPES, &[0, 1], &[1.0, 2.0, 4.0]);
    for run in &mut sweep.runs {
        run.config.data.seed = run.config.sae.seed;
    }
    sweep.write();
    let evidence = analysed(&sweep);
    assert!(!evidence.stability.is_empty());
    assert_eq!(evidence.stability[0].differ_in, ["sae.seed", "data.seed"]);
    for run in &mut sweep.runs {
        (run.config.data.seed, run.config.sae.seed) = (run.config.sae.seed + 7, 0);
    }
    sweep.write();
    let evidence = analysed(&sweep);
    assert_eq!(evidence.stability[0].differ_in, ["data.seed"]);
    let seeds: Vec<u64> = evidence.stability[0].runs.iter().map(|(seed, _)| *seed).collect();
    assert_eq!(seeds, [7, 8]);
}

#[test]
fn summaries_with_one_number_of_features_are_still_read() {
    let sweep = sweep();
    sweep.write();
    let path = sweep.run(&sweep.runs[0].id).summary();
    let mut summary: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let before = Summary::load(&path).unwrap();
    summary["n_features"] = 24.into();
    std::fs::write(&path, summary.to_string()).unwrap();
    assert_eq!(Summary::load(&path).unwrap().n_features, before.n_features);
}

#[test]
fn activations_that_cannot_be_used_and_options_that_are_none() {
    let sweep = sweep();
    sweep.write();
    let model = layout::activations(sweep.path(), SITES[0]);
    std::fs::create_dir_all(model.parent().unwrap()).unwrap();
    std::fs::write(&model, "{}").unwrap();
    let run = &sweep.runs[0].id;
    std::fs::write(sweep.run(run).activations(), "null").unwrap();
    let evidence = analysed(&sweep);
    assert!(evidence.activations.is_empty());
    noted(&evidence, &["cannot use", "blocks.1.hook_resid_pre.json"]);
    noted(&evidence, &["cannot use", run, "activations.json"]);
    let mut options = AnalysisOptions::default();
    options.bootstrap.n_resamples = 0;
    let message = analyse_with(sweep.path(), &options, &mut |_| {}).unwrap_err().to_string();
    assert!(message.contains("at least one resample"), "{message}");
}

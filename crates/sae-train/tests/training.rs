//! Whole runs on a tiny model and tiny parquet: banks, seeds, accumulation, interruption, divergence, bad input.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

mod support;

use sae_config::RunConfig;
use sae_record::summary::Status;
use sae_train::progress::{Event, Observer, Silent};
use sae_train::{RunSpec, TrainError, evaluate_saes, made_with, train};
use support::{DOWNSTREAM, Interrupt, LOCAL, Place, metrics, run, same_run, weights, windows};
use tch::Device;

#[test]
fn a_run_leaves_everything_and_learns() {
    let place = Place::new();
    let spec = place.spec("run", &[DOWNSTREAM]);
    let summary = run(std::slice::from_ref(&spec)).unwrap().remove(0);
    assert_eq!((summary.steps, summary.training_tokens), (20, 2560));
    assert_eq!(summary.n_features.into_values().collect::<Vec<_>>(), [64]);
    assert_eq!(summary.status, Status::Finished);
    let lines = metrics(&spec);
    assert_eq!(lines.len(), 20);
    for key in ["step", "samples", "lr", "grad_norm", "loss", "sparsity", "downstream", "kl", "l0"]
    {
        assert!(lines[3][key].is_number(), "{key}");
    }
    let loss = |index: usize| lines[index]["loss"].as_f64().unwrap();
    assert!(loss(19) < 0.7 * loss(0), "{} {}", loss(0), loss(19));
    // The warm-up of 4 steps begins at 0.
    assert_eq!(lines[0]["lr"], 0.0);
    assert_eq!(lines[4]["lr"], 5e-3);
    assert!(spec.folder.features().is_file() && !spec.folder.checkpoints().exists());
    // The resolved configuration names the downstream sites.
    let resolved = RunConfig::load(&spec.folder.config()).unwrap();
    let sites = &resolved.loss.downstream.unwrap().sites;
    assert_eq!(
        sites.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["blocks.2.hook_resid_pre"]
    );
    // The evaluation of the stored weights is the one in the summary.
    let stored = RunConfig::load(&spec.folder.config()).unwrap();
    let again = evaluate_saes(&stored, spec.folder.path(), Device::Cpu, &mut Silent).unwrap();
    assert!(
        (again.values.get("ce_increase") - summary.evaluation.values.get("ce_increase")).abs()
            < 1e-5
    );
    // A second call finds it finished.
    let finished = std::fs::metadata(spec.folder.summary()).unwrap().modified().unwrap();
    run(std::slice::from_ref(&spec)).unwrap();
    assert_eq!(finished, std::fs::metadata(spec.folder.summary()).unwrap().modified().unwrap());
}

#[test]
fn features_parquet_tells_of_every_feature() {
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    let place = Place::new();
    let spec = place.spec("run", &[]);
    let summary = run(std::slice::from_ref(&spec)).unwrap().remove(0);
    let file = std::fs::File::open(spec.folder.features()).unwrap();
    let batches: Vec<_> = ParquetRecordBatchReaderBuilder::try_new(file)
        .unwrap()
        .build()
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(batches.iter().map(arrow_array::RecordBatch::num_rows).sum::<usize>(), 64);
    let alive = batches[0].column_by_name("alive").unwrap();
    let alive = arrow_array::cast::AsArray::as_boolean(alive.as_ref());
    assert_eq!(alive.true_count() as u64, summary.alive.values().sum::<u64>());
    assert!(summary.alive_tokens >= 500);
}

/// The invariant of banks: 20 steps of Adam, alone and together, to the same bits.
#[test]
fn a_bank_is_its_runs_alone() {
    let place = Place::new();
    let edits: [&[(&str, &str)]; 5] = [
        &[],
        &[("coeff = 0.5", "coeff = 2.0")],
        &[LOCAL, ("expansion = 2", "expansion = 3\nseed = 4")],
        &[DOWNSTREAM, ("lr = 5e-3", "lr = 1e-3")],
        &[("blocks.1.hook_resid_pre", "blocks.2.hook_mlp_out")],
    ];
    let specs = |prefix: &str| -> Vec<RunSpec> {
        edits
            .iter()
            .enumerate()
            .map(|(i, edits)| place.spec(&format!("{prefix}{i}"), edits))
            .collect()
    };
    let (together, alone) = (specs("bank"), specs("alone"));
    run(&together).unwrap();
    for (bank, alone) in together.iter().zip(&alone) {
        run(std::slice::from_ref(alone)).unwrap();
        same_run(bank, alone);
    }
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_another() {
    let place = Place::new();
    let specs = [
        place.spec("a", &[]),
        place.spec("b", &[]),
        place.spec("c", &[("expansion = 2", "expansion = 2\nseed = 1")]),
        place.spec("d", &[("shuffle_buffer = 32", "shuffle_buffer = 32\nseed = 1")]),
    ];
    for spec in &specs {
        run(std::slice::from_ref(spec)).unwrap();
    }
    same_run(&specs[0], &specs[1]);
    for other in &specs[2..] {
        assert_ne!(metrics(&specs[0]), metrics(other));
    }
}

#[test]
fn accumulation_is_one_large_batch() {
    let place = Place::new();
    let large = place.spec("large", &[DOWNSTREAM]);
    let small = place.spec(
        "small",
        &[DOWNSTREAM, ("batch_size = 8", "batch_size = 2\neffective_batch_size = 8")],
    );
    for spec in [&large, &small] {
        run(std::slice::from_ref(spec)).unwrap();
    }
    for (a, b) in metrics(&large).iter().zip(&metrics(&small)) {
        let (a, b) = (a["grad_norm"].as_f64().unwrap(), b["grad_norm"].as_f64().unwrap());
        assert!((a - b).abs() < 1e-3 * a, "{a} {b}");
    }
    for ((name, a), (_, b)) in weights(&large).iter().zip(&weights(&small)) {
        let difference = (a - b).abs().max().double_value(&[]);
        assert!(difference < 2e-3, "{name} {difference}");
    }
}

#[test]
fn an_interrupted_bank_goes_on_to_the_same_bits() {
    let place = Place::new();
    // A threshold that is remembered, and one that is trained.
    let batch_topk = ("expansion = 2", "expansion = 2\narchitecture = { batch_topk = { k = 6 } }");
    let jumprelu = (
        "expansion = 2",
        "expansion = 2\narchitecture = { jumprelu = { initial_threshold = 0.1, bandwidth = 0.5 } }",
    );
    let specs = |name: &str| {
        [
            place.spec(&format!("{name}-e2e"), &[]),
            place.spec(&format!("{name}-local"), &[LOCAL]),
            place.spec(&format!("{name}-batch_topk"), &[batch_topk]),
            place.spec(
                &format!("{name}-jumprelu"),
                &[jumprelu, ("coeff = 0.5", "coeff = 0.5, p = 0")],
            ),
        ]
    };
    let (whole, broken) = (specs("whole"), specs("broken"));
    run(&whole).unwrap();
    let mut interrupt = Interrupt { after: 7, done: 0 };
    let error = train(&broken, Device::Cpu, &made_with("test"), &mut interrupt).unwrap_err();
    assert!(matches!(error, TrainError::Interrupted { step: 7 }), "{error}");
    assert!(broken[0].folder.checkpoint(7).is_dir() && !broken[0].folder.summary().exists());
    // A line of a step after the checkpoint, as a kill would leave it, goes.
    let mut text = std::fs::read_to_string(broken[0].folder.metrics()).unwrap();
    text.push_str("{\"step\":8,\"loss\":1.0}\n{\"step\":");
    std::fs::write(broken[0].folder.metrics(), text).unwrap();
    run(&broken).unwrap();
    for (whole, broken) in whole.iter().zip(&broken) {
        same_run(whole, broken);
        assert!(!broken.folder.checkpoints().exists());
    }
}

#[test]
fn checkpoints_and_evaluations_in_between() {
    let place = Place::new();
    let spec = place.spec(
        "run",
        &[
            ("every_n_steps = 1", "every_n_steps = 5\ncheckpoint_every_n_steps = 8"),
            ("alive_tokens = 500", "alive_tokens = 500\nevery_n_samples = 64"),
        ],
    );
    run(std::slice::from_ref(&spec)).unwrap();
    for step in [8, 16, 20] {
        assert!(spec.folder.checkpoint(step).join("state.safetensors").is_file(), "{step}");
    }
    let lines = metrics(&spec);
    let evaluated: Vec<u64> = lines
        .iter()
        .filter(|line| line["evaluation"]["ce_increase"].is_number())
        .map(|line| line["step"].as_u64().unwrap())
        .collect();
    assert_eq!(evaluated, [8, 16]);
    assert_eq!(lines.len(), 4 + 2);
    // How often features are active, on all tokens of the evaluation set.
    let history = sae_record::metrics::read(&spec.folder.metrics()).unwrap();
    assert_eq!((history.steps.len(), history.evaluations.len()), (4, 2));
    for (line, evaluation) in
        lines.iter().filter(|line| line["evaluation"].is_object()).zip(&history.evaluations)
    {
        let (_, found) = line["features"].as_object().unwrap().iter().next().unwrap();
        let counts = found["log10_frequency"].as_array().unwrap();
        let alive: u64 = counts.iter().map(|count| count.as_u64().unwrap()).sum();
        assert!(alive > 0 && found["alive"] == alive);
        assert!((evaluation.values["alive"] - alive as f64).abs() < 1e-9);
        assert_eq!(found["tokens"], line["evaluation"]["tokens"]);
    }
    // The event file is written anew where a run goes on; it is there where it is asked for.
    assert!(!spec.folder.tensorboard().exists());
    let spec =
        place.spec("board", &[("every_n_steps = 1", "every_n_steps = 5\ntensorboard = true")]);
    run(std::slice::from_ref(&spec)).unwrap();
    assert!(std::fs::metadata(spec.folder.tensorboard()).unwrap().len() > 400);
}

#[test]
fn a_run_that_diverges_stops_and_the_others_go_on() {
    let place = Place::new();
    let wild = place.spec("wild", &[("lr = 5e-3\n            max_grad_norm = 1.0", "lr = 1e30")]);
    let calm = place.spec("calm", &[]);
    let alone = place.spec("alone", &[]);
    let summaries = run(&[wild.clone(), calm.clone()]).unwrap();
    assert_eq!(summaries[0].status, Status::Diverged);
    // The warm-up's first rate is 0: step 2 makes the state bad, step 3 finds it, the state of step 1 is kept.
    assert_eq!(summaries[0].steps, 1);
    assert!(summaries[0].evaluation.values.get("ce_increase").is_finite());
    assert_eq!((&summaries[1].status, summaries[1].steps), (&Status::Finished, 20));
    // What it keeps is finite.
    for (name, tensor) in weights(&wild) {
        assert!(tensor.isfinite().all().int64_value(&[]) == 1, "{name}");
    }
    run(std::slice::from_ref(&alone)).unwrap();
    same_run(&calm, &alone);
}

/// A bank of which nothing is left to train ends there; what is good outlives an interruption.
#[test]
fn a_divergence_after_an_interruption_is_the_same() {
    let place = Place::new();
    let edits = [("lr = 5e-3\n            max_grad_norm = 1.0", "lr = 1e30")];
    let (whole, broken) = (place.spec("whole", &edits), place.spec("broken", &edits));
    let whole_summary = run(std::slice::from_ref(&whole)).unwrap().remove(0);
    let mut interrupt = Interrupt { after: 2, done: 0 };
    let specs = std::slice::from_ref(&broken);
    assert!(train(specs, Device::Cpu, &made_with("test"), &mut interrupt).is_err());
    let summary = run(specs).unwrap().remove(0);
    assert_eq!((summary.status, summary.steps), (Status::Diverged, whole_summary.steps));
    same_run(&whole, &broken);
}

#[test]
fn bad_input_is_told_before_anything_starts() {
    let place = Place::new();
    windows(&place.path("tiny"), 3, 9);
    let tiny = format!("{:?}", place.path("tiny"));
    let train = format!("{:?}", place.path("train"));
    let validation = format!("{:?}", place.path("validation"));
    let cases: [(&str, &str, &[&str]); 7] = [
        (&train, &tiny, &["tiny", "3 windows", "160 are needed to train on"]),
        (&validation, &tiny, &["tiny", "3 windows", "16 are needed to evaluate on"]),
        (&validation, &train, &["evaluation", "is the training data"]),
        (
            "context_length = 16",
            "context_length = 25",
            &["25 tokens is longer than the model's 24"],
        ),
        (
            "context_length = 16",
            "context_length = 8",
            &["row 0", "16 tokens", "context_length = 8"],
        ),
        (
            "blocks.1.hook_resid_pre",
            "blocks.7.hook_resid_pre",
            &["blocks.7", "blocks.0 to blocks.2"],
        ),
        ("\"input_ids\"", "\"tokens\"", &["no column `tokens`", "input_ids"]),
    ];
    for (number, (from, to, parts)) in cases.into_iter().enumerate() {
        let spec = place.spec(&format!("bad{number}"), &[(from, to)]);
        let error = run(std::slice::from_ref(&spec)).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "`{part}` is missing from: {error}");
        }
        assert!(!spec.folder.path().exists(), "nothing is left behind");
    }
}

#[test]
fn a_folder_with_another_run_is_left_alone() {
    let place = Place::new();
    run(&[place.spec("run", &[])]).unwrap();
    let other = place.spec("run", &[("lr = 5e-3", "lr = 1e-3")]);
    let error = run(std::slice::from_ref(&other)).unwrap_err().to_string();
    assert!(error.contains("`train.lr` (0.005 there, 0.001 here)"), "{error}");
}

#[test]
fn runs_with_other_batches_are_no_bank() {
    let place = Place::new();
    let specs = [place.spec("a", &[]), place.spec("b", &[("batch_size = 8", "batch_size = 4")])];
    let error = run(&specs).unwrap_err().to_string();
    assert!(error.contains("a and b cannot train as one bank"), "{error}");
}

/// Does something once, when a step is done.
struct After<F: FnMut()> {
    step: u64,
    act: F,
}

impl<F: FnMut()> Observer for After<F> {
    fn notice(&mut self, event: Event) {
        if matches!(event, Event::Advanced { done, .. } if done == self.step) {
            (self.act)();
        }
    }
}

#[test]
fn a_shard_lost_in_the_middle_costs_nothing() {
    let place = Place::new();
    let whole = place.spec("whole", &[]);
    run(std::slice::from_ref(&whole)).unwrap();
    let broken = place.spec("broken", &[]);
    // The third shard: windows from 128 on, which the reader has not reached after one step.
    let shard = place.path("train").join("shard-00002.parquet");
    let away = place.path("away.parquet");
    let act = || std::fs::rename(&shard, &away).unwrap();
    let mut lose = After { step: 1, act };
    let specs = std::slice::from_ref(&broken);
    let error = train(specs, Device::Cpu, &made_with("test"), &mut lose).unwrap_err().to_string();
    assert!(error.contains("shard-00002.parquet"), "{error}");
    assert!(broken.folder.checkpoints().is_dir());
    std::fs::rename(&away, &shard).unwrap();
    run(specs).unwrap();
    same_run(&whole, &broken);
}

#[test]
fn without_a_number_of_samples_all_data_is_used_once() {
    let place = Place::new();
    let spec = place.spec(
        "run",
        &[
            ("n_samples = 160\n", "\n"),
            (
                "warmup_samples = 32",
                "kind = \"linear\"\nwarmup_samples = 32\ncooldown_samples = 64",
            ),
            ("shuffle_buffer = 32", "shuffle_buffer = 32\nskip = 24"),
        ],
    );
    let summary = run(std::slice::from_ref(&spec)).unwrap().remove(0);
    assert_eq!(summary.steps, (200 - 24) / 8);
    let resolved = RunConfig::load(&spec.folder.config()).unwrap();
    assert_eq!(resolved.train.n_samples, Some(176));
    // Finished: a second call with the same configuration finds it so.
    run(std::slice::from_ref(&spec)).unwrap();
}

#[test]
fn the_first_windows_of_the_training_data_may_be_held_out() {
    let place = Place::new();
    let held_out = |name: &str, skip: &str| {
        let validation = format!("data = {:?}\n            n_samples", place.path("validation"));
        let training = format!("data = {:?}\n            n_samples", place.path("train"));
        place.spec(
            name,
            &[
                (&validation, &training),
                ("shuffle_buffer = 32", &format!("shuffle_buffer = 32\n{skip}")),
            ],
        )
    };
    run(&[held_out("apart", "skip = 16")]).unwrap();
    let error = run(&[held_out("overlapping", "skip = 15")]).unwrap_err().to_string();
    assert!(error.contains("data.skip = eval.n_samples"), "{error}");
}

/// In f64 libtorch's own operations are taken, in f32 the kernels: over 50 steps they tell the same.
#[test]
fn the_fast_paths_are_the_plain_ones() {
    let place = Place::new();
    let terms = ["loss", "sparsity", "local", "downstream", "kl", "grad_norm"];
    for (name, edit) in [("e2e", ("kl", "kl")), ("e2e+ds", DOWNSTREAM), ("local", LOCAL)] {
        let (longer, smaller) =
            (("n_samples = 160", "n_samples = 200"), ("batch_size = 8", "batch_size = 4"));
        let single = place.spec(&format!("{name}-single"), &[edit, longer, smaller]);
        let precision = ("lr = 5e-3", "lr = 5e-3\nprecision = \"f64\"");
        let double = place.spec(&format!("{name}-double"), &[edit, longer, smaller, precision]);
        for spec in [&single, &double] {
            run(std::slice::from_ref(spec)).unwrap();
        }
        let (single, double) = (metrics(&single), metrics(&double));
        assert_eq!((single.len(), double.len()), (50, 50));
        for (a, b) in single.iter().zip(&double) {
            for term in terms {
                let (Some(a), Some(b)) = (a[term].as_f64(), b[term].as_f64()) else { continue };
                assert!((a - b).abs() <= 1e-5 * b, "{name} {term}: {a} {b}");
            }
        }
        // Initial numbers are drawn in double precision, so that f32 alone rounds.
        assert_ne!(single[0]["loss"], double[0]["loss"]);
    }
}

#[test]
fn a_bank_that_begins_again_saves_what_it_does() {
    let place = Place::new();
    let often = ("every_n_steps = 1", "every_n_steps = 1\ncheckpoint_every_minutes = 1e-9");
    let specs =
        [place.spec("a", &[often]), place.spec("b", &[often, ("coeff = 0.5", "coeff = 0.7")])];
    let stop = |after| {
        let mut interrupt = Interrupt { after, done: 0 };
        train(&specs, Device::Cpu, &made_with("test"), &mut interrupt).unwrap_err()
    };
    stop(15);
    // One member's folder is lost; the other's later checkpoints count for nothing, and take no place.
    std::fs::remove_dir_all(specs[1].folder.path()).unwrap();
    stop(6);
    for spec in &specs {
        assert!(spec.folder.checkpoint(6).is_dir(), "{}", spec.id);
    }
    assert!(matches!(stop(9), TrainError::Interrupted { step: 9 }));
    run(&specs).unwrap();
    let alone = place.spec("alone", &[often]);
    run(std::slice::from_ref(&alone)).unwrap();
    same_run(&specs[0], &alone);
}

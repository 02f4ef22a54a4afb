//! The binary `sae` driven as a user does, on a tiny model.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

#[path = "support/small_run.rs"]
mod small_run;
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use sae_config::SweepConfig;
use small_run::{OF_WINDOWS, small_run};
use support::{fails, model, sae, says, stderr, succeeds, windows};
use tempfile::TempDir;

/// A folder with windows of random-looking tokens and a run's configuration.
fn place() -> TempDir {
    let place = TempDir::new().unwrap();
    for (name, n, step) in [("train", 200, 7), ("validation", 16, 11)] {
        windows(&place.path().join(name), n, step, 64);
    }
    let toml = small_run("kl", 0, OF_WINDOWS);
    std::fs::write(place.path().join("run.toml"), toml).unwrap();
    place
}

#[test]
fn every_command_explains_itself_with_an_example() {
    let here = Path::new(".");
    let help = succeeds(&sae(&["--help"], here));
    assert!(help.contains("Exit codes"), "{help}");
    for command in [
        "prepare",
        "pretrain",
        "train",
        "sweep",
        "eval",
        "analyze",
        "import",
        "convert",
        "generate",
        "completions",
        "config",
    ] {
        assert!(help.contains(command), "{command}");
        let help = succeeds(&sae(&[command, "--help"], here));
        assert!(help.contains("Example") && help.contains(&format!("sae {command} ")), "{help}");
    }
    assert_eq!(sae(&["trian"], here).status.code(), Some(2));
    let version = succeeds(&sae(&["--version"], here));
    let [first, second] = version.lines().collect::<Vec<_>>()[..] else { panic!("{version}") };
    assert!(first.starts_with("sae ") && first.contains("(commit "), "{version}");
    assert!(second.starts_with("libtorch 2.11.0, ") && second.contains("CUDA device"), "{version}");
    assert_eq!(succeeds(&sae(&["-V"], here)).lines().count(), 1);
    for shell in ["bash", "zsh", "fish"] {
        assert!(succeeds(&sae(&["completions", shell], here)).contains("print-config"), "{shell}");
    }
}

#[test]
fn train_then_eval() {
    let place = place();
    let at = place.path();
    succeeds(&sae(&["train", "run.toml", "--out", "runs/one", "--device", "cpu"], at));
    let config = std::fs::read_to_string(at.join("runs/one/config.toml")).unwrap();
    assert!(config.contains("blocks.1.hook_resid_pre"), "{config}");
    let summary = std::fs::read_to_string(at.join("runs/one/summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert!(summary["versions"]["commit"].as_str().unwrap().len() >= 7, "{summary}");

    let printed = succeeds(&sae(&["eval", "runs/one"], at));
    let evaluation: serde_json::Value = serde_json::from_str(&printed).unwrap();
    for key in ["l0", "ce_increase", "kl"] {
        let (a, b) =
            (evaluation[key].as_f64().unwrap(), summary["evaluation"][key].as_f64().unwrap());
        assert!((a - b).abs() < 1e-5, "{key}: {a} {b}");
    }
    let half = succeeds(&sae(&["eval", "runs/one", "--n-samples", "8"], at));
    let half: serde_json::Value = serde_json::from_str(&half).unwrap();
    assert_eq!(half["tokens"], 8 * 16);
}

/// Runs are whole wherever they are opened from, and go on where their model has moved to; another model is another one.
#[test]
fn runs_open_from_anywhere_and_models_may_move() {
    let place = place();
    let at = place.path();
    let copy = |to: &str| {
        std::fs::create_dir(at.join(to)).unwrap();
        for file in std::fs::read_dir(model()).unwrap().map(|file| file.unwrap()) {
            std::fs::copy(file.path(), at.join(to).join(file.file_name())).unwrap();
        }
    };
    copy("model");
    let text = std::fs::read_to_string(at.join("run.toml")).unwrap();
    let text = text.replace(&format!("{:?}", model()), "\"model\"");
    std::fs::write(at.join("run.toml"), text).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let there = elsewhere.path();
    let config = at.join("run.toml");
    succeeds(&sae(&["train", config.to_str().unwrap(), "--out", "run"], there));
    let recorded = std::fs::read_to_string(there.join("run/config.toml")).unwrap();
    assert!(recorded.contains(&format!("path = {:?}", at.join("model"))), "{recorded}");
    let run = there.join("run");
    let run = run.to_str().unwrap();
    let before = succeeds(&sae(&["eval", run], at));
    std::fs::rename(at.join("model"), at.join("moved")).unwrap();
    fails(&sae(&["eval", run], at), &["/model", "--set model.path=PATH"]);
    let moved = format!("model.path={}", at.join("moved").display());
    assert_eq!(succeeds(&sae(&["eval", run, "--set", "model.path=moved"], at)), before);
    // A finished run is finished, wherever its model is, if it is there and the same one.
    let config = config.to_str().unwrap();
    let again =
        |settings: &[&str]| sae(&[&["train", config, "--out", run], settings].concat(), there);
    succeeds(&again(&["--set", &moved]));
    fails(&again(&["--set", "model.path=none"]), &["none"]);
    std::fs::rename(at.join("moved"), at.join("model")).unwrap();
    copy("other");
    let weights = at.join("other/model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let other = format!("model.path={}", at.join("other").display());
    fails(&again(&["--set", &other]), &["begun with another model", "other"]);
    let evaluated = sae(&["eval", run, "--set", &other], at);
    says(&stderr(&evaluated), &["not the one that its SAEs were trained in"]);
    fails(&again(&["--set", "train.lr=0.5"]), &["`train.lr` (0.001 there, 0.5 here)"]);
    fails(
        &sae(&["eval", run, "--set", "model.pth=x"], at),
        &["--set model.pth=x", "did you mean `path`"],
    );
}

const RUST_LM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/runs/rust-lm.toml");

#[test]
fn keys_are_explained() {
    let here = Path::new(".");
    let explain = |key: &str| succeeds(&sae(&["config", "--explain", key], here));
    says(&explain("sae.expansion"), &["F / D", "number above 0", "saes.dict_size_to_input_ratio"]);
    says(&explain("data.train"), &["# a run (sae train)", "# a pretraining run (sae pretrain)"]);
    says(&explain("model.n_layers"), &["# a pretraining run"]);
    says(
        &explain("loss"),
        &["[loss.kl]", "loss.kl.coeff", "required", "What the term is multiplied by"],
    );
    says(&explain("train_data.n_ctx"), &["data.context_length"]);
    fails(&sae(&["config", "--explain", ""], here), &["name a key or a section", "train.schedule"]);
    says(&explain("lr"), &["train.lr", "e2e_sae    lr"]);
    says(&explain("warmup_samples"), &["train.schedule.warmup_samples"]);
    fails(&sae(&["config", "--explain", "alive"], here), &["`eval.alive_tokens`"]);
    fails(
        &sae(&["config", "--explain", "coeff"], here),
        &["`loss.kl.coeff`", "`loss.local.coeff`"],
    );
    let topk = ["train", RUST_LM, "--out", "b", "--set", "sae.architecture=topk"];
    fails(&sae(&topk, here), &["options of its own", "--set sae.architecture.topk.k=VALUE"]);
    fails(&sae(&["config", "--explain", "sae.expnsion"], here), &["`sae.expansion`"]);
    let schema = succeeds(&sae(&["config", "--schema", "sweep"], here));
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    assert_eq!(schema["properties"]["set"]["properties"]["train.lr"]["type"], "number");
    says(&succeeds(&sae(&["config", "--markdown"], here)), &["### `[train.schedule]`"]);
    assert_eq!(sae(&["config"], here).status.code(), Some(2));
}

#[test]
fn a_copied_binary_finds_libtorch() {
    let place = tempfile::tempdir().unwrap();
    let copy = place.path().join("sae");
    std::fs::copy(env!("CARGO_BIN_EXE_sae"), &copy).unwrap();
    let mut command = std::process::Command::new(copy);
    let output = command.arg("--version").env_remove("LD_LIBRARY_PATH").output().unwrap();
    says(&succeeds(&output), &["libtorch 2.11.0"]);
}

#[test]
fn a_sweep_is_trained_and_analysed() {
    let place = place();
    let at = place.path();
    let sweep = format!(
        r#"
        name = "small"
        base = {:?}
        [[variants]]
        name = "e2e"
        grid = {{ "loss.sparsity.coeff" = [0.5, 2.0], "sae.seed" = [0, 1] }}
        "#,
        at.join("run.toml")
    );
    std::fs::write(at.join("sweep.toml"), sweep).unwrap();
    let sweep = SweepConfig::load(&at.join("sweep.toml")).unwrap();
    let manifest = sae_record::Manifest::from(sweep.expand(100).unwrap());
    std::fs::create_dir_all(at.join("runs/small")).unwrap();
    manifest.save(&at.join("runs/small/manifest.json")).unwrap();
    succeeds(&sae(&["train", "--manifest", "runs/small/manifest.json", "--job", "0"], at));

    // Without the model first: all but the activations.
    let few = succeeds(&sae(&["analyze", "runs/small", "--no-activations"], at));
    assert!(few.contains("Activations were not measured"), "{few}");
    let printed =
        succeeds(&sae(&["analyze", "runs/small", "--match", "l0", "--facet", "sae.seed"], at));
    assert!(!printed.contains("Activations were not measured"), "{printed}");
    for part in ["CE increase", "expl. var.", "0.5", "sae.seed"] {
        assert!(printed.contains(part), "`{part}` is missing from: {printed}");
    }
    let analysis = std::fs::read_to_string(at.join("runs/small/analysis.json")).unwrap();
    let analysis: serde_json::Value = serde_json::from_str(&analysis).unwrap();
    assert_eq!(analysis["match_by"], "l0");
    assert_eq!(analysis["frontier"]["facets"], serde_json::json!(["sae.seed"]));
    assert_eq!(
        analysis["activations"]["blocks.1.hook_resid_pre"]["runs"].as_object().unwrap().len(),
        4
    );
    assert!(at.join("runs/small/report.html").is_file());
    // The same by one command, from anywhere, and once more, when there is nothing left to train.
    let elsewhere = at.join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let again = sae(&["sweep", "../sweep.toml", "--jobs", "1"], &elsewhere);
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(again.status.success() && said.contains("job 0, e2e ×4: done"), "{said}");
    assert!(elsewhere.join("runs/small/report.html").is_file());
    let frontier =
        |place: &Path| std::fs::read_to_string(place.join("runs/small/frontier.json")).unwrap();
    let points =
        |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap()["points"].clone();
    assert_eq!(points(&frontier(&elsewhere)).as_array().unwrap().len(), 4);
    let again = sae(&["sweep", "../sweep.toml"], &elsewhere);
    assert!(String::from_utf8_lossy(&again.stderr).contains("finished before, skipped"));
    let shown = succeeds(&sae(&["sweep", "../sweep.toml", "--dry-run"], &elsewhere));
    assert!(shown.contains("4 runs in 1 job,"), "{shown}");
    // A single run of it.
    let run = at.join("runs/small").join(&manifest.runs().next().unwrap().folder);
    succeeds(&sae(&["analyze", run.to_str().unwrap()], at));
    assert!(run.join("report.html").is_file() && run.join("activations.csv").is_file());

    fails(&sae(&["analyze", "runs/small", "--facet", "sae.sede"], at), &["`sae.sede`", "sae.seed"]);
    let wrong = sae(&["analyze", "runs/small", "--match", "kl"], at);
    assert_eq!(wrong.status.code(), Some(2));
    // The model has gone: a warning, and what was measured stays.
    let text = std::fs::read_to_string(at.join("runs/small/manifest.json")).unwrap();
    let text = text.replace(&model().display().to_string(), "nowhere");
    std::fs::write(at.join("runs/small/manifest.json"), text).unwrap();
    let run = manifest.runs().next().unwrap();
    std::fs::remove_file(at.join("runs/small").join(&run.folder).join("activations.json")).unwrap();
    let output = sae(&["analyze", "runs/small"], at);
    succeeds(&output);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("activations are not measured") && said.contains("nowhere"), "{said}");
}

#[test]
fn progress_as_json_is_json() {
    let place = place();
    let printed =
        succeeds(&sae(&["--progress", "json", "train", "run.toml", "--out", "one"], place.path()));
    let events: Vec<serde_json::Value> =
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let phases: Vec<&str> = events.iter().filter_map(|event| event["phase"].as_str()).collect();
    assert_eq!(phases, ["train", "evaluate", "alive"]);
    assert!(events.iter().any(|event| event["event"] == "advanced" && event["done"] == 10));
}

#[test]
fn print_config_shows_the_whole_run_and_trains_nothing() {
    let place = place();
    let printed = succeeds(&sae(&["train", "run.toml", "--print-config"], place.path()));
    assert!(printed.contains("shuffle_buffer = 4096") && printed.contains("min_lr_factor = 0.1"));
    assert!(!place.path().join("config.toml").exists());
}

#[test]
fn bad_input_is_told() {
    let place = place();
    let at = place.path();
    fails(&sae(&["train", "nowhere.toml", "--out", "x"], at), &["nowhere.toml", "cannot read"]);
    fails(&sae(&["eval", "nowhere"], at), &["there is nothing at nowhere"]);
    fails(&sae(&["analyze", "nowhere"], at), &["there is no folder nowhere"]);
    fails(&sae(&["train", "run.toml", "--out", "x", "--device", "cuda:7"], at), &["cuda:7"]);
    let text = std::fs::read_to_string(at.join("run.toml")).unwrap();
    std::fs::write(at.join("bad.toml"), text.replace("expansion", "expansoin")).unwrap();
    fails(
        &sae(&["train", "bad.toml", "--out", "x"], at),
        &["bad.toml", "line 4", "`expansoin`", "did you mean `expansion`"],
    );
    // What is missing from [train] is in a section of another name.
    let whole = include_str!("../../../configs/runs/rust-lm.toml");
    std::fs::write(at.join("bad.toml"), whole.replace("[train]\n", "[trian]\n")).unwrap();
    fails(&sae(&["train", "bad.toml", "--out", "x"], at), &["`trian`", "did you mean `train`"]);
    let named = text.replace(&format!("{:?}", model()), "\"gpt2\"");
    std::fs::write(at.join("bad.toml"), named).unwrap();
    fails(&sae(&["train", "bad.toml", "--out", "x"], at), &["gpt2", "no such folder", "hf://"]);
    std::fs::create_dir(at.join("a-run")).unwrap();
    std::fs::write(at.join("a-run/config.toml"), &text).unwrap();
    // A run that is not finished, and a folder of nothing.
    fails(&sae(&["analyze", "a-run"], at), &["a-run has no finished run among its 1"]);
    std::fs::create_dir(at.join("nothing")).unwrap();
    fails(&sae(&["analyze", "nothing"], at), &["nothing holds no runs", "manifest.json"]);
    let both = sae(&["train", "--manifest", "m", "--job", "0", "--out", "x"], at);
    assert_eq!(both.status.code(), Some(2));
    // A configuration is printed as it can be read again.
    let printed = sae(&["train", "run.toml", "--print-config"], at);
    succeeds(&printed);
    assert!(String::from_utf8_lossy(&printed.stdout).starts_with('['));
}

/// A file size limit stands for a full disk: writing fails half way. What was there before stays whole.
#[cfg(unix)]
#[test]
fn a_full_disk_loses_nothing() {
    let place = place();
    let at = place.path();
    let binary = env!("CARGO_BIN_EXE_sae");
    // 8 blocks of 512 bytes: the configuration fits, weights and checkpoints do not.
    let script = format!("trap '' XFSZ; ulimit -f 8; exec {binary} train run.toml --out one");
    let output = Command::new("sh").args(["-c", &script]).current_dir(at).output().unwrap();
    fails(&output, &["cannot write", "one"]);
    let left: Vec<PathBuf> = walk(&at.join("one"));
    assert!(!left.iter().any(|path| path.to_string_lossy().contains("partial")), "{left:?}");
    assert!(!at.join("one/summary.json").exists());
    // With room again, the same command ends the run.
    succeeds(&sae(&["train", "run.toml", "--out", "one"], at));
    assert!(at.join("one/summary.json").is_file());
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(walk(&path));
        }
        all.push(path);
    }
    all
}

#[test]
fn pretrain_makes_a_model_that_train_can_use() {
    let place = place();
    let at = place.path();
    for (part, numbers) in [("train", 0..60), ("validation", 60..90)] {
        let name = format!("{part}.txt");
        let files: Vec<String> = numbers
            .map(|file| {
                let path = at.join(format!("{name}-{file}.rs"));
                std::fs::write(
                    &path,
                    format!("fn f{file}() -> u32 {{ {file} + {file} }}\n").repeat(40),
                )
                .unwrap();
                path.display().to_string()
            })
            .collect();
        std::fs::write(at.join(&name), files.join("\n")).unwrap();
    }
    let both = sae(&["prepare", "--files", "train.txt", "--tokenizer", "lm", "--out", "x"], at);
    assert_eq!(both.status.code(), Some(2));
    says(&stderr(&both), &["cannot be used with"]);
    std::fs::write(at.join("latin.txt"), [0xe9, b'\n']).unwrap();
    fails(
        &sae(&["prepare", "--files", "latin.txt", "--out", "x"], at),
        &["none of 1 files is text in UTF-8"],
    );
    assert!(!at.join("x").exists());
    succeeds(&sae(&["prepare", "--file-list", "train.txt", "--out", "text"], at));
    succeeds(&sae(&["prepare", "--file-list", "validation.txt", "--out", "held-out"], at));
    succeeds(&sae(&["prepare", "--shards", "text", "--train-tokenizer", "280", "--out", "lm"], at));
    let windows = [
        "prepare",
        "--shards",
        "text",
        "--tokenizer",
        "lm",
        "--context-length",
        "16",
        "--out",
        "windows",
    ];
    succeeds(&sae(&windows, at));
    let toml = r#"
        model = { n_layers = 1, d_model = 16, n_heads = 2, context_length = 16 }
        data = { train = "text", validation = "held-out", column = "text", tokenizer = "lm", shuffle_buffer = 64 }
        train = { n_steps = 60, batch_size = 8, lr = 1e-2, warmup_steps = 5, min_lr_factor = 0.1, weight_decay = 0.1, max_grad_norm = 1.0 }
    "#;
    std::fs::write(at.join("lm.toml"), toml).unwrap();
    succeeds(&sae(&["pretrain", "lm.toml", "--out", "lm"], at));
    let training: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(at.join("lm/training.json")).unwrap())
            .unwrap();
    let loss = training["validation_loss"].as_f64().unwrap();
    assert!(loss < 0.7 * f64::from(280).ln(), "{loss}");
    let card = std::fs::read_to_string(at.join("lm/README.md")).unwrap();
    assert!(card.contains(&format!("{loss:.4} nats")), "{card}");
    // A finished model is neither trained anew nor replaced by another.
    let stored = || std::fs::read(at.join("lm/model.safetensors")).unwrap();
    let before = stored();
    let again = sae(&["pretrain", "lm.toml", "--out", "lm"], at);
    succeeds(&again);
    says(&stderr(&again), &["nothing to do"]);
    let bounded = ["pretrain", "lm.toml", "--set", "data.n_validation_samples=40", "--out"];
    fails(&sae(&[&bounded[..], &["lm"]].concat(), at), &["holds a model already", "--out"]);
    assert!(stored() == before);
    succeeds(&sae(&[&bounded[..], &["bounded"]].concat(), at));
    let training: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(at.join("bounded/training.json")).unwrap())
            .unwrap();
    // Whole batches of 32 windows, each of 15 predictions.
    assert_eq!(training["validation_tokens"], 32 * 15);
    // Text straight from the shards, tokenised on the way.
    let run = std::fs::read_to_string(at.join("run.toml"))
        .unwrap()
        .replace(&format!("{:?}", model()), "\"lm\"")
        .replace("train = \"train\", column = \"input_ids\"", "train = \"text\"")
        .replace("\"validation\"", "\"held-out\"")
        .replace("blocks.1", "blocks.0");
    std::fs::write(at.join("text.toml"), run).unwrap();
    succeeds(&sae(&["train", "text.toml", "--out", "text-run"], at));
}

#[test]
fn a_profile_tells_where_the_time_goes() {
    let place = place();
    let arguments = ["train", "run.toml", "--out", "run", "--profile", "--device", "cpu"];
    let table = succeeds(&sae(&arguments, place.path()));
    for part in ["data", "clean", "spliced", "sae", "kl", "backward", "optimiser", "all"] {
        assert!(
            table.lines().any(|line| line.starts_with(part)),
            "{part} is missing from:\n{table}"
        );
    }
    let all = table.lines().last().unwrap();
    assert!(all.ends_with("100.0"), "{table}");
}

#[test]
fn bench_takes_steps_on_request() {
    use std::io::Write;
    use std::process::Stdio;
    let shape = |kind: &str| {
        format!(
            r#"{{"family": "gpt_neo", "layers": 3, "d_model": 16, "heads": 2, "vocab": 300, "context": 16, "batch": 2,
                "layer": 1, "expansion": 8, "type": "{kind}", "members": 2, "warmup_steps": 1, "active": 5, "lr": 1e-5,
                "threads": 1}}"#
        )
    };
    for kind in ["local", "e2e", "e2e+ds"] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sae"))
            .args(["--device", "cpu", "bench", "train", &shape(kind)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"3\n1\n").unwrap();
        let text = succeeds(&child.wait_with_output().unwrap());
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines.len(), &lines[0]["ready"]), (3, &true.into()));
        assert_eq!(lines[1]["seconds"].as_array().unwrap().len(), 3);
        assert_eq!(lines[1]["tokens_per_step"], 32);
        // About so many features are active as were asked for.
        let l0 = lines[2]["l0"].as_f64().unwrap();
        assert!((2.0..10.0).contains(&l0), "{kind}: {l0}");
        assert!(lines[2]["parts"]["backward"].as_f64().unwrap() > 0.0);
    }
    let floor =
        succeeds(&sae(&["bench", "floor", &shape("e2e"), "--device", "cpu"], Path::new(".")));
    let floor: serde_json::Value = serde_json::from_str(&floor).unwrap();
    assert!(floor["products"].as_f64().unwrap() > 0.0 && floor["adam"].as_f64().unwrap() > 0.0);
    let refused = sae(&["bench", "train", &shape("global")], Path::new("."));
    fails(&refused, &["`global`", "local, e2e or e2e+ds"]);
}

//! Tasks of two answers, driven as a user does, on a tiny model.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

#[path = "support/small_run.rs"]
mod small_run;
mod support;

use sae_record::RunFolder;
use sae_record::activations::Measured;
use sae_record::task::RunTask;
use small_run::{OF_WINDOWS, small_run};
use support::{fails, sae, says, stderr, succeeds, windows};
use tempfile::TempDir;

#[test]
fn what_of_a_task_is_left_is_measured_once_and_compared() {
    let place = TempDir::new().unwrap();
    let at = place.path();
    for (name, n, step) in [("train", 200, 7), ("validation", 40, 11)] {
        windows(&at.join(name), n, step, 64);
    }
    for (name, term) in [("first", "kl"), ("second", "local")] {
        std::fs::write(at.join("run.toml"), small_run(term, 0, OF_WINDOWS)).unwrap();
        succeeds(&sae(&["train", "run.toml", "--out", &format!("runs/{name}")], at));
    }
    let line = |prompt: &str, right: &str, wrong: &str| {
        let line = serde_json::json!({
            "clean_prefix": prompt, "clean_answer": right, "patch_answer": wrong, "case": "x",
        });
        format!("{line}\n")
    };
    let lines = [line("the cat", "a", "b"), line("a dog and", "c", "d"), line("of", "e", "f")];
    std::fs::write(at.join("letters.jsonl"), lines.concat()).unwrap();
    let found = succeeds(&sae(&["task", "runs", "letters.jsonl"], at));
    says(
        &found,
        &["3 prompts, of which the original model gets ", "first ", "second ", "faithfulness "],
    );
    let path = RunFolder::new(at.join("runs/first")).task("letters");
    let measured = Measured::<RunTask>::load(&path).unwrap().unwrap().values;
    assert_eq!((measured.original.len(), measured.spliced.len()), (3, 3));
    assert_ne!(measured.original, measured.spliced);
    // Measured once: the second call does not take up the model.
    let written = std::fs::metadata(&path).unwrap().modified().unwrap();
    let again = sae(&["task", "runs", "letters.jsonl"], at);
    assert_eq!(succeeds(&again), found);
    assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), written);
    succeeds(&sae(&["analyze", "runs", "--no-activations"], at));
    let table = std::fs::read_to_string(at.join("runs/tasks.csv")).unwrap();
    assert_eq!(table.lines().count(), 3, "{table}");
    says(&table, &["letters,3,"]);
    // A task of other prompts is measured again, of all runs.
    std::fs::write(at.join("letters.jsonl"), lines[..2].concat()).unwrap();
    says(&succeeds(&sae(&["task", "runs", "letters.jsonl"], at)), &["2 prompts"]);

    for (text, said) in [
        ("{}\n".to_owned(), "missing field `clean_prefix`"),
        (line("the", "a", "a"), "answers that begin with different tokens"),
        (line("the", "", "a"), "an answer is empty"),
        (line(&"word ".repeat(40), "a", "b"), "a prompt of 16 tokens at most"),
        (String::new(), "expected a line a prompt"),
    ] {
        std::fs::write(at.join("wrong.jsonl"), text).unwrap();
        let wrong = sae(&["task", "runs", "wrong.jsonl"], at);
        fails(&wrong, &["cannot use line 1 of ", said]);
        assert!(!stderr(&wrong).contains("panicked"));
    }
}

//! Explanations of features by a language model, driven as a user does; a server stands for the model.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

#[path = "../../sae-interp/tests/support/server.rs"]
mod server;
#[path = "support/small_run.rs"]
mod small_run;
mod support;

use sae_config::Site;
use sae_interp::explain::{Audience, audience};
use sae_record::RunFolder;
use sae_record::dashboard::Dashboard;
use sae_record::scores::{Item, ItemKind, Scores};
use serde_json::{Value, json};
use server::{said, server};
use small_run::{OF_WINDOWS, small_run};
use support::{fails, sae, sae_with, says, stderr, succeeds, windows};
use tempfile::TempDir;

const SITE: &str = "blocks.1.hook_resid_pre";

fn place() -> TempDir {
    let place = TempDir::new().unwrap();
    for (name, n, step) in [("train", 200, 7), ("validation", 240, 11)] {
        windows(&place.path().join(name), n, step, 64);
    }
    let toml = small_run("kl", 0, OF_WINDOWS);
    std::fs::write(place.path().join("run.toml"), toml).unwrap();
    succeeds(&sae(&["train", "run.toml", "--out", "run"], place.path()));
    place
}

#[test]
fn features_are_explained_by_what_half_of_the_documents_show() {
    let place = place();
    let at = place.path();
    let (url, requests) = server(|n, _| match n {
        0 => said("No."),
        1 => {
            let message = json!({ "content": null, "refusal": "I would rather not." });
            (200, "", json!({ "choices": [{ "message": message }] }).to_string())
        }
        n => said(&json!({ "explanation": format!("Explanation {n}.") }).to_string()),
    });
    let explain = |more: &[&str]| {
        let all = ["explain", "run", "--base-url", &url, "--model", "judge", "--concurrency", "1"];
        // The key of another place is in the environment.
        sae_with(&[&all[..], more].concat(), at, &[("OPENAI_API_KEY", "sk-secret")])
    };
    fails(&explain(&[]), &["no run that is looked at has dashboards", "`sae features run`"]);
    succeeds(&sae(&["features", "run"], at));
    // What it would cost, without asking.
    std::fs::write(at.join("prices.toml"), "[judge]\nprompt = 1e6\ncompletion = 0.0\n").unwrap();
    let estimate = succeeds(&explain(&["--features", "5", "--dry-run", "--prices", "prices.toml"]));
    says(&estimate, &["5 questions, 0 answered before", "US dollars"]);
    let other = ["--features", "5", "--dry-run", "--prices", "prices.toml", "--model", "gpt-9"];
    let other = sae(&[&["explain", "run"], &other[..]].concat(), at);
    fails(&other, &["has no price of gpt-9; it has judge"]);
    assert!(requests.lock().unwrap().is_empty());

    let explained = explain(&["--features", "5"]);
    succeeds(&explained);
    says(&stderr(&explained), &["3 features explained", "2 features without an explanation"]);
    assert!(!stderr(&explained).contains("sk-secret"));
    let folder = RunFolder::new(at.join("run")).dashboard(SITE.parse::<Site>().unwrap());
    let dashboard = Dashboard::load(&folder).unwrap().unwrap();
    let found = dashboard.explanations.as_ref().unwrap();
    assert_eq!((found.judge.as_str(), found.features.len()), ("judge", 5));
    let texts: Vec<&str> = found.features.values().filter_map(|own| own.text.as_deref()).collect();
    assert_eq!(texts, ["Explanation 2.", "Explanation 3.", "Explanation 4."]);
    let errors: Vec<&str> =
        found.features.values().filter_map(|own| own.error.as_deref()).collect();
    assert!(errors.iter().any(|error| error.contains("I would rather not.")), "{errors:?}");
    assert!(errors.iter().any(|error| error.contains("\"No.\"")), "{errors:?}");
    // Shown were documents of one half alone, and of each feature those of its examples.
    for (feature, own) in &found.features {
        assert!(!own.documents.is_empty());
        let is_for = |&(file, row): &(u32, u64)| audience(file, row, true) == Audience::Explainer;
        assert!(own.documents.iter().all(is_for));
        let examples = dashboard.examples(dashboard.card(*feature).unwrap()).unwrap();
        let is_shown = |document: &(u32, u64)| {
            examples.iter().any(|example| (example.file, example.row) == *document)
        };
        assert!(own.documents.iter().all(is_shown));
    }
    let (head, asked) = requests.lock().unwrap()[2].clone();
    assert!(!head.contains("authorization"), "{head}");
    let text = asked["messages"][1]["content"].as_str().unwrap();
    says(text, &["Windows in which it is most active", "«", "»", "makes likelier to come next"]);
    // Asked once; what is asked further joins what there is.
    let asked = requests.lock().unwrap().len();
    succeeds(&explain(&["--features", "5"]));
    assert_eq!(requests.lock().unwrap().len(), asked + 1, "the refusal alone is asked again");
    let known: Vec<u32> = found.features.keys().copied().collect();
    let card = dashboard.cards.iter().find(|card| !known.contains(&card.feature)).unwrap();
    let further =
        explain(&["--feature", &card.feature.to_string(), "--key-from", "OPENAI_API_KEY"]);
    succeeds(&further);
    let dashboard = Dashboard::load(&folder).unwrap().unwrap();
    assert_eq!(dashboard.explanations.as_ref().unwrap().features.len(), 6);
    let (head, _) = requests.lock().unwrap().last().unwrap().clone();
    assert!(head.contains("authorization: bearer sk-secret"), "{head}");
    // The report's cards have them.
    succeeds(&sae(&["analyze", "run", "--no-activations"], at));
    let page = std::fs::read_to_string(at.join("run/report.html")).unwrap();
    says(&page, &["Explanation 3."]);
    // Nobody there.
    let nobody = ["explain", "run", "--model", "judge", "--base-url", "http://127.0.0.1:1/v1"];
    let nobody =
        sae(&[&nobody[..], &["--retries", "0", "--feature", "0", "--answers", "x"]].concat(), at);
    fails(&nobody, &["cannot reach http://127.0.0.1:1/v1"]);
}

/// What is asked: an explanation, or about excerpts with the one that is in front of them.
fn asked_with(asked: &Value) -> Option<(String, bool)> {
    let text = asked["messages"][1]["content"].as_str().unwrap();
    let explanation = text.strip_prefix("Explanation: ")?.lines().next().unwrap().to_owned();
    Some((explanation, text.contains('«')))
}

/// A judge whose explanations are numbered. Of excerpts it says yes to all where the number is even and nothing is marked, or where it is
/// odd and tokens are marked; and no otherwise: what it says tells which explanation and which task it was asked with.
fn judge(n: usize, asked: &Value) -> server::Reply {
    let Some((explanation, is_marked)) = asked_with(asked) else {
        return said(&json!({ "explanation": format!("Number {n}.") }).to_string());
    };
    let lines = asked["messages"][1]["content"].as_str().unwrap().lines().count() - 3;
    let digit = usize::from(says_yes(&explanation, is_marked));
    let content = json!({ "answers": vec![digit; lines] }).to_string();
    let likely = if digit == 1 { -0.1_f64 } else { -2.0 };
    let top = json!([
        { "token": "1", "logprob": likely },
        { "token": "0", "logprob": (1.0 - likely.exp()).ln() },
    ]);
    let token = json!({ "token": digit.to_string(), "logprob": 0.0, "top_logprobs": top });
    let logprobs = json!({ "content": vec![token; lines] });
    let choice = json!({ "message": { "content": content }, "logprobs": logprobs });
    (200, "", json!({ "choices": [choice] }).to_string())
}

fn says_yes(explanation: &str, is_marked: bool) -> bool {
    let number = explanation.trim_matches(|c: char| !c.is_ascii_digit());
    (number.parse::<usize>().unwrap() % 2 == 0) != is_marked
}

#[test]
fn explanations_are_scored_on_documents_that_none_was_made_from() {
    let place = place();
    let at = place.path();
    let (url, requests) = server(judge);
    let ask = |command: &str, more: &[&str]| {
        let all = [command, "run", "--base-url", &url, "--model", "judge"];
        sae(&[&all[..], more].concat(), at)
    };
    succeeds(&sae(&["features", "run"], at));
    fails(&ask("score", &[]), &["no run has two explained features or more", "`sae explain run`"]);
    succeeds(&ask("explain", &["--features", "100"]));
    let explained = requests.lock().unwrap().len();
    let estimate = succeeds(&ask("score", &["--dry-run"]));
    says(&estimate, &[" questions, 0 answered before"]);
    let scored = ask("score", &[]);
    succeeds(&scored);
    says(&stderr(&scored), &["scored; balanced accuracy of detection 0.", "(shuffled 0."]);
    let folder = RunFolder::new(at.join("run")).dashboard(SITE.parse::<Site>().unwrap());
    let dashboard = Dashboard::load(&folder).unwrap().unwrap();
    let explanations = dashboard.explanations.as_ref().unwrap();
    let scores = Scores::load(&folder, &dashboard.gathered.of).unwrap().unwrap();
    assert!(scores.features.len() > 3, "{}", scores.features.len());
    assert_eq!(requests.lock().unwrap().len(), explained + 4 * scores.features.len());
    let shown: Vec<(u32, u64)> =
        explanations.features.values().flat_map(|own| own.documents.clone()).collect();
    for (feature, score) in &scores.features {
        assert_eq!(explanations.features[feature].text.as_ref(), Some(&score.explanation));
        assert_ne!(score.shuffled_with, *feature);
        let detection: Vec<ItemKind> = score.detection.items.iter().map(|own| own.kind).collect();
        let active = detection.iter().filter(|kind| **kind == ItemKind::Active).count();
        assert_eq!((detection.len(), active), (10, 5));
        let right = score.fuzzing.items.iter().filter(|own| own.kind == ItemKind::Right).count();
        assert_eq!(2 * right, score.fuzzing.items.len());
        let other = explanations.features[&score.shuffled_with].text.clone().unwrap();
        for (trial, is_marked) in [(&score.detection, false), (&score.fuzzing, true)] {
            // No document that any explanation of the dictionary was made from, nor one that may go on in such a one.
            assert!(trial.items.iter().all(|item| !shown.contains(&item.document)));
            let is_kept =
                |item: &Item| audience(item.document.0, item.document.1, true) == Audience::Scorer;
            assert!(trial.items.iter().all(is_kept));
            // Each answer is the one to the question with that explanation, about these excerpts.
            for (answers, explanation) in
                [(&trial.own, &score.explanation), (&trial.shuffled, &other)]
            {
                let yes = says_yes(explanation, is_marked);
                assert_eq!(answers.said, Some(vec![yes; trial.items.len()]));
                let found = trial.accuracy(answers).unwrap();
                assert!(
                    (found.balanced - 0.5).abs() < 1e-12
                        && (found.auc.unwrap() - 0.5).abs() < 1e-12
                );
            }
        }
    }
    // Asked once.
    let asked = requests.lock().unwrap().len();
    succeeds(&ask("score", &[]));
    assert_eq!(requests.lock().unwrap().len(), asked);
    // The report has them.
    succeeds(&sae(&["analyze", "run", "--no-activations"], at));
    let page = std::fs::read_to_string(at.join("run/report.html")).unwrap();
    says(&page, &["Interpretability with a judge: judge has written"]);
    let table = std::fs::read_to_string(at.join("run/explanations.csv")).unwrap();
    assert_eq!(table.lines().count(), 3, "{table}");
    says(&table, &[",detection,", ",fuzzing,"]);
    // Scores of a dashboard that was made anew are not shown.
    succeeds(&sae(&["features", "run", "--tokens", "1600"], at));
    succeeds(&sae(&["analyze", "run", "--no-activations"], at));
    assert!(!at.join("run/explanations.csv").exists());
}

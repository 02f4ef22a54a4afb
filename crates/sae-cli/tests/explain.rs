//! Explanations of features by a language model, driven as a user does; a server stands for the model.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

#[path = "../../sae-interp/tests/support/server.rs"]
mod server;
#[path = "support/small_run.rs"]
mod small_run;
mod support;

use sae_config::Site;
use sae_interp::explain::is_for_explaining;
use sae_record::RunFolder;
use sae_record::dashboard::Dashboard;
use serde_json::json;
use server::{said, server};
use small_run::{OF_WINDOWS, small_run};
use support::{fails, sae, sae_with, says, stderr, succeeds, windows};
use tempfile::TempDir;

const SITE: &str = "blocks.1.hook_resid_pre";

fn place() -> TempDir {
    let place = TempDir::new().unwrap();
    for (name, n, step) in [("train", 200, 7), ("validation", 40, 11)] {
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
        assert!(own.documents.iter().all(|&(file, row)| is_for_explaining(file, row)));
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

//! The client of language models against a server that fails in every way that servers do.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

#[path = "support/server.rs"]
mod server;

use std::time::{Duration, Instant};

use sae_interp::endpoint::{AskError, Endpoint, EndpointOptions, Question, ask_all};
use sae_interp::http::ClientOptions;
use serde_json::{Value, json};
use server::{said, server};
use tempfile::TempDir;

fn options(url: &str) -> EndpointOptions {
    EndpointOptions {
        requests: ClientOptions {
            first_pause: Duration::from_millis(10),
            timeout: Duration::from_secs(5),
            retries: 3,
            ..ClientOptions::default()
        },
        ..EndpointOptions::new(url, "judge")
    }
}

fn question(text: &str) -> Question {
    Question {
        system: "Answer.".to_owned(),
        text: text.to_owned(),
        schema: json!({ "type": "object" }),
        max_tokens: 50,
        top_logprobs: 0,
    }
}

const GO_ON: &(dyn Fn() -> bool + Sync) = &|| false;

#[test]
fn what_passes_is_tried_again() {
    let (url, requests) = server(|n, _| match n {
        0 => (429, "retry-after: 1\r\n", "slow down".to_owned()),
        1 => (503, "", "overloaded".to_owned()),
        2 => (0, "", String::new()),
        _ => said("yes"),
    });
    let began = Instant::now();
    let answer = Endpoint::new(options(&url)).ask(&question("a"), GO_ON).unwrap();
    assert_eq!((answer.text.as_str(), answer.usage.prompt_tokens), ("yes", 7));
    assert_eq!(requests.lock().unwrap().len(), 4);
    assert!(began.elapsed() >= Duration::from_secs(1), "it waits as long as it is told");
    let (_, body) = requests.lock().unwrap()[0].clone();
    assert_eq!((&body["temperature"], &body["seed"]), (&json!(0), &json!(0)));
    assert_eq!(body["response_format"]["type"], "json_schema");
    // But not for ever.
    let (url, requests) = server(|_, _| (500, "", "broken".to_owned()));
    let error = Endpoint::new(options(&url)).ask(&question("a"), GO_ON).unwrap_err();
    assert!(error.to_string().contains("500 (4 attempts): broken") && error.is_of_endpoint());
    assert_eq!(requests.lock().unwrap().len(), 4);
}

#[test]
fn an_endpoint_is_asked_for_a_form_that_it_takes() {
    let (url, requests) = server(|_, asked| match asked["response_format"]["type"].as_str() {
        Some("json_schema") => (400, "", "unknown response_format".to_owned()),
        Some(_) => (422, "", String::new()),
        None => said("free"),
    });
    let endpoint = Endpoint::new(options(&url));
    let bounded = Question {
        schema: json!({ "type": "array", "maxItems": 2, "items": { "type": "string", "maxLength": 9 } }),
        ..question("a")
    };
    assert_eq!(endpoint.ask(&bounded, GO_ON).unwrap().text, "free");
    let schemas: Vec<Value> = requests.lock().unwrap()[..2]
        .iter()
        .map(|(_, asked)| asked["response_format"]["json_schema"]["schema"].clone())
        .collect();
    // With bounds of lengths, and without.
    let plain = json!({ "type": "array", "items": { "type": "string" } });
    assert_eq!(schemas, [bounded.schema, plain]);
    assert_eq!(requests.lock().unwrap().len(), 4);
    // And is not asked for the others again.
    endpoint.ask(&question("b"), GO_ON).unwrap();
    assert_eq!(requests.lock().unwrap().len(), 5);
    // A request that is wrong in itself is told in the endpoint's words.
    let (url, requests) = server(|_, _| (400, "", "the prompt is too long".to_owned()));
    let error = Endpoint::new(options(&url)).ask(&question("a"), GO_ON).unwrap_err();
    assert!(error.to_string().contains("the prompt is too long") && !error.is_of_endpoint());
    assert_eq!(requests.lock().unwrap().len(), 4);
    // Without end, and not for reasoning: it would be so again.
    let choice =
        json!({ "message": { "content": "{\"a\": \"and and" }, "finish_reason": "length" });
    let reply = json!({ "choices": [choice] }).to_string();
    let (url, requests) = server(move |_, _| (200, "", reply.clone()));
    let error = Endpoint::new(options(&url)).ask(&question("a"), GO_ON).unwrap_err();
    assert!(matches!(error, AskError::Empty { has_reasoned: false, .. }));
    assert_eq!(requests.lock().unwrap().len(), 1);
}

#[test]
fn an_endpoint_is_asked_as_it_wants_to_be() {
    let (url, requests) = server(|_, asked| {
        if asked.get("max_tokens").is_some() {
            return (400, "", "use max_completion_tokens instead".to_owned());
        }
        if asked.get("temperature").is_some() {
            return (400, "", "'temperature' does not support 0".to_owned());
        }
        said("as you like")
    });
    let endpoint = Endpoint::new(options(&url));
    assert_eq!(endpoint.ask(&question("a"), GO_ON).unwrap().text, "as you like");
    endpoint.ask(&question("b"), GO_ON).unwrap();
    let requests = requests.lock().unwrap();
    assert_eq!(requests.len(), 4);
    assert_eq!(requests[3].1["max_completion_tokens"], 50);
    assert_eq!(requests[3].1["response_format"]["type"], "json_schema");
    // Where it has moved is told, and the question is not sent there.
    let (url, requests) =
        server(|_, _| (307, "location: http://127.0.0.1:1/v2\r\n", String::new()));
    let error = Endpoint::new(options(&url)).ask(&question("a"), GO_ON).unwrap_err();
    assert!(error.to_string().contains("it points to http://127.0.0.1:1/v2"), "{error}");
    assert_eq!(requests.lock().unwrap().len(), 1);
}

#[test]
fn a_model_that_reasons_gets_more_tokens() {
    let (url, requests) = server(|_, asked| {
        if asked["max_tokens"].as_u64() > Some(100) {
            return said("thought");
        }
        let message = json!({ "content": "", "reasoning_content": "Let me think" });
        let choice = json!({ "message": message, "finish_reason": "length" });
        (200, "", json!({ "choices": [choice] }).to_string())
    });
    assert_eq!(Endpoint::new(options(&url)).ask(&question("a"), GO_ON).unwrap().text, "thought");
    assert_eq!(requests.lock().unwrap().len(), 2);
}

#[test]
fn the_key_is_sent_and_never_shown() {
    let (url, requests) = server(|_, _| (401, "", "bad key sk-secret".to_owned()));
    let endpoint =
        Endpoint::new(EndpointOptions { key: Some("sk-secret".to_owned()), ..options(&url) });
    let error = endpoint.ask(&question("a"), GO_ON).unwrap_err();
    assert!(requests.lock().unwrap()[0].0.contains("authorization: bearer sk-secret"));
    assert_eq!(requests.lock().unwrap().len(), 1, "a wrong key is not tried again");
    let shown = format!("{error} {error:?} {endpoint:?}");
    assert!(!shown.contains("sk-secret") && shown.contains("bad key (key)"), "{shown}");
}

#[test]
fn answers_are_kept() {
    let place = TempDir::new().unwrap();
    let (url, requests) = server(|_, _| said("once"));
    let kept = |url: &str, seed| {
        Endpoint::new(EndpointOptions {
            cache: Some(place.path().join("answers")),
            key: Some("sk-secret".to_owned()),
            seed,
            ..options(url)
        })
    };
    let first = kept(&url, 0);
    assert!(!first.knows(&question("a")));
    let answer = first.ask(&question("a"), GO_ON).unwrap();
    let again = kept(&url, 0);
    assert!(again.knows(&question("a")));
    assert_eq!(again.ask(&question("a"), GO_ON).unwrap(), answer);
    assert_eq!(again.usage().prompt_tokens, 0);
    assert_eq!(requests.lock().unwrap().len(), 1);
    // Another seed, another question.
    kept(&url, 1).ask(&question("a"), GO_ON).unwrap();
    again.ask(&question("b"), GO_ON).unwrap();
    assert_eq!(requests.lock().unwrap().len(), 3);
    for file in std::fs::read_dir(place.path().join("answers")).unwrap() {
        let path = file.unwrap().path();
        assert!(!std::fs::read_to_string(&path).unwrap().contains("sk-secret"));
        // A damaged answer is asked for again.
        std::fs::write(path, "{").unwrap();
    }
    assert_eq!(again.ask(&question("a"), GO_ON).unwrap().text, "once");
    assert_eq!(requests.lock().unwrap().len(), 4);
}

#[test]
fn several_are_asked_at_a_time_and_answered_in_order() {
    let (url, requests) = server(|_, asked| {
        let text = asked["messages"][1]["content"].as_str().unwrap().to_owned();
        std::thread::sleep(Duration::from_millis(if text == "0" { 200 } else { 20 }));
        if text == "3" {
            let message = json!({ "content": null, "refusal": "no" });
            return (200, "", json!({ "choices": [{ "message": message }] }).to_string());
        }
        said(&text)
    });
    let questions: Vec<Question> = (0..8).map(|n| question(&n.to_string())).collect();
    let mut told = Vec::new();
    let endpoint = Endpoint::new(options(&url));
    let found = ask_all(&endpoint, &questions, 4, GO_ON, &mut |done| told.push(done)).unwrap();
    assert_eq!(told, (1..=8).collect::<Vec<_>>());
    for (n, answer) in found.iter().enumerate() {
        match (n, answer) {
            (3, Err(error)) => assert_eq!(*error, AskError::Refused("no".to_owned())),
            (n, answer) => assert_eq!(answer.as_ref().unwrap().text, n.to_string()),
        }
    }
    assert_eq!(endpoint.usage().completion_tokens, 7 * 3);
    // Where nobody answers, the rest is not asked.
    let asked = requests.lock().unwrap().len();
    let once = ClientOptions { retries: 0, ..ClientOptions::default() };
    let at = EndpointOptions { requests: once, ..options("http://127.0.0.1:1/v1") };
    let nowhere = Endpoint::new(at);
    let error = ask_all(&nowhere, &questions, 2, GO_ON, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("cannot reach http://127.0.0.1:1/v1"), "{error}");
    let stopped = ask_all(&endpoint, &questions, 2, &|| true, &mut |_| {}).unwrap_err();
    assert_eq!(stopped, AskError::Interrupted);
    assert_eq!(requests.lock().unwrap().len(), asked);
}

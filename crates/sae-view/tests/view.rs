//! `sae view` as those meet it who ask: a browser at a desk and on a phone, light and dark, by mouse and by keyboard; pages of others;
//! tokens that are markup. Needs Chromium on the PATH.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

#[path = "../../sae-analysis/tests/report/browser.rs"]
mod browser;
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use browser::{Page, Window};
use sae_view::{Library, PromptThread, Server, ViewError, serve};
use serde_json::{Value, json};
use support::{SITE, run, vocabulary};
use tch::Device;
use tempfile::TempDir;

/// A server of two runs with a model, and the folder that it is of.
fn server() -> (Server, TempDir) {
    let place = TempDir::new().unwrap();
    let runs = [run(place.path(), "first", "second", 64), run(place.path(), "second", "first", 64)];
    let runs = runs.into_iter().map(|run| (run, "e2e".to_owned())).collect();
    let library = Library::open(place.path(), runs).unwrap();
    (serve(library, Some(PromptThread::start(Device::Cpu)), 0).unwrap(), place)
}

/// Sends a request as it is written; the status, and the body.
fn send(address: &str, head: &str, body: &str) -> (u16, String) {
    let host = address.strip_prefix("http://").unwrap().split('/').next().unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    let head = head.replace("HOST", host);
    let length = body.len();
    write!(stream, "{head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn path(server: &Server) -> String {
    let (_, rest) = server.address.split_once("http://").unwrap();
    rest[rest.find('/').unwrap()..].to_owned()
}

#[test]
fn nobody_else_is_answered() {
    let (server, place) = server();
    let (address, own) = (&server.address, path(&server));
    let get = |target: &str, more: &str| {
        send(address, &format!("GET {target} HTTP/1.1\r\nHost: HOST{more}"), "").0
    };
    assert_eq!(get(&own, ""), 200);
    assert_eq!(get(&own, "\r\nSec-Fetch-Site: same-origin"), 200);
    for (target, more) in [
        ("/", ""),
        ("/0123456789abcdef0123456789abcdef/", ""),
        (own.trim_end_matches('/'), ""),
        (&own, "\r\nOrigin: http://evil.example"),
        (&own, "\r\nOrigin: null"),
        (&own, "\r\nSec-Fetch-Site: cross-site"),
    ] {
        assert_eq!(get(target, more), 403, "{target} {more}");
    }
    // A name of somebody else's that leads to this machine.
    let other = send(address, &format!("GET {own} HTTP/1.1\r\nHost: evil.example:80"), "");
    assert_eq!(other.0, 403);
    assert_eq!(send(address, &format!("DELETE {own} HTTP/1.1\r\nHost: HOST"), "").0, 405);
    assert_eq!(get(&format!("{own}../secret"), ""), 404);
    assert_eq!(get(&format!("{own}card?dictionary=7&feature=0"), ""), 400);
    assert_eq!(get(&format!("{own}card?dictionary=0"), ""), 400);
    let post = |target: &str, body: &str| {
        send(address, &format!("POST {own}{target} HTTP/1.1\r\nHost: HOST"), body)
    };
    assert_eq!(post("prompt", "{").0, 400);
    assert_eq!(post("prompt", &" ".repeat(1 << 21)).0, 400);
    let none = json!({ "run": "third", "text": "", "bos": false, "edits": [] });
    assert_eq!(post("prompt", &none.to_string()), (400, "there is no run third".to_owned()));
    // Edits that make nothing but NaN, or that are no numbers, are told; the model goes on with the next.
    let edited = |edit: Value| {
        let edits = json!([{ "site": SITE, "feature": 3 }]);
        let mut question = json!({ "run": "first", "text": "a", "bos": false, "edits": edits });
        let own = question["edits"][0].as_object_mut().unwrap();
        own.extend(edit.as_object().unwrap().clone());
        post("prompt", &question.to_string())
    };
    let (status, said) = edited(json!({ "set": 1e38 }));
    assert!(status == 500 && said.contains("not finite"), "{status} {said}");
    assert_eq!(edited(json!({ "set": null })).0, 400);
    let (status, said) = edited(json!({ "scale": 0.0, "feature": 4000 }));
    assert!(status == 500 && said.contains("there is no feature 4000"), "{said}");
    assert_eq!(edited(json!({ "scale": 0.0 })).0, 200);
    // The report may run its own scripts, and talk to nobody.
    std::fs::write(place.path().join("report.html"), "<p>report</p>").unwrap();
    let host = address.strip_prefix("http://").unwrap().split('/').next().unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    write!(stream, "GET {own}report.html HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.contains("sandbox allow-scripts") && answer.contains("<p>report</p>"),
        "{answer}"
    );
}

#[test]
fn features_are_found_by_number_token_and_text() {
    let (server, _place) = server();
    let own = path(&server);
    let get = |target: &str| -> Value {
        let head = format!("GET {own}{target} HTTP/1.1\r\nHost: HOST");
        let (status, body) = send(&server.address, &head, "");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    };
    let about = get("about");
    assert_eq!(about["dictionaries"][1]["run"], "second");
    assert_eq!(get("rows?dictionary=0").as_array().unwrap().len(), 64);
    let card = get("card?dictionary=0&feature=3");
    assert_eq!(card["examples"].as_array().unwrap().len(), 3);
    assert_eq!(card["highest"][0][0], vocabulary()[3]);
    let source = card["examples"][0]["source"].as_str().unwrap();
    assert_eq!(source, "token 5 of its window; row 3 of shard-00000.parquet, bytes 3 to 9");
    // A text of two tokens, whatever its case; where examples hold it.
    let head = format!("POST {own}search?dictionary=0 HTTP/1.1\r\nHost: HOST");
    let (_, found) = send(&server.address, &head, "\"WORD0 word1\"");
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    let features: Vec<u32> = (0..8).chain(61..64).collect();
    assert_eq!(found, json!({ "features": features, "up_to": null }));
    // Nothing at all to show is an error that says what to do.
    let empty = TempDir::new().unwrap();
    let error = Library::open(empty.path(), Vec::new()).unwrap_err();
    assert!(matches!(error, ViewError::NoDashboards { .. }));
    assert!(error.to_string().contains("`sae features "), "{error}");
}

fn visit(server: &Server, window: Window) -> Page {
    let mut page = Page::visit(&server.address, window, TempDir::new().unwrap());
    wait(&mut page, "document.querySelector('.card h3') !== null");
    page
}

/// The first feature in the order of their numbers, whatever its density.
fn by_number(page: &mut Page) {
    for (label, value) in [("Density", "1"), ("Order", "feature")] {
        page.eval(&format!(
            "(() => {{ const x = document.querySelector('select[aria-label={label}]'); x.value = '{value}';
              x.dispatchEvent(new Event('change')); }})()"
        ));
    }
    wait(page, &format!("{CARD} === 'Feature 0'"));
}

fn search(page: &mut Page, text: &str) {
    let text = json!(text);
    page.eval(&format!(
        "(() => {{ const x = document.querySelector('input[type=search]'); x.value = {text};
          x.dispatchEvent(new Event('input')); }})()"
    ));
}

fn wait(page: &mut Page, condition: &str) {
    let began = Instant::now();
    while page.eval(condition) != json!(true) {
        assert!(began.elapsed() < Duration::from_mins(1), "never: {condition}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn assert_quiet(page: &mut Page) {
    let complaints = page.complaints();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert_eq!(page.text("typeof window.hacked"), "undefined");
    assert_eq!(page.eval("document.images.length"), 0);
}

const CARD: &str = "document.querySelector('.card h3')?.textContent";

#[test]
fn features_are_looked_at_by_mouse_and_keyboard() {
    let (server, _place) = server();
    for (window, scheme) in
        [(Window::default(), "light"), (Window { width: 390, height: 800, scripts: true }, "dark")]
    {
        let mut page = visit(&server, window);
        page.emulate("screen", scheme);
        // The most active is the first.
        assert_eq!(page.text(CARD), "Feature 63");
        by_number(&mut page);
        page.eval("document.querySelector('.list').focus()");
        page.press("ArrowDown");
        wait(&mut page, &format!("{CARD} === 'Feature 1'"));
        page.press("End");
        wait(&mut page, &format!("{CARD} === 'Feature 63'"));
        assert_eq!(
            page.text("document.querySelector('[aria-selected=true] .n').textContent"),
            "63"
        );
        // By token; then by text that only examples hold.
        search(&mut page, "word20");
        wait(&mut page, "document.querySelector('.count').textContent.startsWith('12 of')");
        search(&mut page, "<SCRIPT>");
        wait(&mut page, "document.querySelector('.count').textContent.startsWith('12 of')");
        page.click(".row");
        // What is found first is shown, the feature of a number before those with such a text; and nothing where nothing is.
        search(&mut page, "20");
        wait(&mut page, &format!("{CARD} === 'Feature 20'"));
        assert_eq!(page.text("document.querySelector('.row .n').textContent"), "20");
        search(&mut page, "no such text");
        wait(
            &mut page,
            "document.querySelector('.card').textContent.startsWith('No feature here')",
        );
        search(&mut page, "");
        by_number(&mut page);
        // From a neighbour in the other run's dictionary, and back.
        page.eval("[...document.querySelectorAll('.links button')].find(x => x.textContent.includes('of second')).click()");
        wait(
            &mut page,
            "document.querySelector('.picks select').selectedOptions[0].textContent.startsWith('second')",
        );
        wait(&mut page, "document.querySelector('.card h3') !== null");
        // Nothing is wider than the window, whatever its tokens are.
        search(&mut page, "");
        for feature in [0, 2, 4, 60] {
            search(&mut page, &feature.to_string());
            page.eval("document.querySelector('.row').click()");
            wait(&mut page, &format!("{CARD} === 'Feature {feature}'"));
            let wide =
                "document.documentElement.scrollWidth - document.documentElement.clientWidth";
            assert!(page.number(wide) <= 0.0, "{feature}: {}", page.number(wide));
            let long = "Math.max(...[...document.querySelectorAll('.token')].map(x => x.textContent.length))";
            assert!(page.number(long) <= 81.0);
        }
        assert_quiet(&mut page);
    }
}

#[test]
fn a_prompt_shows_what_an_edit_changes() {
    let (server, _place) = server();
    for window in [Window::default(), Window { width: 390, height: 800, scripts: true }] {
        let mut page = visit(&server, window);
        page.eval("document.querySelector('#text').value = 'The quick <b>fox</b>'");
        page.eval("document.querySelector('#text').focus()");
        page.eval("document.querySelector('#ask').requestSubmit()");
        wait(&mut page, "document.querySelectorAll('.prompt-tokens button').length > 0");
        assert_eq!(page.count(".found > div"), 3);
        let kl = page.text("document.querySelectorAll('.found h3')[1].textContent");
        assert!(kl.contains("KL") && kl.contains("nats"), "{kl}");
        // The strongest feature is left out.
        page.eval("document.querySelector('.found [aria-label^=\"Edit feature\"]').click()");
        assert_eq!(page.count(".edit"), 1);
        page.eval("document.querySelector('#ask').requestSubmit()");
        wait(&mut page, "document.querySelectorAll('.found h3').length === 5");
        let changes = page.text("document.querySelectorAll('.found > div')[3].textContent");
        assert!(
            changes.contains("What the edits change most") && changes.contains('→'),
            "{changes}"
        );
        // Another token, and a feature of it.
        page.eval("document.querySelector('.prompt-tokens button').click()");
        page.eval("document.querySelector('.found > div:last-child .likely button').click()");
        wait(&mut page, "document.querySelector('.card h3, .card p') !== null");
        page.eval("[...document.querySelectorAll('.edit button')].at(-1).click()");
        assert_eq!(page.count(".edit"), 0);
        // The prompt goes with the dictionary that is looked at, and what was found with another run does not stay.
        page.eval(
            "(() => { const x = document.querySelector('.picks select'); x.value = '1'; x.dispatchEvent(new Event('change')); })()",
        );
        wait(&mut page, "document.querySelector('#run').value === 'second'");
        assert_eq!(page.count(".found"), 0);
        page.eval("document.querySelector('#text').value = ''");
        page.eval("document.querySelector('#ask').requestSubmit()");
        wait(&mut page, "document.querySelector('#said').textContent === 'Write a text first.'");
        let wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert!(page.number(wide) <= 0.0);
        assert_quiet(&mut page);
    }
}

#[test]
fn a_large_dictionary_opens_at_once() {
    let place = TempDir::new().unwrap();
    let run = run(place.path(), "large", "other", 46_080);
    let library = Library::open(place.path(), vec![(run, "e2e".to_owned())]).unwrap();
    let server = serve(library, None, 0).unwrap();
    let began = Instant::now();
    let own = path(&server);
    let head = format!("GET {own}rows?dictionary=0 HTTP/1.1\r\nHost: HOST");
    let rows = send(&server.address, &head, "").1;
    let head = format!("GET {own}card?dictionary=0&feature=46000 HTTP/1.1\r\nHost: HOST");
    let card = send(&server.address, &head, "").1;
    let took = began.elapsed();
    eprintln!("{took:?}: the rows and the first card of 46 080 features");
    assert!(rows.contains("46079") && card.contains("\"feature\":46000"), "{SITE}");
    // Under 300 ms on a quiet machine, optimised.
    assert!(took < Duration::from_secs(5), "{took:?}");
    // What every feature has is looked for until enough are found, and the page says how far.
    let head = format!("POST {own}search?dictionary=0 HTTP/1.1\r\nHost: HOST");
    let found = send(&server.address, &head, "\"word\"").1;
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    let (n_found, up_to) = (found["features"].as_array().unwrap().len(), &found["up_to"]);
    assert!(n_found >= 2_000 && n_found as u64 - 1 <= up_to.as_u64().unwrap(), "{found}");
    let mut page = visit(&server, Window::default());
    search(&mut page, "word1 word");
    wait(&mut page, "document.querySelector('.count').textContent.includes('up to feature')");
    search(&mut page, "");
    assert!(page.count(".row") < 100);
    by_number(&mut page);
    page.eval("document.querySelector('.list').focus()");
    page.press("End");
    wait(&mut page, &format!("{CARD} === 'Feature 46079'"));
    assert_eq!(page.count("#prompt"), 0);
    assert_quiet(&mut page);
}

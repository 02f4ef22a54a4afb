//! A server that stands for a service, and does with each request what it is told; and what a language model behind an OpenAI-compatible
//! endpoint answers.

#![allow(dead_code)] // Each test needs a part of it.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// What the server answers to a request: status, headers, body; with the status 0 it closes the connection without a word.
pub type Reply = (u16, &'static str, String);

/// What was asked: heads, in lower case, and bodies.
pub type Requests = Arc<Mutex<Vec<(String, Value)>>>;

/// A request as it came.
pub struct Raw {
    /// Its head, in lower case, of which the first line is as `post /v1/chat/completions http/1.1`.
    pub head: String,
    pub body: Vec<u8>,
}

/// A server that answers the `n`th request as it is told, and what it is asked.
pub fn server(
    reply: impl Fn(usize, &Value) -> Reply + Send + Sync + 'static,
) -> (String, Requests) {
    let requests = Requests::default();
    let seen = Arc::clone(&requests);
    let url = raw_server(move |request| {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let n = {
            let mut seen = seen.lock().unwrap();
            seen.push((request.head.clone(), body.clone()));
            seen.len() - 1
        };
        reply(n, &body)
    });
    (format!("{url}/v1"), requests)
}

/// A server that answers requests as it is told; its address.
pub fn raw_server(reply: impl Fn(&Raw) -> Reply + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let reply = Arc::new(reply);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let reply = Arc::clone(&reply);
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                let (mut read, mut buffer) = (Vec::new(), [0; 8192]);
                let request = loop {
                    let n = stream.read(&mut buffer).unwrap();
                    read.extend_from_slice(&buffer[..n]);
                    let end = read.windows(4).position(|four| four == b"\r\n\r\n");
                    let Some(end) = end else { continue };
                    let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
                    let length = head.split("content-length: ").nth(1).unwrap();
                    let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
                    let body = &read[end + 4..];
                    if body.len() >= length {
                        break Raw { body: body.to_vec(), head };
                    }
                };
                let (status, headers, body) = reply(&request);
                if status > 0 {
                    let length = body.len();
                    let head = format!(
                        "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n"
                    );
                    let _ = write!(stream, "{head}{headers}\r\n{body}");
                }
            });
        }
    });
    url
}

/// An answer with this text.
pub fn said(text: &str) -> Reply {
    let usage = json!({ "prompt_tokens": 7, "completion_tokens": 3 });
    let choice = json!({ "message": { "content": text }, "finish_reason": "stop" });
    (200, "", json!({ "choices": [choice], "usage": usage }).to_string())
}

//! A server that stands for a language model behind an OpenAI-compatible endpoint, and does with each request what it is told.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// What the server answers to a request: status, headers, body; with the status 0 it closes the connection without a word.
pub type Reply = (u16, &'static str, String);

/// What was asked: heads, in lower case, and bodies.
pub type Requests = Arc<Mutex<Vec<(String, Value)>>>;

/// A server that answers the `n`th request as it is told, and what it is asked.
pub fn server(
    reply: impl Fn(usize, &Value) -> Reply + Send + Sync + 'static,
) -> (String, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let requests = Requests::default();
    let (seen, reply) = (Arc::clone(&requests), Arc::new(reply));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (seen, reply) = (Arc::clone(&seen), Arc::clone(&reply));
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
                let (head, body) = loop {
                    let n = stream.read(&mut buffer).unwrap();
                    read.extend_from_slice(&buffer[..n]);
                    let text = String::from_utf8_lossy(&read).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let head = head.to_lowercase();
                    let length = head.split("content-length: ").nth(1).unwrap();
                    let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
                    if body.len() >= length {
                        break (head.clone(), serde_json::from_str(body).unwrap());
                    }
                };
                let n = {
                    let mut seen = seen.lock().unwrap();
                    seen.push((head, body));
                    seen.len() - 1
                };
                let asked = seen.lock().unwrap()[n].1.clone();
                let (status, headers, body) = reply(n, &asked);
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
    (url, requests)
}

/// An answer with this text.
pub fn said(text: &str) -> Reply {
    let usage = json!({ "prompt_tokens": 7, "completion_tokens": 3 });
    let choice = json!({ "message": { "content": text }, "finish_reason": "stop" });
    (200, "", json!({ "choices": [choice], "usage": usage }).to_string())
}

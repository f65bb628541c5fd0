//! A language model of few words: an OpenAI-compatible endpoint on the loopback that gives the same answer to
//! everything and remembers what it was asked.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};

/// What the model answers.
pub(crate) const REPLY: &str = "the-answer-that-the-model-gives";

pub(super) struct Model {
    address: SocketAddr,
    asked: Arc<Mutex<String>>,
    closing: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl Model {
    pub(super) fn listen() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port on the loopback");
        let address = listener.local_addr().expect("its address");
        let asked = Arc::new(Mutex::new(String::new()));
        let closing = Arc::new(AtomicBool::new(false));
        let (questions, closed) = (Arc::clone(&asked), Arc::clone(&closing));
        let listener = thread::spawn(move || {
            for stream in listener.incoming() {
                if closed.load(Ordering::SeqCst) {
                    return;
                }
                let questions = Arc::clone(&questions);
                // A client that hangs up early is its own affair: the test looks at what it asked.
                thread::spawn(move || stream.and_then(|stream| converse(&stream, &questions)).ok());
            }
        });
        Self { address, asked, closing, listener: Some(listener) }
    }

    pub(super) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Everything it was asked since it last forgot.
    pub(super) fn asked(&self) -> String {
        lock(&self.asked).clone()
    }

    pub(super) fn forget(&self) {
        lock(&self.asked).clear();
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        // One more visitor, so that the listener looks up from waiting.
        drop(TcpStream::connect(self.address));
        if let Some(listener) = self.listener.take() {
            listener.join().expect("the listener's end");
        }
    }
}

fn lock(asked: &Mutex<String>) -> MutexGuard<'_, String> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One request, one response: the connection is closed after it.
fn converse(stream: &TcpStream, asked: &Mutex<String>) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let question = read_body(&mut BufReader::new(stream))?;
    lock(asked).push_str(&question);
    let streamed = serde_json::from_str::<Value>(&question).is_ok_and(|question| question["stream"] == true);
    let (kind, answer) = match (question.is_empty(), streamed) {
        (true, _) => ("application/json", json!({ "object": "list", "data": [{ "id": "model" }] }).to_string()),
        (false, true) => ("text/event-stream", events()),
        (false, false) => ("application/json", completion("chat.completion", "message", "stop").to_string()),
    };
    let length = answer.len();
    let mut out = stream;
    write!(
        out,
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{answer}"
    )
}

fn read_body(request: &mut impl BufRead) -> io::Result<String> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        request.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    request.read_exact(&mut body)?;
    String::from_utf8(body).map_err(io::Error::other)
}

/// The answer as a stream of events: the words, then how they ended, then the mark that ends the stream.
fn events() -> String {
    let words = completion("chat.completion.chunk", "delta", "");
    let mut end = completion("chat.completion.chunk", "delta", "stop");
    end["choices"][0]["delta"] = json!({});
    format!("data: {words}\n\ndata: {end}\n\ndata: [DONE]\n\n")
}

fn completion(object: &str, part: &str, finish: &str) -> Value {
    let finish = if finish.is_empty() { Value::Null } else { finish.into() };
    json!({
        "id": "answer",
        "object": object,
        "created": 1,
        "model": "model",
        "choices": [{
            "index": 0,
            part: { "role": "assistant", "content": REPLY },
            "finish_reason": finish,
        }],
        "usage": { "prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2 },
    })
}

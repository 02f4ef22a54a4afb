//! A language model behind an OpenAI-compatible endpoint, `chat/completions`: questions with temperature 0, answers in JSON.
//!
//! What endpoints differ in is found out: answers by a JSON schema where the endpoint takes one, as any JSON object where it does
//! not, in free text where it knows neither. What passes (408, 409, 425, 429, 5xx, a broken connection) is tried again, later and later, or
//! when `Retry-After` says. Answers are kept on disk by a hash of what was asked, so that an interrupted run costs nothing twice.

mod cache;
mod reply;

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use self::cache::Cache;
pub use self::reply::{Answer, AnswerToken, TopToken, Usage, object_in};

/// A language model, and how it is reached.
#[derive(Clone)]
pub struct EndpointOptions {
    /// The address before `/chat/completions`, as `http://127.0.0.1:8000/v1`.
    pub base_url: String,
    /// The model's name there.
    pub model: String,
    /// The key, which no message or file names.
    pub key: Option<String>,
    /// The seed that is asked for.
    pub seed: u64,
    /// Where answers are kept; none: nowhere.
    pub cache: Option<PathBuf>,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Attempts after the first.
    pub retries: u32,
    /// The pause before the second attempt; each later one is twice as long, up to a minute.
    pub first_pause: Duration,
}

impl EndpointOptions {
    /// A model at an address, without key or cache.
    pub fn new(base_url: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            base_url: base_url.into(),
            model: model.into(),
            key: None,
            seed: 0,
            cache: None,
            timeout: Duration::from_mins(5),
            retries: 6,
            first_pause: Duration::from_secs(1),
        }
    }
}

/// A question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Question {
    /// What the model is, and how it is to answer.
    pub system: String,
    /// What is asked.
    pub text: String,
    /// The JSON schema of an answer.
    pub schema: Value,
    /// Tokens of an answer, at most.
    pub max_tokens: u32,
    /// Tokens whose probabilities come with each of the answer's; 0 for none.
    pub top_logprobs: u32,
}

/// A question that has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Nothing could be sent or nothing came.
    #[error("cannot reach {url} ({attempts} attempts): {message}")]
    Unreachable {
        /// The address.
        url: String,
        /// How often it was tried.
        attempts: u32,
        /// What happened last.
        message: String,
    },
    /// The endpoint refuses the request.
    #[error("{url} answers {status} ({attempts} attempts): {message}")]
    Status {
        /// The address.
        url: String,
        /// The status.
        status: u16,
        /// How often it was tried.
        attempts: u32,
        /// The beginning of what it said.
        message: String,
    },
    /// The answer is not what the protocol has.
    #[error("{url} gives no chat completion: {message}")]
    Protocol {
        /// The address.
        url: String,
        /// What is wrong with it.
        message: String,
    },
    /// The model refuses to answer.
    #[error("the model refuses: {0}")]
    Refused(String),
    /// The answer is empty, or cut off.
    #[error("the answer is empty or cut off (finish_reason {finish}){}", if *has_reasoned {
        ": its tokens went into reasoning; give more with --max-tokens"
    } else {
        ""
    })]
    Empty {
        /// Why it ended.
        finish: String,
        /// Whether there was reasoning.
        has_reasoned: bool,
    },
    /// The answer is not of the form that was asked for.
    #[error("the answer has not the form that was asked for: {0}")]
    Form(String),
    /// A kept answer cannot be written.
    #[error("cannot keep an answer in {path}: {message}", path = path.display())]
    Cache {
        /// The file.
        path: PathBuf,
        /// What the system said.
        message: String,
    },
    /// A signal asked for the end.
    #[error("interrupted; answers up to there are kept: the same command goes on from them")]
    Interrupted,
}

impl AskError {
    /// Whether other questions will fare no better: the endpoint, not the question, is what is wrong.
    pub fn is_of_endpoint(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Protocol { .. }
            | Self::Cache { .. }
            | Self::Interrupted => true,
            Self::Status { status, .. } => matches!(status, 401..=404 | 408 | 429 | 500..),
            Self::Refused(_) | Self::Empty { .. } | Self::Form(_) => false,
        }
    }
}

/// How an answer's form is asked for; what an endpoint does not take, it does not take the next time either.
const FORMS: [Form; 3] = [Form::Schema, Form::Object, Form::Free];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Schema,
    Object,
    Free,
}

/// A language model that answers.
pub struct Endpoint {
    options: EndpointOptions,
    url: String,
    agent: ureq::Agent,
    cache: Option<Cache>,
    /// The place in [`FORMS`] of what is known to be taken.
    form: AtomicUsize,
    dialect: Dialect,
    usage: Mutex<Usage>,
}

impl std::fmt::Debug for Endpoint {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("url", &self.url).finish_non_exhaustive()
    }
}

/// What an endpoint has said that it wants otherwise, as those of models that reason.
#[derive(Default)]
struct Dialect {
    /// `max_completion_tokens`, not `max_tokens`.
    completion_tokens: AtomicBool,
    /// No temperature but its own.
    own_temperature: AtomicBool,
}

impl Dialect {
    /// Learns from what an endpoint says of a request; whether there was something new.
    fn learn(&self, said: &str) -> bool {
        let learn =
            |flag: &AtomicBool, word| said.contains(word) && !flag.swap(true, Ordering::SeqCst);
        learn(&self.completion_tokens, "max_completion_tokens")
            || learn(&self.own_temperature, "temperature")
    }
}

/// What became of an attempt.
enum Attempt {
    Answered(Value),
    /// It may be answered later, at this time from now where that is known.
    Passing(AskError, Option<Duration>),
    /// The endpoint has said what it wants otherwise.
    Otherwise,
    /// The form is not taken.
    Form(AskError),
    Failed(AskError),
}

impl Endpoint {
    /// Reached when it is first asked.
    pub fn new(options: EndpointOptions) -> Self {
        let url = format!("{}/chat/completions", options.base_url.trim_end_matches('/'));
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // A question that is sent on would lose its text or its key.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(options.timeout));
        let cache = options.cache.clone().map(Cache::new);
        let agent = config.build().into();
        let (form, dialect) = (AtomicUsize::new(0), Dialect::default());
        Self { options, url, agent, cache, form, dialect, usage: Mutex::default() }
    }

    /// The model's name.
    pub fn model(&self) -> &str {
        &self.options.model
    }

    /// Tokens of all answers that were not kept from before.
    pub fn usage(&self) -> Usage {
        self.usage.lock().map_or_else(|broken| *broken.into_inner(), |usage| *usage)
    }

    /// Whether the answer is kept from before.
    pub fn knows(&self, question: &Question) -> bool {
        self.cache.as_ref().is_some_and(|cache| cache.read(&self.key_of(question)).is_some())
    }

    /// The answer to a question. `is_interrupted` is asked before every attempt and while it is waited for the next.
    pub fn ask(
        &self,
        question: &Question,
        is_interrupted: &(dyn Fn() -> bool + Sync),
    ) -> Result<Answer, AskError> {
        let key = self.key_of(question);
        if let Some(kept) = self.cache.as_ref().and_then(|cache| cache.read(&key)) {
            return Ok(kept);
        }
        let mut question = question.clone();
        let mut answer = self.answer(&question, is_interrupted);
        // A model that reasons has used up what was meant for the answer.
        if let Err(AskError::Empty { finish, .. }) = &answer
            && finish == "length"
        {
            question.max_tokens = question.max_tokens.saturating_mul(8);
            answer = self.answer(&question, is_interrupted);
        }
        let answer = answer?;
        if let Some(cache) = &self.cache {
            cache.write(&key, &answer)?;
        }
        Ok(answer)
    }

    fn key_of(&self, question: &Question) -> String {
        // However long an answer may be, a whole one is the same.
        let question = Question { max_tokens: 0, ..question.clone() };
        let asked = json!([self.url, self.options.model, self.options.seed, question]);
        sae_config::fingerprint::Fingerprint::new().text(&asked).finish()
    }

    fn answer(
        &self,
        question: &Question,
        is_interrupted: &(dyn Fn() -> bool + Sync),
    ) -> Result<Answer, AskError> {
        let mut form = self.form.load(Ordering::SeqCst);
        let mut attempts = 0;
        loop {
            if is_interrupted() {
                return Err(AskError::Interrupted);
            }
            attempts += 1;
            match self.attempt(question, FORMS[form], attempts) {
                Attempt::Answered(value) => {
                    self.form.fetch_max(form, Ordering::SeqCst);
                    let answer = reply::answer(&value, &self.url)?;
                    if let Ok(mut usage) = self.usage.lock() {
                        *usage += answer.usage;
                    }
                    return Ok(answer);
                }
                Attempt::Otherwise => attempts -= 1,
                Attempt::Form(_) if form + 1 < FORMS.len() => form += 1,
                Attempt::Passing(error, wait) => {
                    if attempts > self.options.retries {
                        return Err(error);
                    }
                    let doubled = self.options.first_pause * 2_u32.pow(attempts.min(10) - 1);
                    pause(wait.unwrap_or(doubled).min(LONGEST_PAUSE), is_interrupted)?;
                }
                Attempt::Form(error) | Attempt::Failed(error) => return Err(error),
            }
        }
    }

    fn attempt(&self, question: &Question, form: Form, attempts: u32) -> Attempt {
        let unreachable = |message: String| AskError::Unreachable {
            url: self.url.clone(),
            attempts,
            message: self.without_key(&message),
        };
        let mut request = self.agent.post(&self.url).header("content-type", "application/json");
        if let Some(key) = &self.options.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let body = self.body(question, form).to_string();
        let mut response = match request.send(body.as_bytes()) {
            Ok(response) => response,
            // What is wrong with the address is wrong the next time, too.
            Err(
                error @ (ureq::Error::BadUri(_)
                | ureq::Error::Http(_)
                | ureq::Error::InvalidProxyUrl),
            ) => return Attempt::Failed(unreachable(error.to_string())),
            Err(error) => return Attempt::Passing(unreachable(error.to_string()), None),
        };
        let status = response.status().as_u16();
        let wait = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let wait = wait.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        let text = response.body_mut().with_config().limit(LONGEST_ANSWER).read_to_string();
        let text = match text {
            Ok(text) => text,
            Err(error) => return Attempt::Passing(unreachable(error.to_string()), None),
        };
        if (200..300).contains(&status) {
            return match serde_json::from_str(&text) {
                Ok(value) => Attempt::Answered(value),
                Err(error) => Attempt::Failed(AskError::Protocol {
                    url: self.url.clone(),
                    message: format!("{error} in {}", self.beginning(&text)),
                }),
            };
        }
        let mut message = self.beginning(&text);
        if let Some(place) = response.headers().get("location").and_then(|own| own.to_str().ok()) {
            message = self.without_key(&format!("it points to {place}: give that as the base URL"));
        }
        let error = AskError::Status { url: self.url.clone(), status, attempts, message };
        match status {
            408 | 409 | 425 | 429 | 500..=599 => Attempt::Passing(error, wait),
            400 if self.dialect.learn(&text) => Attempt::Otherwise,
            // Endpoints say in many words, or in none, that they know no such format.
            400 | 415 | 422 => Attempt::Form(error),
            _ => Attempt::Failed(error),
        }
    }

    fn body(&self, question: &Question, form: Form) -> Value {
        let mut body = json!({
            "model": self.options.model,
            "messages": [
                { "role": "system", "content": question.system },
                { "role": "user", "content": question.text },
            ],
            "seed": self.options.seed,
        });
        let knows = |flag: &AtomicBool| flag.load(Ordering::SeqCst);
        if !knows(&self.dialect.own_temperature) {
            body["temperature"] = json!(0);
        }
        let completion = knows(&self.dialect.completion_tokens);
        let tokens = if completion { "max_completion_tokens" } else { "max_tokens" };
        body[tokens] = json!(question.max_tokens);
        match form {
            Form::Schema => {
                let schema = json!({ "name": "answer", "strict": true, "schema": question.schema });
                body["response_format"] = json!({ "type": "json_schema", "json_schema": schema });
            }
            Form::Object => body["response_format"] = json!({ "type": "json_object" }),
            Form::Free => {}
        }
        // The last form asks for nothing that an endpoint may not have.
        if question.top_logprobs > 0 && form != Form::Free {
            body["logprobs"] = json!(true);
            body["top_logprobs"] = json!(question.top_logprobs);
        }
        body
    }

    /// The beginning of what an endpoint said, in a line.
    fn beginning(&self, text: &str) -> String {
        let said: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let text = self.without_key(&said);
        match text.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }

    fn without_key(&self, text: &str) -> String {
        match &self.options.key {
            Some(key) if !key.is_empty() => text.replace(key.as_str(), "(key)"),
            _ => text.to_owned(),
        }
    }
}

/// Letters of an error that are shown.
const SHOWN: usize = 400;
/// The longest answer, in bytes.
const LONGEST_ANSWER: u64 = 16 << 20;
/// The longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

fn pause(length: Duration, is_interrupted: &(dyn Fn() -> bool + Sync)) -> Result<(), AskError> {
    let began = Instant::now();
    while began.elapsed() < length {
        if is_interrupted() {
            return Err(AskError::Interrupted);
        }
        std::thread::sleep(Duration::from_millis(100).min(length));
    }
    Ok(())
}

/// Answers to questions, in their order, so many at a time. Where the endpoint fails, not a question, the rest is not asked. `notice` is
/// told how many are answered.
pub fn ask_all(
    endpoint: &Endpoint,
    questions: &[Question],
    at_a_time: usize,
    is_interrupted: &(dyn Fn() -> bool + Sync),
    notice: &mut dyn FnMut(usize),
) -> Result<Vec<Result<Answer, AskError>>, AskError> {
    let next = AtomicUsize::new(0);
    let has_failed = AtomicBool::new(false);
    let (told, answers) = std::sync::mpsc::channel();
    let mut found: Vec<Option<Result<Answer, AskError>>> = questions.iter().map(|_| None).collect();
    std::thread::scope(|scope| {
        for _ in 0..at_a_time.clamp(1, questions.len().max(1)) {
            let told = told.clone();
            let (next, has_failed) = (&next, &has_failed);
            scope.spawn(move || {
                loop {
                    let place = next.fetch_add(1, Ordering::SeqCst);
                    let Some(question) = questions.get(place) else { return };
                    if has_failed.load(Ordering::SeqCst) {
                        return;
                    }
                    let answer = endpoint.ask(question, is_interrupted);
                    if answer.as_ref().is_err_and(AskError::is_of_endpoint) {
                        has_failed.store(true, Ordering::SeqCst);
                    }
                    if told.send((place, answer)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(told);
        for (done, (place, answer)) in answers.iter().enumerate() {
            found[place] = Some(answer);
            notice(done + 1);
        }
    });
    let mut all = Vec::with_capacity(found.len());
    for answer in found {
        match answer {
            Some(Err(error)) if error.is_of_endpoint() => return Err(error),
            Some(answer) => all.push(answer),
            None => {}
        }
    }
    if all.len() < questions.len() {
        return Err(AskError::Interrupted);
    }
    Ok(all)
}

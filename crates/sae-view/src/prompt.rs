//! Prompts: the model in a thread of its own, which answers one after another.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use sae_config::Site;
use sae_splice::{Change, FeatureEdit};
use sae_train::RunSpec;
use sae_train::playground::{Likely, NextToken, Playground, Tried};
use serde::{Deserialize, Serialize};
use tch::Device;

use crate::ViewError;

/// Tokens of each distribution that are shown.
const SHOWN: usize = 10;
/// Features of a token that are shown.
const FEATURES: usize = 30;

/// What is asked of the model.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    /// The run whose dictionaries are spliced in, at all of its sites.
    pub run: String,
    /// The prompt.
    pub text: String,
    /// Whether it begins with the beginning-of-text token.
    pub bos: bool,
    /// Edits of features.
    pub edits: Vec<Edit>,
}

/// An edit of a feature: one of the two changes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Edit {
    site: Site,
    feature: u32,
    scale: Option<f64>,
    set: Option<f64>,
}

impl Edit {
    fn to_edit(&self) -> Result<FeatureEdit, ViewError> {
        let change = match (self.scale, self.set) {
            (Some(factor), None) if factor.is_finite() => Change::Scale(factor),
            (None, Some(value)) if value.is_finite() => Change::Set(value),
            _ => {
                return Err(ViewError::Request(format!(
                    "feature {}: expected a finite number, to scale by or to set",
                    self.feature
                )));
            }
        };
        Ok(FeatureEdit { site: self.site, feature: self.feature, change })
    }
}

/// What the model answers.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    /// Whether the prompt's beginning was left out, which the context does not hold.
    was_cut: bool,
    tokens: Vec<Token>,
}

#[derive(Debug, Serialize)]
struct Token {
    text: String,
    /// Site by site.
    active: Vec<Active>,
    original: Vec<(String, f32)>,
    spliced: Vec<(String, f32)>,
    edited: Vec<(String, f32)>,
    kl_spliced: f64,
    kl_edited: Option<f64>,
    kl_of_edits: Option<f64>,
    /// Tokens with their probabilities before and after the edits.
    changes: Vec<(String, f32, f32)>,
}

#[derive(Debug, Serialize)]
struct Active {
    site: Site,
    /// How many there are in all.
    n: usize,
    /// The strongest, with their activations.
    features: Vec<(u32, f32)>,
}

type Reply = Sender<Result<Answer, ViewError>>;

/// The thread that has the model. It ends with the last handle.
#[derive(Debug, Clone)]
pub struct PromptThread {
    questions: Sender<(RunSpec, Question, Reply)>,
    /// Questions that have no answer yet.
    waiting: Arc<AtomicUsize>,
}

/// The most questions that wait for an answer.
const WAITING: usize = 4;

impl PromptThread {
    /// Starts the thread; the model is loaded by the first question.
    pub fn start(device: Device) -> Self {
        let (questions, asked) = channel();
        std::thread::spawn(move || answer_all(&asked, device));
        Self { questions, waiting: Arc::default() }
    }

    pub(crate) fn ask(&self, run: &RunSpec, question: Question) -> Result<Answer, ViewError> {
        if self.waiting.fetch_add(1, Ordering::SeqCst) >= WAITING {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            return Err(ViewError::Busy);
        }
        let answer = self.wait_for(run, question);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        answer
    }

    fn wait_for(&self, run: &RunSpec, question: Question) -> Result<Answer, ViewError> {
        let (reply, answer) = channel();
        let ended = || ViewError::Model("the model's thread has ended".to_owned());
        self.questions.send((run.clone(), question, reply)).map_err(|_| ended())?;
        answer.recv().map_err(|_| ended())?
    }
}

fn answer_all(asked: &Receiver<(RunSpec, Question, Reply)>, device: Device) {
    let mut open: Option<(Playground, Vec<String>)> = None;
    for (run, question, reply) in asked {
        // libtorch and the tokeniser may panic on what they do not expect; the next question begins anew.
        let outcome = catch_unwind(AssertUnwindSafe(|| answer(&mut open, &run, &question, device)));
        let answer = outcome.unwrap_or_else(|_| {
            open = None;
            Err(ViewError::Model("the model has failed on this prompt".to_owned()))
        });
        // A page that has been closed does not listen any more.
        let _ = reply.send(answer);
    }
}

fn answer(
    open: &mut Option<(Playground, Vec<String>)>,
    run: &RunSpec,
    question: &Question,
    device: Device,
) -> Result<Answer, ViewError> {
    let failed = |error: sae_train::TrainError| ViewError::Model(error.to_string());
    let edits: Vec<FeatureEdit> =
        question.edits.iter().map(Edit::to_edit).collect::<Result<_, _>>()?;
    let (model, texts) = if let Some(open) = open {
        open
    } else {
        let model = Playground::open(&run.config, device).map_err(failed)?;
        let texts = model.tokenizer().texts();
        open.insert((model, texts))
    };
    let tried =
        model.try_prompt(run, &question.text, question.bos, &edits, SHOWN).map_err(failed)?;
    let is_finite =
        |next: &NextToken| next.kl_spliced.is_finite() && next.kl_edited.is_none_or(f64::is_finite);
    if !tried.findings.next.iter().all(is_finite) {
        let message =
            "what the model expects is not finite any more, with these dictionaries or these edits";
        return Err(ViewError::Model(message.to_owned()));
    }
    Ok(told(tried, texts))
}

fn told(tried: Tried, texts: &[String]) -> Answer {
    let text = |id: u32| texts.get(id as usize).cloned().unwrap_or_else(|| format!("[{id}]"));
    let Tried { tokens, findings, was_cut } = tried;
    let likely = |all: &[Likely]| {
        all.iter().map(|likely| (text(likely.token), likely.probability)).collect()
    };
    let of = |(place, (id, next)): (usize, (u32, &NextToken))| Token {
        text: text(id),
        active: findings
            .sites
            .iter()
            .map(|found| Active {
                site: found.site,
                n: found.tokens[place].len(),
                features: found.tokens[place].iter().take(FEATURES).copied().collect(),
            })
            .collect(),
        original: likely(&next.original),
        spliced: likely(&next.spliced),
        edited: likely(&next.edited),
        kl_spliced: next.kl_spliced,
        kl_edited: next.kl_edited,
        kl_of_edits: next.kl_of_edits,
        changes: next
            .changes
            .iter()
            .map(|changed| (text(changed.token), changed.before, changed.after))
            .collect(),
    };
    let tokens = tokens.into_iter().zip(&findings.next).enumerate().map(of).collect();
    Answer { was_cut, tokens }
}

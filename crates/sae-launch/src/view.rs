//! The live view of a sweep: a bar for each running job and one for the whole; lines where there is no terminal.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use sae_config::message::printable;
use sae_record::{Event, Job, Manifest, Phase, progress_text};

use crate::Show;
use crate::sweep::job_name;

/// A bar for each running job and one for the whole, on a terminal; lines elsewhere.
pub(crate) struct View {
    show: Show,
    bars: Option<(MultiProgress, ProgressBar)>,
    jobs: Vec<Option<JobView>>,
}

struct JobView {
    name: String,
    pace: Pace,
    bar: Option<ProgressBar>,
    began: Instant,
    said: Instant,
}

/// What a job is at, and how fast.
struct Pace {
    /// None before its first phase.
    phase: Option<Phase>,
    total: u64,
    tokens_per_unit: u64,
    began: Instant,
    /// Units done when it began: an earlier call's.
    before: Option<u64>,
    /// What its runs have said last.
    numbers: String,
}

impl Pace {
    fn new(phase: Option<Phase>, total: u64, tokens_per_unit: u64) -> Self {
        let began = Instant::now();
        Self { phase, total, tokens_per_unit, began, before: None, numbers: String::new() }
    }

    /// The phase's name.
    fn name(&self) -> String {
        self.phase.map_or_else(|| "starting".to_owned(), |phase| phase.to_string())
    }

    /// Tokens a second and seconds left, in words.
    fn of(&mut self, done: u64) -> String {
        // Only a phase that goes on where another call stopped begins with more than one unit done.
        let before = *self.before.get_or_insert(if done > 1 { done } else { 0 });
        let here = done.saturating_sub(before);
        if here == 0 {
            return String::new();
        }
        let seconds = self.began.elapsed().as_secs_f64();
        let rate = (here * self.tokens_per_unit) as f64 / seconds / 1e3;
        let left = seconds * self.total.saturating_sub(done) as f64 / here as f64;
        let numbers =
            if self.numbers.is_empty() { String::new() } else { format!("{} · ", self.numbers) };
        format!("{numbers}{rate:.1} k tokens/s, {left:.0} s left")
    }
}

/// Writes a line to stderr, without what would steer the terminal. Where nobody can read it, that is no reason to stop.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", printable(line));
}

/// Writes an event with its job to stdout. A reader that has left is no reason to stop.
fn print(job: usize, event: &Event) {
    if let Ok(serde_json::Value::Object(mut line)) = serde_json::to_value(event) {
        line.insert("job".to_owned(), job.into());
        let _ = writeln!(std::io::stdout().lock(), "{}", serde_json::Value::Object(line));
    }
}

/// How a job ends that has failed.
pub(crate) const FAILED: &str = "FAILED";

const SAY_EVERY: Duration = Duration::from_secs(15);

impl View {
    /// A view of all jobs.
    pub(crate) fn new(manifest: &Manifest, show: Show) -> Self {
        let with_bars = match show {
            Show::Auto => std::io::stderr().is_terminal(),
            Show::Bars => true,
            Show::Lines | Show::Quiet | Show::Json => false,
        };
        let bars = with_bars.then(|| {
            let all = MultiProgress::new();
            let whole = all.add(ProgressBar::new(manifest.runs().count() as u64));
            if let Ok(style) =
                ProgressStyle::with_template("{prefix:>24} {bar:30} {pos}/{len} runs · {elapsed}")
            {
                whole.set_style(style.progress_chars("━╸ "));
            }
            whole.set_prefix(manifest.sweep.clone());
            whole.enable_steady_tick(Duration::from_millis(500));
            (all, whole)
        });
        Self { show, bars, jobs: manifest.jobs.iter().map(|_| None).collect() }
    }

    fn say(&self, line: &str) {
        match &self.bars {
            // A terminal that refuses a line is no reason to stop.
            Some((all, _)) => drop(all.println(printable(line))),
            None => tell(line),
        }
    }

    /// Says what goes well.
    fn step(&self, line: &str) {
        if self.show != Show::Quiet {
            self.say(line);
        }
    }

    /// A job was finished before.
    pub(crate) fn skip(&self, index: usize, job: &Job) {
        self.step(&format!("▸ job {index}, {}: finished before, skipped", job_name(job)));
        self.advance(job.runs.len() as u64);
    }

    /// So many runs more are finished.
    pub(crate) fn advance(&self, runs: u64) {
        if let Some((_, whole)) = &self.bars {
            whole.inc(runs);
        }
    }

    /// A job has started.
    pub(crate) fn start(&mut self, job: usize, name: &str) {
        let bar = self.bars.as_ref().map(|(all, whole)| {
            let bar = all.insert_before(whole, ProgressBar::new(0));
            if let Ok(style) =
                ProgressStyle::with_template("{prefix:>24} {bar:30} {pos}/{len} {msg}")
            {
                bar.set_style(style.progress_chars("━╸ "));
            }
            bar.set_prefix(name.to_owned());
            bar.set_message("starting");
            bar
        });
        let now = Instant::now();
        self.step(&format!("▸ job {job}, {name}: started"));
        self.jobs[job] = Some(JobView {
            name: name.to_owned(),
            pace: Pace::new(None, 0, 0),
            bar,
            began: now,
            said: now,
        });
    }

    /// A job has told where it is.
    pub(crate) fn event(&mut self, job: usize, event: &Event) {
        if self.show == Show::Json {
            print(job, event);
        }
        let is_quiet = self.show == Show::Quiet;
        let Some(view) = &mut self.jobs[job] else { return };
        match *event {
            Event::Began { phase, total, tokens_per_unit } => {
                if let Some(bar) = &view.bar {
                    bar.set_length(total);
                    bar.set_position(0);
                    bar.set_message(phase.to_string());
                }
                view.pace = Pace::new(Some(phase), total, tokens_per_unit);
            }
            Event::Advanced { done, ref runs, .. } => {
                if !runs.is_empty() {
                    view.pace.numbers = progress_text(runs);
                }
                let pace = view.pace.of(done);
                if let Some(bar) = &view.bar {
                    bar.set_position(done);
                    bar.set_message(format!("{} {pace}", view.pace.name()));
                } else if !is_quiet && view.said.elapsed() > SAY_EVERY {
                    view.said = Instant::now();
                    let (phase, total) = (view.pace.name(), view.pace.total);
                    tell(&format!("  {}: {phase} {done}/{total}, {pace}", view.name));
                }
            }
            Event::Ended => {}
        }
    }

    /// A line that a job has said: results and warnings.
    pub(crate) fn line(&self, name: &str, line: &str) {
        let line = line.trim();
        if !line.is_empty() {
            self.say(&format!("  {name}: {line}"));
        }
    }

    /// A job has ended.
    pub(crate) fn end(&mut self, job: usize, how: &str) {
        let Some(view) = self.jobs[job].take() else { return };
        if let Some(bar) = view.bar {
            bar.finish_and_clear();
        }
        let seconds = view.began.elapsed().as_secs();
        let line = format!("▸ job {job}, {}: {how} in {seconds} s", view.name);
        if how == FAILED { self.say(&line) } else { self.step(&line) }
    }

    /// All is over.
    pub(crate) fn finish(&self) {
        if let Some((_, whole)) = &self.bars {
            whole.finish_and_clear();
        }
    }
}

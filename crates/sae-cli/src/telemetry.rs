//! Logs and progress: bars on a terminal, plain lines elsewhere, JSON for a launcher; and signals.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use sae_config::signals;
use sae_record::progress_text;
use sae_train::progress::{Event, Observer, Phase};
use serde::Serialize;
use serde_json::{Value, json};
use signal_hook::consts::SIGINT;
use signal_hook::iterator::Signals;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::Global;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ProgressMode {
    /// Bars on a terminal, lines elsewhere.
    Auto,
    /// Bars.
    Bars,
    /// Log lines.
    Lines,
    /// An event a line, as JSON on stdout.
    Json,
}

/// Shows [`Event`]s, and knows whether a signal has asked for the end.
pub(crate) struct Telemetry {
    mode: ProgressMode,
    bars: MultiProgress,
    interrupted: Arc<AtomicBool>,
    /// Whether signals are ours already.
    catching: bool,
    shown: Option<Shown>,
}

/// The phase that is shown.
struct Shown {
    phase: Phase,
    total: u64,
    tokens_per_unit: u64,
    began: Instant,
    /// Units that were done before: an earlier call's, which do not count for the rate.
    before: Option<u64>,
    last_line: Instant,
    bar: Option<ProgressBar>,
}

/// Between two lines of progress where there are no bars.
const LINE_EVERY: Duration = Duration::from_secs(10);

impl Telemetry {
    pub(crate) fn start(global: &Global) -> Self {
        let mode = match global.progress {
            ProgressMode::Auto if std::io::stderr().is_terminal() => ProgressMode::Bars,
            ProgressMode::Auto => ProgressMode::Lines,
            mode => mode,
        };
        let bars = MultiProgress::new();
        let level = match (global.quiet, global.verbose) {
            (true, _) => "warn",
            (false, 0) => "info",
            (false, 1) => "debug",
            (false, _) => "trace",
        };
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| {
            EnvFilter::new(format!("warn,sae={level},sae_data={level},sae_train={level}"))
        });
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_target(false)
            .without_time()
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(AboveBars(bars.clone()))
            // They would go to stderr by a macro that panics where stderr cannot be written to.
            .log_internal_errors(false)
            .init();
        let mode =
            if global.quiet && mode != ProgressMode::Json { ProgressMode::Auto } else { mode };
        Self { mode, bars, interrupted: Arc::default(), catching: false, shown: None }
    }

    /// From here on Ctrl-C, SIGTERM and SIGHUP are a wish that work which saves itself can ask for. A second Ctrl-C ends at
    /// once; further signals of the others change nothing, because managers of clusters send several.
    fn catch_signals(&mut self) {
        if std::mem::replace(&mut self.catching, true) {
            return;
        }
        let mut signals = match Signals::new(signals::that_end_work()) {
            Ok(signals) => signals,
            Err(error) => {
                tracing::warn!("Ctrl-C will stop at once, without saving: {error}");
                return;
            }
        };
        let flag = Arc::clone(&self.interrupted);
        std::thread::spawn(move || {
            let mut pressed = 0;
            for signal in signals.forever() {
                pressed += u32::from(signal == SIGINT);
                if pressed > 1 {
                    std::process::exit(130);
                }
                if !flag.swap(true, Ordering::SeqCst) {
                    tracing::warn!("stopping after this step; press Ctrl-C again to stop at once");
                }
            }
        });
    }

    /// Writes the result of a command to stdout: text as it is, everything else as JSON. Among events of JSON it is a line of its
    /// own, `{"event":"result","result":…}`.
    pub(crate) fn result(&self, result: &impl Serialize) -> anyhow::Result<()> {
        let value = serde_json::to_value(result)?;
        if self.mode == ProgressMode::Json {
            return crate::print(&json!({ "event": "result", "result": value }).to_string());
        }
        match &value {
            Value::String(text) => crate::print(text),
            value => crate::print(&serde_json::to_string_pretty(value)?),
        }
    }

    /// What is set when a signal asks for the end, for work in other threads.
    pub(crate) fn interruption(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.interrupted)
    }

    pub(crate) fn was_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }

    pub(crate) fn finish(&mut self) {
        if let Some(Shown { bar: Some(bar), .. }) = self.shown.take() {
            bar.abandon();
        }
    }

    fn bar(&self, phase: Phase, total: u64) -> ProgressBar {
        let bar = if total > 0 { ProgressBar::new(total) } else { ProgressBar::new_spinner() };
        let template = if total > 0 {
            "{prefix:>12} {bar:30} {pos}/{len} · {msg} · {elapsed} of about {duration}"
        } else {
            "{prefix:>12} {spinner} {pos} · {msg} · {elapsed}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸ "));
        }
        bar.set_prefix(phase.to_string());
        self.bars.add(bar)
    }

    fn advance(&mut self, done: u64, message: &str) {
        let Some(shown) = &mut self.shown else { return };
        let seconds = shown.began.elapsed().as_secs_f64().max(1e-9);
        // Only a phase that goes on where another call stopped begins with more than one unit done.
        let before = *shown.before.get_or_insert(if done > 1 { done } else { 0 });
        let here = done.saturating_sub(before);
        let rate = match shown.tokens_per_unit {
            0 => format!("{:.1}/s", here as f64 / seconds),
            tokens => format!("{} tokens/s", thousands((here * tokens) as f64 / seconds)),
        };
        if let Some(bar) = &shown.bar {
            bar.set_position(done);
            if !message.is_empty() {
                bar.set_message(format!("{message} · {rate}"));
            } else if bar.message().is_empty() || shown.total == 0 {
                bar.set_message(rate);
            }
            return;
        }
        let over = shown.last_line.elapsed() > LINE_EVERY;
        if self.mode == ProgressMode::Lines && over && (!message.is_empty() || shown.total == 0) {
            shown.last_line = Instant::now();
            let left = match shown.total {
                0 => String::new(),
                total => {
                    let left = seconds * (total.saturating_sub(done)) as f64 / here.max(1) as f64;
                    format!("/{total}, {left:.0} s left")
                }
            };
            let comma = if message.is_empty() { "" } else { ", " };
            tracing::info!("{} {done}{left}{comma}{message}, {rate}", shown.phase);
        }
    }
}

/// 12345.6 → "12 346".
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

impl Observer for Telemetry {
    fn notice(&mut self, event: Event) {
        // From here on there is something to save. Before, while models are fetched, Ctrl-C ends the process at once.
        if matches!(event, Event::Began { phase, .. } if phase.saves_itself()) {
            self.catch_signals();
        }
        if self.mode == ProgressMode::Json {
            if let Ok(line) = serde_json::to_string(&event) {
                // A launcher that no longer reads is no reason to stop.
                let _ = writeln!(std::io::stdout().lock(), "{line}");
            }
            return;
        }
        match event {
            Event::Began { phase, total, tokens_per_unit } => {
                let bar = (self.mode == ProgressMode::Bars).then(|| self.bar(phase, total));
                let began = Instant::now();
                self.shown = Some(Shown {
                    phase,
                    total,
                    tokens_per_unit,
                    began,
                    before: None,
                    last_line: began,
                    bar,
                });
            }
            Event::Advanced { done, message, runs } => {
                let parts = [message, progress_text(&runs)];
                let parts: Vec<String> =
                    parts.into_iter().filter(|part| !part.is_empty()).collect();
                self.advance(done, &parts.join(", "));
            }
            Event::Ended => {
                if let Some(shown) = self.shown.take() {
                    if let Some(bar) = shown.bar {
                        bar.finish_and_clear();
                    }
                    tracing::info!(
                        "{} took {:.1} s",
                        shown.phase,
                        shown.began.elapsed().as_secs_f64()
                    );
                }
            }
        }
    }

    fn interrupted(&self) -> bool {
        self.was_interrupted()
    }
}

/// Writes log lines to stderr without tearing the bars. A line that cannot be written is lost, and nothing else: logging
/// never ends a run.
#[derive(Clone)]
struct AboveBars(MultiProgress);

impl Write for AboveBars {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.suspend(|| std::io::stderr().lock().write_all(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let _ = std::io::stderr().flush();
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for AboveBars {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(super::thousands(1_234_567.4), "1 234 567");
        assert_eq!(super::thousands(12.0), "12");
    }
}

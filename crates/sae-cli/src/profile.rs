//! `sae train --profile`: where a step's time goes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sae_splice::profile::{self, Part};
use sae_train::progress::{Event, Observer, Phase};
use tch::Device;

/// Passes events on, and has the stopwatches run while steps are taken.
pub(crate) struct Profiler<'a> {
    observer: &'a mut dyn Observer,
    device: Device,
    /// Since when steps are taken, and how many were done before.
    began: Option<(Instant, Option<u64>)>,
    done: u64,
    /// What was found, once the steps are over.
    pub table: Option<String>,
}

impl<'a> Profiler<'a> {
    pub fn new(observer: &'a mut dyn Observer, device: Device) -> Self {
        Self { observer, device, began: None, done: 0, table: None }
    }
}

impl Observer for Profiler<'_> {
    fn notice(&mut self, event: Event) {
        match &event {
            Event::Began { phase: Phase::Train, .. } => {
                self.began = Some((Instant::now(), None));
                profile::start(self.device);
            }
            Event::Advanced { done, .. } => {
                if let Some((_, before)) = &mut self.began {
                    // The first event of a phase tells where an earlier call stopped.
                    before.get_or_insert(*done);
                }
                self.done = *done;
            }
            Event::Ended => {
                if let (Some((began, before)), Some(times)) = (self.began.take(), profile::stop()) {
                    let steps = self.done.saturating_sub(before.unwrap_or(0)).max(1);
                    self.table = Some(table(&times, began.elapsed(), steps));
                }
            }
            Event::Began { .. } => {}
        }
        self.observer.notice(event);
    }

    fn interrupted(&self) -> bool {
        self.observer.interrupted()
    }
}

/// Milliseconds a step and percent, part by part.
fn table(times: &BTreeMap<Part, Duration>, all: Duration, steps: u64) -> String {
    let line = |name: &str, time: Duration| {
        let (time, all) = (time.as_secs_f64(), all.as_secs_f64());
        format!("{name:<10} {:>10.2} {:>6.1}\n", time * 1e3 / steps as f64, 100.0 * time / all)
    };
    let known: Duration = times.values().sum();
    let mut text = format!("{:<10} {:>10} {:>6}\n", "part", "ms a step", "%");
    for (part, time) in times {
        text.push_str(&line(&format!("{part:?}").to_lowercase(), *time));
    }
    text.push_str(&line("other", all.saturating_sub(known)));
    text.push_str(&line("all", all));
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sae_splice::profile::Part;

    use super::table;

    #[test]
    fn parts_and_the_rest_are_all() {
        let times =
            [(Part::Kl, Duration::from_millis(600)), (Part::Data, Duration::from_millis(200))];
        let text = table(&times.into(), Duration::from_secs(1), 10);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "data            20.00   20.0");
        assert_eq!(lines[2], "kl              60.00   60.0");
        assert_eq!(lines[3], "other           20.00   20.0");
        assert_eq!(lines[4], "all            100.00  100.0");
    }
}

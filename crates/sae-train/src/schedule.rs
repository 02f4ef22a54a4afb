//! The learning rate over a run, as a factor of the full one.
//!
//! Counted as the reference counts (`eff` effective batch, `w` warm-up samples // eff): its cosine schedule rises as
//! `step / w`, from 0 at step 0, then falls from 1 to `min_lr_factor` over the steps up to `n_samples // eff`; its linear
//! one rises as `(step + 1) / w`, stays at 1, and from step `ceil(n_samples / eff) + 1 − cooldown` on is
//! `max(min_lr_factor, 1 − i / cooldown)`, `i` counted from 0 there.

use sae_config::RunConfig;
use sae_config::run::ScheduleKind;

/// A schedule with its corners in steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// The shape.
    pub kind: ScheduleKind,
    /// Steps of warm-up.
    pub warmup: u64,
    /// Steps of cool-down; linear only.
    pub cooldown: u64,
    /// The step at which the run ends, rounded down (cosine) or up (linear).
    pub end: u64,
    /// The factor at the end.
    pub min_factor: f64,
}

impl Schedule {
    /// The schedule of a run.
    pub fn of(run: &RunConfig) -> Self {
        let (eff, schedule) = (run.effective_batch_size(), run.train.schedule);
        let n_samples = run.train.n_samples.unwrap_or(0);
        let end = match schedule.kind {
            ScheduleKind::Cosine => n_samples / eff,
            ScheduleKind::Linear => n_samples.div_ceil(eff),
        };
        Self {
            kind: schedule.kind,
            warmup: schedule.warmup_samples / eff,
            cooldown: schedule.cooldown_samples / eff,
            end,
            min_factor: schedule.min_lr_factor.get(),
        }
    }

    /// The factor of step `step`, counted from 0.
    pub fn factor(&self, step: u64) -> f64 {
        match self.kind {
            ScheduleKind::Cosine if step < self.warmup => step as f64 / self.warmup as f64,
            ScheduleKind::Cosine => {
                let length = self.end.saturating_sub(self.warmup).max(1);
                let progress = ((step - self.warmup) as f64 / length as f64).min(1.0);
                let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
                self.min_factor + (1.0 - self.min_factor) * cosine
            }
            ScheduleKind::Linear if step < self.warmup => (step + 1) as f64 / self.warmup as f64,
            ScheduleKind::Linear => {
                let start = (self.end + 1).saturating_sub(self.cooldown);
                if self.cooldown == 0 || step < start {
                    1.0
                } else {
                    (1.0 - (step - start) as f64 / self.cooldown as f64).max(self.min_factor)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Schedule, ScheduleKind};

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} {b}");
    }

    #[test]
    fn cosine_corners() {
        let schedule = Schedule {
            kind: ScheduleKind::Cosine,
            warmup: 4,
            cooldown: 0,
            end: 24,
            min_factor: 0.1,
        };
        for (step, factor) in [
            (0, 0.0),
            (1, 0.25),
            (3, 0.75),
            (4, 1.0),
            (14, 0.55),
            (9, 0.1 + 0.9 * 0.5 * (1.0 + 0.5_f64.sqrt())),
            (24, 0.1),
            (30, 0.1),
        ] {
            close(schedule.factor(step), factor);
        }
    }

    #[test]
    fn linear_corners() {
        let schedule = Schedule {
            kind: ScheduleKind::Linear,
            warmup: 4,
            cooldown: 5,
            end: 20,
            min_factor: 0.1,
        };
        // The cool-down begins at step 20 + 1 - 5 = 16.
        for (step, factor) in [
            (0, 0.25),
            (3, 1.0),
            (4, 1.0),
            (15, 1.0),
            (16, 1.0),
            (17, 0.8),
            (19, 0.4),
            (21, 0.1),
            (40, 0.1),
        ] {
            close(schedule.factor(step), factor);
        }
        let constant = Schedule { warmup: 0, cooldown: 0, ..schedule };
        close(constant.factor(0), 1.0);
        close(constant.factor(1000), 1.0);
    }
}

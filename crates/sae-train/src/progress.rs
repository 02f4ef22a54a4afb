//! How long work tells its caller where it is, and learns that it should stop.

pub use sae_record::{Event, Phase, RunProgress};

/// Told of every [`Event`].
pub trait Observer {
    /// Something happened.
    fn notice(&mut self, event: Event);

    /// Whether the work should stop as soon as its state is safe.
    fn interrupted(&self) -> bool {
        false
    }
}

/// An observer that looks away.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn notice(&mut self, _: Event) {}
}

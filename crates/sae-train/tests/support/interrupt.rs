//! Someone who stops a training after some steps.

use sae_train::progress::{Event, Observer};

/// Interrupts after so many steps.
pub struct Interrupt {
    pub after: u64,
    pub done: u64,
}

impl Observer for Interrupt {
    fn notice(&mut self, event: Event) {
        if let Event::Advanced { done, .. } = event {
            self.done = done;
        }
    }

    fn interrupted(&self) -> bool {
        self.done >= self.after
    }
}

//! Where the time of a step goes: a stopwatch for each part, off unless it is asked for.
//!
//! Parts may stand inside others; each second counts for the innermost. On a GPU a part ends when its work is done, so
//! that a profiled run is slower than another.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tch::Device;

/// A part of a training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Waiting for a batch and bringing it to the device.
    Data,
    /// The pass of the original model.
    Clean,
    /// The model after the SAEs, with them spliced in.
    Spliced,
    /// The SAEs' forward passes.
    Sae,
    /// KL divergence and its gradient, the unembedding included.
    Kl,
    /// The loss's other terms.
    Loss,
    /// Backward passes.
    Backward,
    /// Norms, clipping, Adam.
    Optimiser,
    /// Metrics, checkpoints, evaluations in between.
    Logging,
}

#[derive(Debug)]
struct Watch {
    device: Device,
    times: BTreeMap<Part, Duration>,
    /// The parts that are under way, and since when the innermost has been.
    stack: Vec<Part>,
    since: Instant,
}

thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// Starts the stopwatches of this thread.
pub fn start(device: Device) {
    let watch = Watch { device, times: BTreeMap::new(), stack: Vec::new(), since: Instant::now() };
    WATCH.with_borrow_mut(|slot| *slot = Some(watch));
}

/// Stops them; the time of every part, `None` where they were not started.
pub fn stop() -> Option<BTreeMap<Part, Duration>> {
    WATCH.with_borrow_mut(Option::take).map(|watch| watch.times)
}

/// Counts what `work` takes for a part.
pub fn time<T>(part: Part, work: impl FnOnce() -> T) -> T {
    turn(Some(part));
    let result = work();
    turn(None);
    result
}

/// Begins a part, or ends the innermost.
fn turn(part: Option<Part>) {
    WATCH.with_borrow_mut(|slot| {
        let Some(watch) = slot else { return };
        if let Device::Cuda(index) = watch.device {
            tch::Cuda::synchronize(index as i64);
        }
        let now = Instant::now();
        if let Some(&innermost) = watch.stack.last() {
            *watch.times.entry(innermost).or_default() += now - watch.since;
        }
        watch.since = now;
        match part {
            Some(part) => watch.stack.push(part),
            None => {
                watch.stack.pop();
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;
    use std::time::Duration;

    use super::{Part, start, stop, time};

    #[test]
    fn a_second_counts_for_the_innermost_part() {
        assert!(stop().is_none());
        time(Part::Data, || ());
        start(tch::Device::Cpu);
        let pause = Duration::from_millis(20);
        let result = time(Part::Spliced, || {
            sleep(pause);
            time(Part::Sae, || sleep(2 * pause));
            7
        });
        assert_eq!(result, 7);
        let times = stop().unwrap();
        assert_eq!(times.len(), 2);
        assert!(times[&Part::Sae] >= 2 * pause && times[&Part::Spliced] >= pause);
        assert!(times[&Part::Spliced] < 2 * pause, "{times:?}");
    }
}

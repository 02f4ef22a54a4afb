//! The signals at which long work saves itself and ends.

/// SIGINT (Ctrl-C), SIGTERM (what cluster managers announce the end with) and SIGHUP (a terminal that closes), by number
/// as POSIX has them. SIGHUP is left out where `/proc` says that the process was started to ignore it, as by `nohup`.
pub fn that_end_work() -> Vec<i32> {
    const SIGHUP: i32 = 1;
    const SIGINT: i32 = 2;
    const SIGTERM: i32 = 15;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut signals = vec![SIGINT, SIGTERM];
    if !is_ignored(SIGHUP, &status) {
        signals.push(SIGHUP);
    }
    signals
}

/// Whether a signal is in the mask of ignored ones of `/proc/self/status`.
fn is_ignored(signal: i32, status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::{is_ignored, that_end_work};

    #[test]
    fn a_hangup_that_is_ignored_stays_ignored() {
        let status = "Name:\tsae\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000001\n";
        assert!(is_ignored(1, status) && is_ignored(13, status));
        assert!(!is_ignored(2, status) && !is_ignored(15, status) && !is_ignored(1, ""));
        assert!(that_end_work().starts_with(&[2, 15]));
    }
}

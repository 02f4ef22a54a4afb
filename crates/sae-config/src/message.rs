//! Text of others on its way to a reader: without what would steer a terminal, without stack frames.

use std::borrow::Cow;

/// A message as a terminal may show it: control characters, ESC first of all, become `\u{FFFD}`. Line breaks and tabs
/// stay.
pub fn printable(text: &str) -> Cow<'_, str> {
    let is_harmful = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if text.contains(is_harmful) {
        Cow::Owned(text.replace(is_harmful, "\u{FFFD}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// A number of things in words: `1 run`, `2 runs`.
pub fn counted(n: usize, thing: &str) -> String {
    if n == 1 { format!("1 {thing}") } else { format!("{n} {thing}s") }
}

/// A message of libtorch without the C++ frames and source positions that follow it.
pub fn without_frames(error: &impl ToString) -> String {
    let text = error.to_string();
    let is_frame = |line: &str| {
        let line = line.trim_start();
        line.starts_with("Exception raised from")
            || line.starts_with("frame #")
            || line.starts_with("C++ CapturedTraceback")
    };
    let lines: Vec<&str> = text
        .lines()
        .take_while(|line| !is_frame(line))
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::{printable, without_frames};

    #[test]
    fn escape_sequences_do_not_reach_a_terminal() {
        assert_eq!(printable("a\x1b[2Jb\tc\n\u{9b}"), "a\u{FFFD}[2Jb\tc\n\u{FFFD}");
        assert!(matches!(printable("plain — text"), std::borrow::Cow::Borrowed(_)));
    }

    #[test]
    fn frames_are_left_out() {
        let error = "[enforce fail at alloc_cpu.cpp:127] data. DefaultCPUAllocator: can't allocate memory: you tried \
                     to allocate 9 bytes.\nException raised from alloc_cpu at x.cpp:1\nframe #0: c10::Error\n";
        let text = without_frames(&error);
        assert!(text.ends_with("9 bytes.") && !text.contains("frame"), "{text}");
        assert_eq!(without_frames(&"shape '[2]' is invalid"), "shape '[2]' is invalid");
    }
}

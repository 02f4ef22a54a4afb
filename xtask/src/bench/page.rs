//! `docs/benchmarks.md`: one run of all benchmarks, on one machine, of one commit.

use std::process::Command;

use anyhow::{Context, ensure};

use crate::tool;

const PAGE: &str = "docs/benchmarks.md";

/// A benchmark's part of the page.
pub(crate) struct Section {
    pub title: &'static str,
    pub body: String,
}

/// Writes the page.
pub(crate) fn write(sections: &[Section]) -> anyhow::Result<()> {
    let mut page = format!(
        "# Benchmarks\n\nWritten by `cargo xtask bench`; every number on this page is of one run of it, which alternates between \
         the two sides.\nThe peers are in `scripts/peer/`.\n\n{}",
        conditions()
    );
    for Section { title, body } in sections {
        page.extend(["\n## ", title, "\n\n", body.trim(), "\n"]);
    }
    std::fs::write(tool::root().join(PAGE), page)
        .with_context(|| format!("cannot write {PAGE}"))?;
    tool::say(&format!("wrote {PAGE}"));
    Ok(())
}

/// Refuses a tree that differs from its commit: nobody could measure the same again.
pub(crate) fn ensure_clean() -> anyhow::Result<()> {
    let changed = output("git", &["status", "--porcelain"]).context(
        "cannot ask git which commit this is, by which the page names what was measured",
    )?;
    ensure!(
        changed.is_empty(),
        "the tree differs from its commit, by which the page names what was measured: commit first, or give --allow-dirty \
         (of one benchmark alone, as `cargo xtask bench train`, the table is printed and no page is written)"
    );
    Ok(())
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).current_dir(tool::root()).output().ok();
    let output = output.filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Where and when.
fn conditions() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    let threads = std::thread::available_parallelism().map_or(0, std::num::NonZeroUsize::get);
    let unknown = || "unknown".to_owned();
    let commit = output("git", &["describe", "--always", "--dirty", "--abbrev=12"]);
    format!(
        "{} ({threads} cores), {}, {}, commit {}.\n",
        cpu.unwrap_or_else(unknown),
        output("uname", &["-sr"]).unwrap_or_else(unknown),
        output("date", &["-u", "+%Y-%m-%d"]).unwrap_or_else(unknown),
        commit.unwrap_or_else(unknown)
    )
}

/// The middle one, and the ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

/// Of at least one value.
pub(crate) fn spread(values: &[f64]) -> Spread {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    let middle = sorted.len() / 2;
    let median = if sorted.len().is_multiple_of(2) && middle > 0 {
        f64::midpoint(at(middle - 1), at(middle))
    } else {
        at(middle)
    };
    Spread { median, least: at(0), most: at(sorted.len().saturating_sub(1)) }
}

#[cfg(test)]
mod tests {
    use super::{Spread, spread};

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Spread { median: 2.0, least: 1.0, most: 3.0 });
        let even = Spread { median: 2.5, least: 1.0, most: 4.0 };
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]), even);
    }
}

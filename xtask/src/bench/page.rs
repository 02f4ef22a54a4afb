//! `docs/benchmarks.md`: a section a benchmark, each with the machine, the date and the commit that it was run on.

use std::process::Command;

use anyhow::Context;

use crate::tool;

const PAGE: &str = "docs/benchmarks.md";
const HEAD: &str = "# Benchmarks\n\nWritten by `cargo xtask bench`; every number on this page is of one run of it, which \
alternates between the two sides.\nThe peers are in `scripts/peer/`.\n";

/// Replaces a section of the page, or adds it at the end.
pub(crate) fn write(title: &str, body: &str) -> anyhow::Result<()> {
    let path = tool::root().join(PAGE);
    let page = std::fs::read_to_string(&path).unwrap_or_else(|_| HEAD.to_owned());
    let page = with_section(&page, title, &format!("{}\n{body}", conditions()));
    std::fs::write(&path, page).with_context(|| format!("cannot write {PAGE}"))?;
    tool::say(&format!("wrote {PAGE}"));
    Ok(())
}

fn with_section(page: &str, title: &str, body: &str) -> String {
    let heading = format!("\n## {title}\n");
    let section = format!("{heading}\n{}\n", body.trim());
    match page.find(&heading) {
        None => format!("{}\n{section}", page.trim_end()),
        Some(start) => {
            let rest = &page[start + heading.len()..];
            let end = rest.find("\n## ").map_or("", |end| &rest[end..]);
            format!("{}{section}{end}", &page[..start])
        }
    }
}

/// Where and when.
fn conditions() -> String {
    let output = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(tool::root()).output().ok();
        let output = output.filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
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
    use super::{Spread, spread, with_section};

    #[test]
    fn sections_are_replaced_where_they_stand() {
        let page = with_section("# Page\n", "A", "one");
        let page = with_section(&page, "B", "two");
        assert_eq!(page, "# Page\n\n## A\n\none\n\n## B\n\ntwo\n");
        assert_eq!(with_section(&page, "A", "new"), "# Page\n\n## A\n\nnew\n\n## B\n\ntwo\n");
        assert_eq!(with_section(&page, "B", "new"), "# Page\n\n## A\n\none\n\n## B\n\nnew\n");
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Spread { median: 2.0, least: 1.0, most: 3.0 });
        let even = Spread { median: 2.5, least: 1.0, most: 4.0 };
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]), even);
    }
}

//! The licences of all dependencies, held to the list in `deny.toml`; advisories, where `cargo deny` is installed.

use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use cargo_metadata::Metadata;
use serde::Deserialize;
use spdx::{Expression, LicenseReq, ParseMode};

use crate::tool;

/// What this reads of `deny.toml`, which `cargo deny` reads too.
#[derive(Deserialize)]
struct Deny {
    licenses: Licences,
}

#[derive(Deserialize)]
struct Licences {
    allow: Vec<String>,
}

/// Refuses dependencies whose licences `deny.toml` does not allow, those for other systems included.
pub(crate) fn check(metadata: &Metadata) -> anyhow::Result<()> {
    let path = tool::root().join("deny.toml");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let Deny { licenses } =
        toml::from_str(&text).with_context(|| format!("cannot use {}", path.display()))?;
    let licences = metadata.packages.iter().map(|package| {
        (format!("{} {}", package.name, package.version), package.license.as_deref())
    });
    check_all(licences, &licenses.allow)
}

fn check_all<'a>(
    packages: impl Iterator<Item = (String, Option<&'a str>)>,
    allowed: &[String],
) -> anyhow::Result<()> {
    let mut refused = Vec::new();
    for (package, licence) in packages {
        let Some(licence) = licence else {
            refused.push(format!("{package} names no licence"));
            continue;
        };
        // Old manifests write `MIT/Apache-2.0`.
        let expression = Expression::parse_mode(licence, ParseMode::LAX)
            .with_context(|| format!("cannot understand the licence of {package}, {licence}"))?;
        let is_allowed = |requirement: &LicenseReq| allowed.contains(&requirement.to_string());
        if !expression.evaluate(is_allowed) {
            refused.push(format!("{package}: {licence}"));
        }
    }
    ensure!(
        refused.is_empty(),
        "deny.toml does not allow the licences of these dependencies: {}",
        refused.join("; ")
    );
    Ok(())
}

/// Asks `cargo deny` for advisories, where it is installed: its database lies on the network.
pub(crate) fn advisories() -> anyhow::Result<()> {
    let installed = Command::new("cargo-deny")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !installed {
        bail!("cargo deny is not installed: cargo install --locked cargo-deny");
    }
    tool::run(tool::cargo().args(["deny", "check"]))
}

#[cfg(test)]
mod tests {
    use super::check_all;

    #[test]
    fn licences_are_held_to_the_list() {
        let allowed = ["MIT", "Apache-2.0"].map(str::to_owned);
        let check = |licence: Option<&str>| {
            check_all(std::iter::once(("a 1.0.0".to_owned(), licence)), &allowed)
        };
        for licence in ["MIT", "MIT/Apache-2.0", "GPL-3.0-only OR MIT", "MIT AND Apache-2.0"] {
            check(Some(licence)).unwrap();
        }
        // An exception is a licence of its own.
        let refused = ["GPL-3.0-only", "MIT AND GPL-3.0-only", "Apache-2.0 WITH LLVM-exception"];
        for licence in refused {
            let error = check(Some(licence)).unwrap_err().to_string();
            assert!(error.contains("a 1.0.0") && error.contains(licence), "{error}");
        }
        let error = check(None).unwrap_err().to_string();
        assert!(error.contains("names no licence"), "{error}");
    }
}

//! The crates as others use them: a project outside of the workspace, made by the steps of `docs/crates.md`, builds and runs the
//! examples of every crate's documentation.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::{setup, tool};

pub(crate) fn run() -> anyhow::Result<()> {
    tool::say("the crates' examples, in a project outside of the workspace");
    let root = tool::root();
    let project = std::env::temp_dir().join(format!("sae-outside-{}", std::process::id()));
    let outcome = build_and_run(&root, &project);
    let removed = std::fs::remove_dir_all(&project).context("cannot remove the project outside");
    outcome.and(removed)
}

fn build_and_run(root: &Path, project: &Path) -> anyhow::Result<()> {
    let names = make(root, project, &setup::config()?)?;
    let target = root.join("target/outside");
    let mut cargo = tool::cargo();
    // What cargo tells `cargo xtask` of this workspace is not for another one.
    cargo.env_remove("LIBTORCH").env_remove("LD_LIBRARY_PATH").env("CARGO_TARGET_DIR", &target);
    tool::run(cargo.args(["build", "--bins"]).current_dir(project))?;
    for name in &names {
        let mut example = Command::new(target.join("debug").join(name));
        // Examples read the embedded model and its corpus from the working directory.
        tool::run(example.env_remove("LD_LIBRARY_PATH").current_dir(root))?;
    }
    Ok(())
}

/// Makes the project, and names its binaries: one an example.
fn make(root: &Path, project: &Path, config: &str) -> anyhow::Result<Vec<String>> {
    let steps = read(&root.join("docs/crates.md"))?;
    let manifest = blocks(&steps).into_iter().find(|(kind, _)| kind == "toml");
    let (_, manifest) = manifest.context("docs/crates.md shows no Cargo.toml")?;
    let manifest = manifest.replace("../sae/", &format!("{}/", root.display()));
    let package = "[package]\nname = \"outside\"\nedition = \"2024\"\n\n[workspace]\n\n";
    write(&project.join("Cargo.toml"), &format!("{package}{manifest}"))?;
    write(&project.join(".cargo/config.toml"), config)?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root.join("crates")).context("cannot list the crates")? {
        let path = entry?.path();
        // A binary is no library.
        let Ok(docs) = std::fs::read_to_string(path.join("src/lib.rs")) else { continue };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let examples = examples(&docs)?;
        ensure!(!examples.is_empty(), "the documentation of {name} has no example");
        for (number, example) in examples.iter().enumerate() {
            let name = if number == 0 { name.clone() } else { format!("{name}-{}", number + 1) };
            write(&project.join("src/bin").join(format!("{name}.rs")), example)?;
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The examples at the head of a crate's documentation, as programs.
fn examples(docs: &str) -> anyhow::Result<Vec<String>> {
    let lines = docs.lines().map_while(|line| line.strip_prefix("//!"));
    let lines = lines.map(|line| line.strip_prefix(' ').unwrap_or(line));
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    blocks(&text).into_iter().map(|(_, code)| program(&code)).collect()
}

/// An example as rustdoc has it: one that ends with a result may use `?`.
fn program(code: &str) -> anyhow::Result<String> {
    ensure!(!code.contains("fn main"), "an example has a `main` of its own, which is not expected");
    let shown = |line| if line == "#" { "" } else { str::strip_prefix(line, "# ").unwrap_or(line) };
    let code: String = code.lines().map(shown).flat_map(|line| [line, "\n"]).collect();
    Ok(if code.trim_end().ends_with("(())") {
        let result = "Result<(), Box<dyn std::error::Error>>";
        format!("fn main() -> {result} {{\n    Ok((|| {{\n{code}}})()?)\n}}\n")
    } else {
        format!("fn main() {{\n{code}}}\n")
    })
}

/// The blocks of code of a text, each with what its fence says.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(kind) = line.strip_prefix("```") {
            let code = lines.by_ref().take_while(|line| *line != "```");
            blocks.push((kind.to_owned(), code.flat_map(|line| [line, "\n"]).collect()));
        }
    }
    blocks
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let write = || {
        std::fs::create_dir_all(path.parent().unwrap_or(path))?;
        std::fs::write(path, text)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::{examples, make};

    #[test]
    fn an_example_becomes_a_program() {
        let docs = "//! Words.\n//!\n//! ```no_run\n//! # use a::b;\n//! b()?;\n//! # Ok::<(), E>(())\n//! ```\n\nmod a;\n";
        let program = &examples(docs).unwrap()[0];
        let body = "Ok((|| {\nuse a::b;\nb()?;\nOk::<(), E>(())\n})()?)";
        assert!(program.contains(body), "{program}");
        let two = examples("//! ```\n//! b();\n//! ```\n//! ```\n//! c();\n//! ```\n").unwrap();
        assert_eq!(two, ["fn main() {\nb();\n}\n", "fn main() {\nc();\n}\n"]);
        assert!(examples("//! Words.\n").unwrap().is_empty());
        assert!(examples("//! ```\n//! fn main() {}\n//! ```\n").is_err());
    }

    #[test]
    fn every_crate_has_an_example_and_a_line_in_the_steps() {
        let project = tempfile::tempdir().unwrap();
        let names = make(&crate::tool::root(), project.path(), "").unwrap();
        assert!(names.len() > 12, "{names:?}");
        let manifest = std::fs::read_to_string(project.path().join("Cargo.toml")).unwrap();
        for name in names.iter().filter(|name| !name.ends_with(|c: char| c.is_ascii_digit())) {
            assert!(manifest.contains(&format!("\n{name} = ")), "{name} is not in docs/crates.md");
        }
    }
}

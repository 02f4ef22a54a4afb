//! What tokens of Rust are, one by one.

use super::CONCEPTS;
use crate::{Labeller, Language};

/// The concepts of the `n`th place of a text in a document, by name.
fn concepts(document: &str, text: &str, n: usize) -> Vec<&'static str> {
    let (from, _) = document.match_indices(text).nth(n).unwrap();
    let mut labeller = Labeller::new(Language::Rust).unwrap();
    let token = [from as u32, (from + text.len()) as u32];
    let set = labeller.label(document, &[token]).unwrap()[0];
    (0..CONCEPTS.len()).filter(|bit| set >> bit & 1 == 1).map(|bit| CONCEPTS[bit].name).collect()
}

const DOCUMENT: &str = r#"//! About.
use std::fmt::{self, Write};
// Plain.
#[derive(Debug)]
pub struct Pair<'a, T: Clone> { left: &'a T, right: u8 }
impl<'a, T: Clone> Pair<'a, T> {
    /// Sum.
    pub unsafe fn sum(&self, scale: f64) -> Option<u64> {
        let mut total = self.right as u64 + 12;
        for item in self.left.iter() {
            match item {
                Some(inner) if *inner > 3 => total += helper(inner)?,
                Kind::Other | _ => println!("none\n {}", total),
            }
        }
        let sum = |x| { x };
        Some(Pair { left: total, right }.value)
    }
}
#[cfg(test)]
mod tests { #[test] fn works() { assert_eq!(1, 1); } }
"#;

#[test]
fn names_differ_from_concept_to_concept_and_there_is_a_bit_for_each() {
    assert!(CONCEPTS.len() >= 40 && CONCEPTS.len() <= 128, "{}", CONCEPTS.len());
    let mut names: Vec<&str> = CONCEPTS.iter().map(|concept| concept.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), CONCEPTS.len());
}

#[test]
fn every_token_is_what_it_is() {
    for (text, n, expected) in [
        ("About", 0, &["doc comment"][..]),
        ("Plain", 0, &["comment"]),
        ("use", 0, &["use", "in a use declaration"]),
        ("std", 0, &["segment of a path", "in a use declaration"]),
        ("derive", 0, &["in an attribute", "in a derive"]),
        ("struct", 0, &["struct", "in a struct definition"]),
        ("Pair", 0, &["name of a type", "in a struct definition"]),
        ("'a", 0, &["lifetime", "in generic parameters", "in a struct definition"]),
        (
            "Clone",
            0,
            &["used type", "in generic parameters", "in trait bounds", "in a struct definition"],
        ),
        ("right", 0, &["name of a field", "in a struct definition", "1 or more braces deep"]),
        ("Sum", 0, &["doc comment", "in an inherent impl", "1 or more braces deep"]),
        (
            "sum",
            0,
            &[
                "name of a function",
                "in unsafe code",
                "in an inherent impl",
                "1 or more braces deep",
            ],
        ),
        ("Option", 0, &["used type", "in a type", "in a return type", "in unsafe code"]),
        ("u64", 0, &["primitive type", "in generic arguments", "in a return type"]),
        ("total", 0, &["name bound by let", "in a function's body", "2 or more braces deep"]),
        ("item", 0, &["name bound by a pattern", "in a loop"]),
        ("iter", 0, &["called method", "in a loop"]),
        ("left", 1, &["accessed field"]),
        ("inner", 0, &["name bound by a pattern", "in a match pattern", "in a match arm"]),
        ("*", 0, &["dereference", "in a match pattern"]),
        ("> 3", 0, &["comparison", "integer"]),
        ("=>", 0, &["=>", "4 or more braces deep"]),
        ("+=", 0, &["assignment"]),
        ("helper", 0, &["called function"]),
        ("?", 0, &["?"]),
        ("Kind", 0, &["segment of a path", "in a match pattern"]),
        ("| _", 0, &["| of a pattern"]),
        ("println!", 0, &["called macro"]),
        ("none", 0, &["string", "in a macro's arguments"]),
        ("\\n", 0, &["escape sequence", "string"]),
        ("|x", 0, &["bar of a closure", "name of a parameter", "in a closure"]),
        ("left", 2, &["initialised field", "in a struct's value", "in arguments"]),
        ("right", 2, &["initialised field", "in a struct's value"]),
        ("value", 0, &["accessed field"]),
        ("works", 0, &["name of a function", "in a test"]),
        ("1, ", 0, &["integer", ",", "in a test", "in a macro's arguments"]),
    ] {
        let found = concepts(DOCUMENT, text, n);
        for name in expected {
            assert!(found.contains(name), "`{text}` is not `{name}`, but {found:?}");
        }
    }
    // And what they are not.
    for (text, n, not) in [
        ("right", 0, "accessed field"),
        ("Some", 0, "name bound by a pattern"),
        ("works", 0, "in unsafe code"),
        ("helper", 0, "variable"),
        ("use", 0, "1 or more braces deep"),
        ("Plain", 0, "doc comment"),
    ] {
        let found = concepts(DOCUMENT, text, n);
        assert!(!found.contains(&not), "`{text}` is `{not}`: {found:?}");
    }
}

#[test]
fn names_keywords_and_literals_are_one_thing_each() {
    let one = "fn f() { let P { x, y: z } = std::fs::read(q); match Self::new(u8::MAX) { None => r, \
               Some(t) if a::B == t => 'l: loop { break 'l; }, } }\nmatches!(x, else in pub);\n\
               #[tokio::test(flavor = \"x\")]\nasync fn g() {}\n#[cfg(not(test))]\nmod h {}\nuse a::b::{c, D};\n";
    for (text, n, expected) in [
        ("x", 0, &["name bound by let"][..]),
        ("y", 0, &[]),
        ("z", 0, &["name bound by let"]),
        ("std", 0, &["segment of a path"]),
        ("fs", 0, &["segment of a path"]),
        ("read", 0, &["called function"]),
        ("q", 0, &["variable"]),
        ("Self", 0, &["Self"]),
        ("new", 0, &["called function"]),
        ("None", 0, &["variable"]),
        ("r,", 0, &["variable"]),
        ("Some", 0, &["variable"]),
        ("(t", 0, &["name bound by a pattern"]),
        ("a::", 0, &["segment of a path"]),
        ("'l", 1, &[]),
        ("else", 0, &["else"]),
        ("in ", 0, &["in"]),
        ("pub", 0, &["pub"]),
        ("b::", 0, &["segment of a path"]),
    ] {
        let kinds = ["keywords", "names", "literals"];
        let is_kind = |name: &&str| {
            let own = CONCEPTS.iter().find(|concept| concept.name == *name).unwrap();
            kinds.contains(&own.group)
        };
        let found: Vec<&str> = concepts(one, text, n).into_iter().filter(is_kind).collect();
        assert_eq!(found, expected, "`{text}`");
    }
    assert!(concepts(one, "g()", 0).contains(&"in a test"));
    assert!(!concepts(one, "h {", 0).contains(&"in a test"));
    assert!(!concepts(one, "Some", 0).contains(&"in a type"));
}

#[test]
fn what_does_not_parse_is_labelled_around_it() {
    let document = "fn broken( { let x = ; }\nfn whole() {}\n";
    assert!(concepts(document, "whole", 0).contains(&"name of a function"));
    let mut labeller = Labeller::new(Language::Rust).unwrap();
    assert_eq!(labeller.label("", &[[0, 0], [3, 9]]).unwrap(), [0, 0]);
    assert!("cobol".parse::<Language>().unwrap_err().to_string().contains("known: rust"));
}

#[test]
fn deep_nesting_overflows_nothing() {
    let document = format!("fn f() {{ {}1{} }}", "(".repeat(20_000), ")".repeat(20_000));
    assert!(concepts(&document, "1", 0).contains(&"integer"));
}

//! From a document and the bytes of its tokens to the concepts of each, by the parser of its language.

use std::str::FromStr;

use tree_sitter::{Node, Parser};

use crate::rust;

/// Something that tokens of a language are, or stand in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concept {
    /// Its name.
    pub name: &'static str,
    /// What kind of concept it is: keywords, names, literals, …
    pub group: &'static str,
    /// When a token has it.
    pub meaning: &'static str,
}

/// A language whose concepts are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Rust.
    Rust,
}

/// What a language says of itself; a line of [`Language::grammar`] each.
struct Grammar {
    name: &'static str,
    concepts: &'static [Concept],
    parser: fn() -> tree_sitter::Language,
    /// The concepts of the bytes of a node of the syntax tree, given those that it lies in, outermost first.
    concepts_of: fn(&Place<'_>, &mut dyn FnMut(usize)),
}

/// A node of a syntax tree, with where it stands.
pub(crate) struct Place<'a> {
    pub node: Node<'a>,
    /// What its parent calls it.
    pub field: Option<&'a str>,
    /// The nodes that it lies in, outermost first.
    pub above: &'a [Above<'a>],
    /// The document.
    pub text: &'a str,
}

/// A node that others lie in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Above<'a> {
    pub node: Node<'a>,
    pub field: Option<&'a str>,
}

impl<'a> Place<'a> {
    /// The kind of the node `levels` above, 0 the parent; empty where there is none.
    pub fn kind_above(&self, levels: usize) -> &'a str {
        self.at(levels).map_or("", |above| above.node.kind())
    }

    /// The node `levels` above.
    pub fn at(&self, levels: usize) -> Option<Above<'a>> {
        self.above.len().checked_sub(levels + 1).map(|place| self.above[place])
    }

    /// The text of a node.
    pub fn text_of(&self, node: Node<'_>) -> &'a str {
        self.text.get(node.byte_range()).unwrap_or_default()
    }
}

/// A document that cannot be labelled.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    /// The grammar is not for this version of the parser.
    #[error("cannot load the grammar of {language}: {message}")]
    Grammar {
        /// The language.
        language: &'static str,
        /// What the parser said.
        message: String,
    },
    /// The parser gave up.
    #[error("the parser of {language} gave no tree of a document of {bytes} bytes")]
    Parse {
        /// The language.
        language: &'static str,
        /// The document's length.
        bytes: usize,
    },
}

/// The name of no language whose concepts are known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there are no concepts of `{0}`; known: {known}", known = known())]
pub struct UnknownLanguage(String);

impl Language {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::Rust];

    const fn grammar(self) -> &'static Grammar {
        match self {
            Self::Rust => &Grammar {
                name: "rust",
                concepts: rust::CONCEPTS,
                parser: || tree_sitter_rust::LANGUAGE.into(),
                concepts_of: rust::concepts_of,
            },
        }
    }

    /// Its name, in lower case.
    pub const fn name(self) -> &'static str {
        self.grammar().name
    }

    /// Its concepts; the place of each is its bit.
    pub const fn concepts(self) -> &'static [Concept] {
        self.grammar().concepts
    }
}

impl FromStr for Language {
    type Err = UnknownLanguage;

    fn from_str(text: &str) -> Result<Self, UnknownLanguage> {
        let found = Self::ALL.into_iter().find(|language| language.name() == text);
        found.ok_or_else(|| UnknownLanguage(text.to_owned()))
    }
}

fn known() -> String {
    Language::ALL.map(Language::name).join(", ")
}

/// Says which concepts the tokens of documents have.
pub struct Labeller {
    language: Language,
    parser: Parser,
}

impl std::fmt::Debug for Labeller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Labeller").field("language", &self.language).finish_non_exhaustive()
    }
}

impl Labeller {
    /// For documents in a language.
    pub fn new(language: Language) -> Result<Self, LabelError> {
        let mut parser = Parser::new();
        let grammar = language.grammar();
        let loaded = parser.set_language(&(grammar.parser)());
        loaded.map_err(|error| LabelError::Grammar {
            language: grammar.name,
            message: error.to_string(),
        })?;
        Ok(Self { language, parser })
    }

    /// The concepts of every token of a document: bit `i` of a number is the `i`th of [`Language::concepts`]. A token, given by the
    /// bytes from and to that it stands for, has a concept where one of its bytes has it. What cannot be parsed has the concepts of
    /// what can be parsed around it.
    pub fn label(&mut self, text: &str, tokens: &[[u32; 2]]) -> Result<Vec<u128>, LabelError> {
        let grammar = self.language.grammar();
        let parsed = self.parser.parse(text, None);
        let tree = parsed.ok_or(LabelError::Parse { language: grammar.name, bytes: text.len() })?;
        let mut bytes = vec![0_u128; text.len()];
        let mut above: Vec<Above<'_>> = Vec::new();
        let mut cursor = tree.walk();
        'walk: loop {
            let (node, field) = (cursor.node(), cursor.field_name());
            let place = Place { node, field, above: &above, text };
            let range = node.byte_range();
            (grammar.concepts_of)(&place, &mut |concept| {
                for byte in &mut bytes[range.clone()] {
                    *byte |= 1 << concept;
                }
            });
            if cursor.goto_first_child() {
                above.push(Above { node, field });
                continue;
            }
            while !cursor.goto_next_sibling() {
                if !cursor.goto_parent() {
                    break 'walk;
                }
                above.pop();
            }
        }
        let of = |&[from, to]: &[u32; 2]| {
            let (from, to) = ((from as usize).min(bytes.len()), (to as usize).min(bytes.len()));
            bytes[from.min(to)..to].iter().fold(0, |set, byte| set | byte)
        };
        Ok(tokens.iter().map(of).collect())
    }
}

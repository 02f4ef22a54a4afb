//! The concepts of Rust, as the syntax tree of tree-sitter's grammar tells them.

use tree_sitter::Node;

use crate::labeller::{Concept, Place};

/// Makes the list of concepts, and a name in the code for each.
macro_rules! concepts {
    ($($group:literal { $($id:ident $name:literal $meaning:literal)* })*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        enum Is {
            $($($id,)*)*
        }

        /// The concepts; the place of each is its bit.
        pub(crate) const CONCEPTS: &[Concept] =
            &[$($(Concept { name: $name, group: $group, meaning: $meaning },)*)*];
    };
}

concepts! {
    "keywords" {
        Fn "fn" "the word `fn`"
        Let "let" "the word `let`"
        Mut "mut" "the word `mut`"
        Pub "pub" "a visibility: `pub`, `pub(crate)`"
        Use "use" "the word `use`"
        Mod "mod" "the word `mod`"
        Struct "struct" "the word `struct`"
        Enum "enum" "the word `enum`"
        Impl "impl" "the word `impl`"
        Trait "trait" "the word `trait`"
        Type "type" "the word `type`"
        For "for" "the word `for`"
        While "while or loop" "the words `while` and `loop`"
        In "in" "the word `in`"
        If "if" "the word `if`"
        Else "else" "the word `else`"
        Match "match" "the word `match`"
        Return "return" "the word `return`"
        Break "break or continue" "the words `break` and `continue`"
        Const "const" "the word `const`"
        Static "static" "the word `static`"
        Unsafe "unsafe" "the word `unsafe`"
        Async "async or await" "the words `async` and `await`"
        Where "where" "the word `where`"
        As "as" "the word `as`"
        Dyn "dyn" "the word `dyn`"
        Ref "ref" "the word `ref`"
        Move "move" "the word `move`"
        SelfValue "self" "the word `self`"
        Crate "crate or super" "the words `crate` and `super`"
    }
    "names" {
        FunctionName "name of a function" "the name of a function where it is defined"
        TypeName "name of a type" "the name of a struct, enum, union, trait or type where it is defined"
        FieldName "name of a field" "the name of a field where it is defined"
        VariantName "name of a variant" "the name of an enum's variant where it is defined"
        ParameterName "name of a parameter" "the name of a function's or closure's parameter where it is bound"
        LetName "name bound by let" "a name that `let` binds"
        PatternName "name bound by a pattern" "a name that a pattern of `match`, `if let` or `for` binds"
        ModuleName "name of a module" "the name of a module where it is declared"
        ConstantName "name of a constant" "the name of a constant or static where it is defined"
        TypeParameterName "name of a type parameter" "the name of a type parameter where it is declared"
        Lifetime "lifetime" "a lifetime"
        TypeUse "used type" "the name of a type where it is used"
        SelfType "Self" "the word `Self`"
        Primitive "primitive type" "`u8`, `bool`, `str` and the like"
        PathSegment "segment of a path" "a name before `::`"
        FunctionCall "called function" "the name of a function where it is called"
        MethodCall "called method" "the name of a method where it is called"
        FieldAccess "accessed field" "the name of a field where it is read or written"
        InitializedField "initialised field" "the name of a field in the value of a struct"
        MacroCall "called macro" "the name of a macro where it is called, and its `!`"
        Variable "variable" "the name of a value where it is used, as far as it is none of the above"
    }
    "literals" {
        Text "string" "a string"
        RawText "raw string" "a raw string"
        Escape "escape sequence" "an escape sequence in a string"
        Character "character" "a character"
        Integer "integer" "an integer"
        Float "float" "a number with a fraction"
        Boolean "boolean" "`true` and `false`"
    }
    "comments" {
        Comment "comment" "a comment that is no documentation"
        Doc "doc comment" "a documentation comment"
    }
    "operators" {
        Assign "assignment" "`=`, `+=` and the like"
        Compare "comparison" "`==`, `<` and the like, of two values"
        Arithmetic "arithmetic" "`+`, `-`, `*`, `/`, `%` of values"
        Logic "logic" "`&&`, `||`, `!` of values"
        Bits "bit operation" "`&`, `|`, `^`, `<<`, `>>` of values"
        Reference "reference" "`&` before a value, a type or a pattern"
        Dereference "dereference" "`*` before a value"
        Try "?" "`?` after a value"
        Range "range" "`..` and `..=`"
        Arrow "->" "`->`"
        FatArrow "=>" "`=>`"
        PathSeparator "::" "`::`"
        Dot "." "`.` before a field or method"
        Colon ":" "`:`"
        Comma "," "`,`"
        Semicolon ";" "`;`"
        ClosureBar "bar of a closure" "`|` around the parameters of a closure"
        OrBar "| of a pattern" "`|` between patterns"
        AttributeSign "#" "`#` of an attribute"
    }
    "brackets" {
        OpenParenthesis "(" "`(`"
        CloseParenthesis ")" "`)`"
        OpenBrace "{" "`{`"
        CloseBrace "}" "`}`"
        OpenBracket "[" "`[`"
        CloseBracket "]" "`]`"
        OpenAngle "<" "`<` of generics"
        CloseAngle ">" "`>` of generics"
    }
    "context" {
        InAttribute "in an attribute" "within an attribute"
        InDerive "in a derive" "within `#[derive(…)]`"
        InUse "in a use declaration" "within `use …;`"
        InGenericArguments "in generic arguments" "within the `<…>` that a type or function is given"
        InGenericParameters "in generic parameters" "within the `<…>` that an item declares"
        InBounds "in trait bounds" "within the traits that a type has to have"
        InWhere "in a where clause" "within a `where` clause"
        InType "in a type" "where the type of something stands"
        InReturnType "in a return type" "within the type that a function returns"
        InParameters "in parameters" "within the parameters of a function"
        InArguments "in arguments" "within the arguments of a call"
        InFunction "in a function's body" "within the body of a function"
        InClosure "in a closure" "within a closure"
        InMatchArm "in a match arm" "within an arm of `match`"
        InMatchPattern "in a match pattern" "within the pattern of an arm"
        InCondition "in a condition" "within the condition of `if` or `while`"
        InElse "in an else branch" "within what comes after `else`"
        InLoop "in a loop" "within `for`, `while` or `loop`"
        InMacroCall "in a macro's arguments" "within the arguments of a macro"
        InMacroDefinition "in a macro definition" "within `macro_rules!`"
        InUnsafe "in unsafe code" "within an `unsafe` block or function"
        InTest "in a test" "within a function or module of tests"
        InStruct "in a struct definition" "within the definition of a struct"
        InEnum "in an enum definition" "within the definition of an enum"
        InTrait "in a trait definition" "within the definition of a trait"
        InTraitImpl "in an impl of a trait" "within `impl … for …`"
        InOwnImpl "in an inherent impl" "within an `impl` of no trait"
        InStructValue "in a struct's value" "within the fields of a struct's value"
        InConstant "in a constant" "within the definition of a constant or static"
    }
    "depth" {
        Depth1 "1 or more braces deep" "within one pair of braces or more"
        Depth2 "2 or more braces deep" "within two pairs of braces or more"
        Depth3 "3 or more braces deep" "within three pairs of braces or more"
        Depth4 "4 or more braces deep" "within four pairs of braces or more"
        Depth5 "5 or more braces deep" "within five pairs of braces or more"
    }
}

/// By how many pairs of braces are around.
const DEPTHS: [Is; 5] = [Is::Depth1, Is::Depth2, Is::Depth3, Is::Depth4, Is::Depth5];

/// The concepts that all bytes of a node have.
pub(crate) fn concepts_of(place: &Place<'_>, found: &mut dyn FnMut(usize)) {
    let mut add = |is: Is| found(is as usize);
    let node = place.node;
    if node.is_named() {
        context(place, &mut add);
        if let Some(is) = name(place).or_else(|| leaf(place)) {
            add(is);
        }
    } else if let Some(is) = keyword(node.kind()).or_else(|| sign(place)) {
        add(is);
    }
}

/// Words that stand for themselves, in the arguments of macros, too.
fn keyword(kind: &str) -> Option<Is> {
    Some(match kind {
        "pub" => Is::Pub,
        "fn" => Is::Fn,
        "let" => Is::Let,
        "use" => Is::Use,
        "mod" => Is::Mod,
        "struct" => Is::Struct,
        "enum" => Is::Enum,
        "impl" => Is::Impl,
        "trait" => Is::Trait,
        "type" => Is::Type,
        "for" => Is::For,
        "while" | "loop" => Is::While,
        "in" => Is::In,
        "if" => Is::If,
        "else" => Is::Else,
        "match" => Is::Match,
        "return" => Is::Return,
        "break" | "continue" => Is::Break,
        "const" => Is::Const,
        "static" => Is::Static,
        "unsafe" => Is::Unsafe,
        "async" | "await" => Is::Async,
        "where" => Is::Where,
        "as" => Is::As,
        "dyn" => Is::Dyn,
        "ref" => Is::Ref,
        "move" => Is::Move,
        _ => return None,
    })
}

/// Operators, punctuation and brackets, which mean what their parent makes of them.
fn sign(place: &Place<'_>) -> Option<Is> {
    let parent = place.kind_above(0);
    let of_values = matches!(parent, "binary_expression" | "unary_expression");
    Some(match place.node.kind() {
        "(" => Is::OpenParenthesis,
        ")" => Is::CloseParenthesis,
        "{" => Is::OpenBrace,
        "}" => Is::CloseBrace,
        "[" => Is::OpenBracket,
        "]" => Is::CloseBracket,
        "," => Is::Comma,
        ";" => Is::Semicolon,
        ":" => Is::Colon,
        "::" => Is::PathSeparator,
        "->" => Is::Arrow,
        "=>" => Is::FatArrow,
        ".." | "..=" => Is::Range,
        "?" if parent == "try_expression" => Is::Try,
        "." if parent == "field_expression" || parent == "await_expression" => Is::Dot,
        "#" if parent.ends_with("attribute_item") => Is::AttributeSign,
        "!" if parent == "macro_invocation" => Is::MacroCall,
        "<" if is_generic(parent) => Is::OpenAngle,
        ">" if is_generic(parent) => Is::CloseAngle,
        "|" if parent == "closure_parameters" => Is::ClosureBar,
        "|" if parent == "or_pattern" => Is::OrBar,
        "&" if parent.starts_with("reference_") || parent == "self_parameter" => Is::Reference,
        "*" if parent == "unary_expression" => Is::Dereference,
        "!" | "&&" | "||" if of_values || parent == "let_chain" => Is::Logic,
        "==" | "!=" | "<" | ">" | "<=" | ">=" if of_values => Is::Compare,
        "+" | "-" | "*" | "/" | "%" if of_values => Is::Arithmetic,
        "&" | "|" | "^" | "<<" | ">>" if of_values => Is::Bits,
        "=" => Is::Assign,
        _ if parent == "compound_assignment_expr" => Is::Assign,
        _ => return None,
    })
}

fn is_generic(parent: &str) -> bool {
    matches!(parent, "type_arguments" | "type_parameters" | "bracketed_type" | "for_lifetimes")
}

/// Named nodes that are words, literals or comments.
fn leaf(place: &Place<'_>) -> Option<Is> {
    let node = place.node;
    Some(match node.kind() {
        "mutable_specifier" => Is::Mut,
        "visibility_modifier" => Is::Pub,
        "self" => Is::SelfValue,
        "crate" | "super" => Is::Crate,
        "lifetime" => Is::Lifetime,
        "primitive_type" => Is::Primitive,
        "string_literal" => Is::Text,
        "raw_string_literal" => Is::RawText,
        "escape_sequence" => Is::Escape,
        "char_literal" => Is::Character,
        "integer_literal" => Is::Integer,
        "float_literal" => Is::Float,
        "boolean_literal" => Is::Boolean,
        "line_comment" | "block_comment" => {
            let text = place.text_of(node);
            let is_doc = ["///", "//!", "/**", "/*!"].iter().any(|sign| text.starts_with(sign));
            // Four slashes, and a star alone, are none.
            let is_plain = ["////", "/***", "/**/"].iter().any(|sign| text.starts_with(sign));
            if is_doc && !is_plain { Is::Doc } else { Is::Comment }
        }
        _ => return None,
    })
}

/// Identifiers, by what they name.
fn name(place: &Place<'_>) -> Option<Is> {
    let (parent, field) = (place.kind_above(0), place.field);
    let is_name = field == Some("name");
    match place.node.kind() {
        "type_identifier" if place.text_of(place.node) == "Self" => Some(Is::SelfType),
        "type_identifier" if is_name => Some(match parent {
            "struct_item" | "enum_item" | "union_item" | "trait_item" | "type_item"
            | "associated_type" => Is::TypeName,
            "type_parameter" => Is::TypeParameterName,
            _ => Is::TypeUse,
        }),
        // Declared without bounds in older grammars.
        "type_identifier" if parent == "type_parameters" => Some(Is::TypeParameterName),
        "type_identifier" => Some(Is::TypeUse),
        "field_identifier" => match parent {
            "field_declaration" => Some(Is::FieldName),
            "field_expression" if is_called(place) => Some(Is::MethodCall),
            "field_expression" => Some(Is::FieldAccess),
            "field_initializer" => Some(Is::InitializedField),
            _ => None,
        },
        // `x` in the pattern `P { x }`.
        "shorthand_field_identifier" => bound(place),
        "identifier" => match place.text_of(place.node) {
            "Self" => Some(Is::SelfType),
            // The grammar has names where macros are called with these words.
            word if parent.starts_with("token_") => keyword(word),
            _ => identifier(place, parent, is_name),
        },
        _ => None,
    }
}

/// Whether the node that this one is the last name of is called.
fn is_called(place: &Place<'_>) -> bool {
    let Some(whole) = place.at(0) else { return false };
    let holder = place.kind_above(1);
    let is_function = whole.field == Some("function");
    is_function
        && (holder == "call_expression"
            // With a turbofish.
            || (holder == "generic_function" && place.kind_above(2) == "call_expression"))
}

fn identifier(place: &Place<'_>, parent: &str, is_name: bool) -> Option<Is> {
    Some(match parent {
        "function_item" | "function_signature_item" if is_name => Is::FunctionName,
        "enum_variant" if is_name => Is::VariantName,
        "mod_item" if is_name => Is::ModuleName,
        "const_item" | "static_item" if is_name => Is::ConstantName,
        "const_parameter" if is_name => Is::TypeParameterName,
        "macro_invocation" => Is::MacroCall,
        "shorthand_field_initializer" => Is::InitializedField,
        "closure_parameters" => Is::ParameterName,
        "call_expression" if place.field == Some("function") => Is::FunctionCall,
        "generic_function"
            if place.field == Some("function") && place.kind_above(1) == "call_expression" =>
        {
            Is::FunctionCall
        }
        "scoped_identifier" if is_name && is_called(place) => Is::FunctionCall,
        "scoped_identifier" | "scoped_type_identifier" if is_before_others(place) => {
            Is::PathSegment
        }
        "scoped_use_list" | "use_wildcard" => Is::PathSegment,
        // A macro of a path, `std::println!`; a name of a path otherwise.
        "scoped_identifier" if place.kind_above(1) == "macro_invocation" => Is::MacroCall,
        "label"
        | "lifetime"
        | "metavariable"
        | "attribute"
        | "macro_definition"
        | "extern_crate_declaration" => return None,
        _ if within(place, &["use_declaration", "attribute_item", "inner_attribute_item"]) => {
            return None;
        }
        _ => bound(place).unwrap_or(Is::Variable),
    })
}

/// Whether a name of a path stands before `::`: the first, and all but the last of those after it.
fn is_before_others(place: &Place<'_>) -> bool {
    let path = Some("path");
    place.field == path || place.at(0).is_some_and(|whole| whole.field == path)
}

/// What binds a name of a pattern.
fn bound(place: &Place<'_>) -> Option<Is> {
    // A constant or a variant, as `None`, that is compared with.
    if place.text_of(place.node).starts_with(char::is_uppercase) {
        return None;
    }
    let is_pattern = |kind: &str| kind.ends_with("_pattern") && kind != "match_pattern";
    let mut levels = 0;
    let mut field = place.field;
    while let Some(above) = place.at(levels).filter(|above| is_pattern(above.node.kind())) {
        // The name of a variant or struct that is taken apart is none that is bound.
        if field == Some("type") {
            return None;
        }
        field = above.field;
        levels += 1;
    }
    let is_bound = field == Some("pattern");
    match place.kind_above(levels) {
        "parameter" if is_bound => Some(Is::ParameterName),
        "closure_parameters" => Some(Is::ParameterName),
        "let_declaration" if is_bound => Some(Is::LetName),
        "let_condition" | "for_expression" if is_bound => Some(Is::PatternName),
        "match_pattern" if field != Some("condition") => Some(Is::PatternName),
        _ => None,
    }
}

fn within(place: &Place<'_>, kinds: &[&str]) -> bool {
    place.above.iter().any(|above| kinds.contains(&above.node.kind()))
}

/// Whether what a parent calls its type is what a pattern takes apart, a turbofish, or a fragment of a macro.
fn is_taken_apart(place: &Place<'_>) -> bool {
    let parent = place.kind_above(0);
    parent.ends_with("_pattern")
        || parent == "generic_type_with_turbofish"
        || (parent == "generic_type" && place.kind_above(1) == "scoped_identifier")
}

/// What all that lies in a node lies in.
fn context(place: &Place<'_>, add: &mut impl FnMut(Is)) {
    let node = place.node;
    let kind = node.kind();
    match place.field {
        Some("type") if !is_taken_apart(place) => add(Is::InType),
        Some("return_type") => {
            add(Is::InType);
            add(Is::InReturnType);
        }
        Some("condition")
            if matches!(place.kind_above(0), "if_expression" | "while_expression") =>
        {
            add(Is::InCondition);
        }
        Some("body") if place.kind_above(0) == "function_item" => add(Is::InFunction),
        _ => {}
    }
    let is = match kind {
        "attribute_item" | "inner_attribute_item" => {
            if place.text_of(node).contains("derive(") {
                add(Is::InDerive);
            }
            Some(Is::InAttribute)
        }
        "use_declaration" => Some(Is::InUse),
        "type_arguments" => Some(Is::InGenericArguments),
        "type_parameters" => Some(Is::InGenericParameters),
        "trait_bounds" => Some(Is::InBounds),
        "where_clause" => Some(Is::InWhere),
        "parameters" => Some(Is::InParameters),
        "arguments" => Some(Is::InArguments),
        "closure_expression" => Some(Is::InClosure),
        "match_arm" => Some(Is::InMatchArm),
        "match_pattern" => Some(Is::InMatchPattern),
        "else_clause" => Some(Is::InElse),
        "for_expression" | "while_expression" | "loop_expression" => Some(Is::InLoop),
        "token_tree" if place.kind_above(0) == "macro_invocation" => Some(Is::InMacroCall),
        "macro_definition" => Some(Is::InMacroDefinition),
        "unsafe_block" => Some(Is::InUnsafe),
        "function_item" if has_modifier(node, place, "unsafe") => Some(Is::InUnsafe),
        "struct_item" => Some(Is::InStruct),
        "enum_item" => Some(Is::InEnum),
        "trait_item" => Some(Is::InTrait),
        "impl_item" if node.child_by_field_name("trait").is_some() => Some(Is::InTraitImpl),
        "impl_item" => Some(Is::InOwnImpl),
        "field_initializer_list" => Some(Is::InStructValue),
        "const_item" | "static_item" => Some(Is::InConstant),
        _ => None,
    };
    if let Some(is) = is {
        add(is);
    }
    if matches!(kind, "function_item" | "mod_item") && is_test(node, place) {
        add(Is::InTest);
    }
    if is_braced(node, place) {
        let around = place.above.iter().filter(|above| is_braced(above.node, place)).count();
        if let Some(depth) = DEPTHS.get(around) {
            add(*depth);
        }
    }
}

fn has_modifier(node: Node<'_>, place: &Place<'_>, word: &str) -> bool {
    let mut cursor = node.walk();
    let is_own = |child: &Node<'_>| child.kind() == "function_modifiers";
    let found = node.children(&mut cursor).find(is_own);
    found
        .is_some_and(|modifiers| place.text_of(modifiers).split_whitespace().any(|own| own == word))
}

/// Whether the attributes before an item make it one of tests.
fn is_test(node: Node<'_>, place: &Place<'_>) -> bool {
    let mut before = node.prev_named_sibling();
    while let Some(own) = before {
        let text = place.text_of(own);
        match own.kind() {
            "attribute_item" if is_of_tests(text) => return true,
            "attribute_item" | "line_comment" | "block_comment" => {}
            _ => return false,
        }
        before = own.prev_named_sibling();
    }
    false
}

/// Whether an attribute makes an item one of tests: `#[test]`, `#[tokio::test(…)]`, `#[cfg(test)]`, `#[cfg(all(test, …))]`.
fn is_of_tests(attribute: &str) -> bool {
    let inside = attribute.trim_start_matches("#[").trim_end_matches(']');
    let (name, arguments) = inside.split_once('(').unwrap_or((inside, ""));
    let name = name.trim();
    if name == "cfg" {
        let mut words = arguments.split(|c: char| !c.is_alphanumeric() && c != '_');
        return !arguments.contains("not(test") && words.any(|word| word == "test");
    }
    name == "test" || name.ends_with("::test")
}

/// Whether a node is between braces.
fn is_braced(node: Node<'_>, place: &Place<'_>) -> bool {
    match node.kind() {
        "block"
        | "declaration_list"
        | "field_declaration_list"
        | "enum_variant_list"
        | "match_block"
        | "field_initializer_list"
        | "use_list"
        | "struct_pattern"
        | "macro_definition" => true,
        "token_tree" => place.text_of(node).starts_with('{'),
        _ => false,
    }
}

#[cfg(test)]
mod tests;

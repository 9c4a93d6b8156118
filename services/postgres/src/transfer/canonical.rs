//! Definitions in a form in which those are equal that mean the same.
//!
//! A server prints an expression from its parsed form, and what it prints is not always parsed into the same form again:
//! `x IN ('a', 'b')` on a varchar has its casts elsewhere after one round trip, and stays as it is after that.

use std::collections::BTreeSet;

use super::lexer::{Token, tokens};

/// Without white space, parentheses and casts. Names and texts stay as they are.
pub(super) fn canonical(sql: &str) -> String {
    let tokens: Vec<_> = tokens(sql).filter(|token| !matches!(token, Token::Space(_))).collect();
    let mut text = String::with_capacity(sql.len());
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token {
            Token::Sign("::") => at += length_of_type(&tokens[at..]),
            Token::Sign("(" | ")") => {}
            token => {
                text.push_str(token.as_str());
                text.push(' ');
            }
        }
    }
    text
}

/// The lines of a table's definition in any order: where tables inherit, a copy has columns that both define first.
pub(super) fn lines(sql: &str) -> BTreeSet<String> {
    sql.lines().map(|line| canonical(line.trim().trim_end_matches(','))).collect()
}

/// Words of the types that have several.
const SECOND: [(&str, &str); 6] = [
    ("character", "varying"),
    ("bit", "varying"),
    ("double", "precision"),
    ("national", "character"),
    ("timestamp", ""),
    ("time", ""),
];

/// How many tokens a type's name takes: `character varying(3)[]`, `public."my type"`, `timestamp(3) with time zone`.
fn length_of_type(tokens: &[Token<'_>]) -> usize {
    let word = |at: usize| match tokens.get(at) {
        Some(Token::Word(word)) => *word,
        _ => "",
    };
    let sign = |at: usize| matches!(tokens.get(at), Some(Token::Sign(_))).then(|| tokens[at].as_str());
    let mut at = 1;
    while sign(at) == Some(".") {
        at += 2;
    }
    if SECOND.contains(&(word(0), word(1))) && !word(1).is_empty() {
        at = 2;
    }
    if sign(at) == Some("(") {
        at += tokens[at..].iter().take_while(|token| **token != Token::Sign(")")).count() + 1;
    }
    let timed =
        matches!(word(0), "timestamp" | "time") && matches!(word(at), "with" | "without") && word(at + 1) == "time";
    if timed {
        at += 3;
    }
    while sign(at) == Some("[") {
        at += tokens[at..].iter().take_while(|token| **token != Token::Sign("]")).count() + 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn casts_and_parentheses_do_not_matter() {
        let first = "CHECK (((state)::text = ANY ((ARRAY['a'::character varying, 'b'::character varying])::text[])))";
        let second =
            "CHECK (((state)::text = ANY (ARRAY[('a'::character varying)::text, ('b'::character varying)::text])))";
        assert_eq!(canonical(first), canonical(second));
        for (cast, plain) in [
            ("a::timestamp(3) without time zone + b", "a + b"),
            ("(a)::numeric(10,2) + b", "a + b"),
            ("a::public.\"my type\"[][] + b", "a + b"),
            ("a::\"char\" + b::bit varying(3) + c::time with time zone", "a + b + c"),
            ("a::double precision", "a"),
        ] {
            assert_eq!(canonical(cast), canonical(plain), "{cast}");
        }
    }

    #[test]
    fn all_else_matters() {
        for (one, other) in [
            ("x > 1", "x > 2"),
            ("'(a)'::text", "'a'::text"),
            ("\"a b\"", "\"ab\""),
            ("ab", "a b"),
            ("$$ (1) $$", "$$ 1 $$"),
            ("timestamp", "timestamp with time zone"),
        ] {
            assert_ne!(canonical(one), canonical(other), "{one}");
        }
    }
}

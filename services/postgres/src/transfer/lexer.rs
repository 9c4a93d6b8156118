//! SQL as `pg_dump` writes it, in tokens: enough to tell names and texts from the words around them.

/// A piece of SQL; together they are all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A keyword, a plain name or a number.
    Word(&'a str),
    /// `"name"`, with its quotes.
    Name(&'a str),
    /// `'text'`, `E'text'` or `$$text$$`, with its quotes.
    Text(&'a str),
    /// White space, and comments.
    Space(&'a str),
    /// Any other character; `::` is one.
    Sign(&'a str),
}

impl<'a> Token<'a> {
    pub(super) fn as_str(self) -> &'a str {
        match self {
            Self::Word(text) | Self::Name(text) | Self::Text(text) | Self::Space(text) | Self::Sign(text) => text,
        }
    }
}

/// Never fails: what is not closed goes on to the end.
pub(super) fn tokens(sql: &str) -> impl Iterator<Item = Token<'_>> {
    let mut rest = sql;
    std::iter::from_fn(move || {
        let token = next(rest)?;
        rest = &rest[token.as_str().len()..];
        Some(token)
    })
}

fn next(sql: &str) -> Option<Token<'_>> {
    let first = sql.chars().next()?;
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$' || !c.is_ascii();
    let while_ = |test: &dyn Fn(char) -> bool| &sql[..sql.find(|c| !test(c)).unwrap_or(sql.len())];
    Some(match first {
        c if c.is_whitespace() => Token::Space(while_(&char::is_whitespace)),
        '"' => Token::Name(quoted(sql, 1, '"', false)),
        '\'' => Token::Text(quoted(sql, 1, '\'', false)),
        'E' | 'e' if sql[1..].starts_with('\'') => Token::Text(quoted(sql, 2, '\'', true)),
        '$' => match dollar_quoted(sql) {
            Some(text) => Token::Text(text),
            None => Token::Sign(&sql[..1]),
        },
        '-' if sql.starts_with("--") => Token::Space(&sql[..sql.find('\n').unwrap_or(sql.len())]),
        ':' if sql.starts_with("::") => Token::Sign(&sql[..2]),
        c if is_word(c) => Token::Word(while_(&is_word)),
        c => Token::Sign(&sql[..c.len_utf8()]),
    })
}

/// Up to the closing quote; doubled ones are part of the text.
fn quoted(sql: &str, begin: usize, quote: char, escapes: bool) -> &str {
    let mut chars = sql[begin..].char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if escapes && c == '\\' {
            chars.next();
        } else if c == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            return &sql[..begin + at + quote.len_utf8()];
        }
    }
    sql
}

fn dollar_quoted(sql: &str) -> Option<&str> {
    let tag_end = sql[1..].find('$')? + 2;
    let tag = &sql[..tag_end];
    let name = &tag[1..tag_end - 1];
    let is_tag =
        name.chars().all(|c| c.is_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit());
    let length = sql[tag_end..].find(tag).map_or(sql.len(), |at| at + 2 * tag_end);
    is_tag.then(|| &sql[..length])
}

/// `"a""b"` as `a"b`.
pub(super) fn unquoted(name: &str) -> String {
    match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(name) => name.replace("\"\"", "\""),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_end_where_they_end() {
        let sql = r#"GRANT x(a) ON "a;""b" TO 'it''s' E'\'' $f$ ; $$ $f$ -- "c
 ::int $1"#;
        let all: Vec<_> = tokens(sql).collect();
        assert_eq!(all.iter().map(|token| token.as_str()).collect::<String>(), sql);
        let quoted: Vec<_> = all.into_iter().filter(|token| matches!(token, Token::Name(_) | Token::Text(_))).collect();
        let expected =
            [Token::Name("\"a;\"\"b\""), Token::Text("'it''s'"), Token::Text("E'\\''"), Token::Text("$f$ ; $$ $f$")];
        assert_eq!(quoted, expected);
        assert_eq!(unquoted("\"a;\"\"b\""), "a;\"b");
    }

    #[test]
    fn what_is_not_closed_goes_on_to_the_end() {
        for sql in ["'", "\"a", "E'\\", "$a$ b", "$", "-- x", "ü'ü"] {
            assert_eq!(tokens(sql).map(Token::as_str).collect::<String>(), sql);
        }
    }
}

//! What an unquoted word means. Helm reads values.yaml by YAML 1.1, where `on` and `yes` are booleans; newer parsers take
//! them as text. A word that the two read differently is not accepted where text is wanted.

/// The type of a scalar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Text, or quoted.
    Text,
    /// `null`, `~` or nothing.
    Null,
    /// A boolean of YAML 1.1 or 1.2.
    Boolean,
    /// A number of YAML 1.1 or 1.2.
    Number,
    /// With a tag other than `!!str`.
    Tagged,
}

impl Kind {
    /// With its article.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Null => "null",
            Self::Boolean => "a boolean",
            Self::Number => "a number",
            Self::Tagged => "a tagged value",
        }
    }
}

/// The type of a plain (unquoted, untagged) scalar.
pub(crate) fn plain_kind(text: &str) -> Kind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Kind::Null,
        ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN" => return Kind::Number,
        _ => {}
    }
    if is_boolean(text) {
        return Kind::Boolean;
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if is_integer(unsigned) || is_float(unsigned) || matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return Kind::Number;
    }
    Kind::Text
}

fn is_boolean(text: &str) -> bool {
    const WORDS: [&str; 8] = ["y", "n", "yes", "no", "on", "off", "true", "false"];
    // `yes`, `Yes` and `YES`, not `yEs`.
    let mut chars = text.chars();
    let Some(first) = chars.next() else { return false };
    let rest = chars.as_str();
    let one_case = rest.bytes().all(|b| b.is_ascii_lowercase())
        || (first.is_ascii_uppercase() && rest.bytes().all(|b| b.is_ascii_uppercase()));
    one_case && WORDS.iter().any(|word| word.eq_ignore_ascii_case(text))
}

fn is_integer(text: &str) -> bool {
    let digits = |text: &str, radix: u32| {
        text.chars().any(|c| c.is_digit(radix)) && text.chars().all(|c| c == '_' || c.is_digit(radix))
    };
    match text.as_bytes() {
        [b'0', b'x', ..] => digits(&text[2..], 16),
        [b'0', b'o', ..] => digits(&text[2..], 8),
        [b'0', b'b', ..] => digits(&text[2..], 2),
        [first, ..] => first.is_ascii_digit() && digits(text, 10),
        [] => false,
    }
}

fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let exponent = exponent.map(|e| e.strip_prefix(['-', '+']).unwrap_or(e));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    mantissa.bytes().any(|b| b.is_ascii_digit())
        && !mantissa.starts_with('_')
        && digits(whole)
        && digits(fraction)
        && exponent.is_none_or(|e| !e.is_empty() && e.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_yaml_1_1_reads_otherwise_are_not_text() {
        for text in ["y", "No", "ON", "off", "true", "FALSE"] {
            assert_eq!(plain_kind(text), Kind::Boolean, "{text}");
        }
        for text in ["", "~", "null", "NULL"] {
            assert_eq!(plain_kind(text), Kind::Null, "{text}");
        }
        let numbers =
            ["0", "12", "-3", "+4", "1_000", "0x1f", "0o17", "0b1", "1.5", ".5", "1.", "1e3", "-1.5E-3", ".inf"];
        for text in numbers {
            assert_eq!(plain_kind(text), Kind::Number, "{text}");
        }
        for text in ["my-db", "yEs", "yesterday", "1.2.3", "0.5.0", "e3", "1e", "_1", "-", "+", ".", "v2", "0x", "a1"] {
            assert_eq!(plain_kind(text), Kind::Text, "{text}");
        }
    }
}

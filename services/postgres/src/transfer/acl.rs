//! Statements of an archive that name roles, one by one, with the names that those have in the copy.

use std::collections::BTreeMap;

use super::lexer::{Token, tokens, unquoted};
use crate::sql::ident;

/// Which role is which in the copy. A role that is not named is itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoleMap(BTreeMap<String, String>);

impl RoleMap {
    /// `from` in the source is `to` in the copy.
    #[must_use]
    pub fn new(roles: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(roles.into_iter().collect())
    }

    pub(super) fn map<'a>(&'a self, role: &'a str) -> &'a str {
        self.0.get(role).map_or(role, String::as_str)
    }
}

/// The statements of a text that has only such. Who granted is not kept: it is the owner.
pub(super) fn statements(definition: &str, roles: &RoleMap) -> Vec<String> {
    let mut all = Vec::new();
    let mut statement = Vec::new();
    for token in tokens(definition) {
        if token == Token::Sign(";") {
            all.push(std::mem::take(&mut statement));
        } else {
            statement.push(token);
        }
    }
    all.push(statement);
    let is_kept =
        |statement: &&Vec<Token<'_>>| matches!(words(statement).next(), Some("GRANT" | "REVOKE" | "ALTER" | "CREATE"));
    all.iter().filter(is_kept).map(|statement| with_roles(statement, roles)).collect()
}

/// The role that a statement gives to or takes from; none: `PUBLIC`, or no such statement.
pub(super) fn grantee(statement: &str) -> Option<String> {
    let tokens: Vec<_> = tokens(statement).collect();
    let at = *role_positions(&tokens).last()?;
    (tokens[at] != Token::Word("PUBLIC")).then(|| unquoted(tokens[at].as_str()))
}

/// `public` of `CREATE EXTENSION IF NOT EXISTS hstore WITH SCHEMA public;`.
pub(super) fn schema_of_extension(definition: &str) -> Option<String> {
    let mut solid = tokens(definition).filter(|token| !matches!(token, Token::Space(_)));
    solid.find(|token| *token == Token::Word("SCHEMA"))?;
    solid.next().map(|token| unquoted(token.as_str()))
}

fn words<'a>(statement: &[Token<'a>]) -> impl Iterator<Item = &'a str> {
    statement.iter().filter_map(|token| match token {
        Token::Word(word) => Some(*word),
        _ => None,
    })
}

fn with_roles(statement: &[Token<'_>], roles: &RoleMap) -> String {
    let positions = role_positions(statement);
    let text = |(at, token): (usize, &Token<'_>)| match token {
        Token::Word("PUBLIC") => "PUBLIC".to_owned(),
        token if positions.contains(&at) => ident(roles.map(&unquoted(token.as_str()))),
        token => token.as_str().to_owned(),
    };
    let text: String = statement.iter().enumerate().map(text).collect();
    text.trim().to_owned()
}

/// After `TO` and `FROM`, and after `FOR ROLE`. All of these words are reserved or stand where no name can be.
fn role_positions(statement: &[Token<'_>]) -> Vec<usize> {
    let solid: Vec<_> = statement.iter().enumerate().filter(|(_, token)| !matches!(token, Token::Space(_))).collect();
    let is_role = |index: usize| matches!(solid.get(index), Some((_, Token::Word(_) | Token::Name(_))));
    let (mut positions, mut depth) = (Vec::new(), 0_usize);
    for (index, (_, token)) in solid.iter().enumerate() {
        match token {
            Token::Sign("(") => depth += 1,
            Token::Sign(")") => depth = depth.saturating_sub(1),
            Token::Word("TO" | "FROM") if depth == 0 => {
                // Several have commas between them.
                let lone = |at: &usize| *at == index + 1 || matches!(solid[at - 1].1, Token::Sign(","));
                let roles = (index + 1..).step_by(2).take_while(|at| is_role(*at) && lone(at));
                positions.extend(roles.map(|at| solid[at].0));
            }
            _ => {}
        }
    }
    // ALTER DEFAULT PRIVILEGES FOR ROLE x
    if matches!(solid[..], [(_, Token::Word("ALTER")), (_, Token::Word("DEFAULT")), ..]) && is_role(5) {
        positions.insert(0, solid[5].0);
    }
    positions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles() -> RoleMap {
        RoleMap::new([("shop-orders-read".into(), "shop-old-read".into()), ("reader".into(), "other \"reader".into())])
    }

    #[test]
    fn roles_have_their_new_names_and_nothing_else_has() {
        let definition = r#"GRANT SELECT ON TABLE public."shop-orders-read" TO "shop-orders-read";
SET SESSION AUTHORIZATION "x;";
GRANT SELECT(reader,b) ON TABLE public.reader TO reader WITH GRANT OPTION;
RESET SESSION AUTHORIZATION;
REVOKE ALL ON FUNCTION public."a TO b"(integer) FROM PUBLIC;
"#;
        assert_eq!(
            statements(definition, &roles()),
            [
                r#"GRANT SELECT ON TABLE public."shop-orders-read" TO "shop-old-read""#,
                r#"GRANT SELECT(reader,b) ON TABLE public.reader TO "other ""reader" WITH GRANT OPTION"#,
                r#"REVOKE ALL ON FUNCTION public."a TO b"(integer) FROM PUBLIC"#,
            ]
        );
    }

    #[test]
    fn a_policy_names_several() {
        let definition = r#"CREATE POLICY "TO" ON public.x AS RESTRICTIVE FOR SELECT TO "shop-orders-read", reader USING ((EXTRACT(year FROM reader) > 1));"#;
        assert_eq!(
            statements(definition, &roles()),
            [
                r#"CREATE POLICY "TO" ON public.x AS RESTRICTIVE FOR SELECT TO "shop-old-read", "other ""reader" USING ((EXTRACT(year FROM reader) > 1))"#
            ]
        );
    }

    #[test]
    fn default_privileges_name_two_roles() {
        let definition = r#"ALTER DEFAULT PRIVILEGES FOR ROLE reader IN SCHEMA public GRANT SELECT ON TABLES TO "shop-orders-read";"#;
        let made = statements(definition, &roles());
        assert_eq!(
            made,
            [
                r#"ALTER DEFAULT PRIVILEGES FOR ROLE "other ""reader" IN SCHEMA public GRANT SELECT ON TABLES TO "shop-old-read""#
            ]
        );
        assert_eq!(grantee(&made[0]).as_deref(), Some("shop-old-read"));
        assert_eq!(grantee("REVOKE ALL ON SCHEMA public FROM PUBLIC"), None);
    }
}

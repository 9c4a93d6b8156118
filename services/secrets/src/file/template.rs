//! Where below its directory a credential lies.

use pgtenant_model::{CredentialTarget, InvalidField};

/// Room for a role of 63 bytes, `.json`, and what a temporary name adds, in a name of 255.
const MAX_LITERAL: usize = 100;

/// A name template in parts: directories, and the file's name without `.json`.
#[derive(Debug, Clone)]
pub(super) struct Template {
    directories: Vec<String>,
    file: String,
}

/// A template filled in. Every part is one plain file name.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) directories: Vec<String>,
    pub(super) file: String,
    /// How many of `directories` stay when they are empty: those of no namespace and role.
    pub(super) keep: usize,
}

impl Template {
    pub(super) fn new(text: &str) -> Result<Self, InvalidField> {
        let fault = |message: String| InvalidField::new("name", message);
        let mut parts: Vec<String> = text.split('/').map(ToOwned::to_owned).collect();
        for part in &parts {
            let literal = part.replace("{namespace}", "").replace("{role}", "");
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
            if part.is_empty() || part.starts_with('.') || !literal.bytes().all(plain) {
                return Err(fault(format!(
                    "{text:?} is no relative path of a-z, A-Z, 0-9, `-`, `_`, `.`, {{namespace}} and {{role}} whose parts begin with no dot"
                )));
            }
            let placeholders = part.matches('{').count();
            if literal.len() > MAX_LITERAL || placeholders > 2 {
                return Err(fault(format!(
                    "{part:?} is too long: at most {MAX_LITERAL} characters and two placeholders between slashes"
                )));
            }
        }
        if !text.contains("{role}") {
            return Err(fault(format!("{text:?} does not contain {{role}}")));
        }
        let file = parts.pop().unwrap_or_default();
        Ok(Self { directories: parts, file })
    }

    pub(super) fn fill(&self, target: &CredentialTarget) -> Place {
        let role = target.role();
        let fill = |part: &String| part.replace("{namespace}", target.key.namespace()).replace("{role}", &role);
        let literal = |part: &&String| !part.contains('{');
        Place {
            directories: self.directories.iter().map(fill).collect(),
            file: format!("{}.json", fill(&self.file)),
            keep: self.directories.iter().take_while(literal).count(),
        }
    }
}

impl Place {
    /// The directory as one path, below the store's own.
    pub(super) fn directory(&self) -> String {
        self.directories.join("/")
    }

    /// The whole as one path, below the store's own.
    pub(super) fn path(&self) -> String {
        if self.directories.is_empty() { self.file.clone() } else { format!("{}/{}", self.directory(), self.file) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgtenant_model::{ClaimKey, Tier};

    #[test]
    fn names_are_filled_in() {
        let key = ClaimKey::new("idp-dev", "my-db").unwrap();
        let target = CredentialTarget { key, tier: Tier::Read };
        for (template, path, keep) in [
            ("customer/{namespace}/{role}", "customer/idp-dev/idp-dev-my-db-read.json", 1),
            ("{role}", "idp-dev-my-db-read.json", 0),
            ("{namespace}/x/{role}.v1", "idp-dev/x/idp-dev-my-db-read.v1.json", 0),
            ("a/b/{role}/login", "a/b/idp-dev-my-db-read/login.json", 2),
        ] {
            let place = Template::new(template).unwrap().fill(&target);
            assert_eq!((place.path().as_str(), place.keep), (path, keep));
        }
    }

    #[test]
    fn nothing_leads_out_of_the_directory() {
        let long = format!("{}{{role}}", "x".repeat(101));
        for template in [
            "",
            "customer",
            "/{role}",
            "a//{role}",
            "../{role}",
            "a/../{role}",
            "./{role}",
            ".{role}",
            "{role}/",
            "a\\{role}",
            "a b/{role}",
            "{role}{name}",
            "{role}\0",
            "{role}{role}{role}",
            &long,
        ] {
            assert_eq!(Template::new(template).unwrap_err().field, "name", "{template:?}");
        }
    }
}

//! Between the versions of `PostgresqlDatabase`, without loss both ways. Pure: JSON in, JSON out.
//!
//! v1 has `mode`, v1beta1 `deletionProtection`, v1alpha1 also `roleDeletionPolicy` and `dbDeletionPolicy`. Of the eight things
//! that v1alpha1 can say, v1 knows two: whatever keeps a part makes the database protected. The other six are remembered in
//! [`POLICIES`].

use serde_json::{Map, Value, json};

/// The annotation that remembers what v1alpha1 said and v1 can not.
pub const POLICIES: &str = "pgtenant.io/v1alpha1-policies";

const PROTECTION: &str = "deletionProtection";
const ROLES: &str = "roleDeletionPolicy";
const DATABASE: &str = "dbDeletionPolicy";

/// An object that can not be converted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// It has no version that is known.
    #[error("apiVersion {0:?} is none of pgtenant.io/v1, pgtenant.io/v1beta1 and pgtenant.io/v1alpha1")]
    Version(String),
    /// A field has a value of another kind.
    #[error("{field}: {value} can not be converted")]
    Field {
        /// The field's path.
        field: &'static str,
        /// Its value.
        value: Value,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V1beta1,
    V1alpha1,
}

impl Version {
    fn of(api_version: &str) -> Result<Self, ConvertError> {
        match api_version {
            "pgtenant.io/v1" => Ok(Self::V1),
            "pgtenant.io/v1beta1" => Ok(Self::V1beta1),
            "pgtenant.io/v1alpha1" => Ok(Self::V1alpha1),
            other => Err(ConvertError::Version(other.to_owned())),
        }
    }
}

/// What v1alpha1 says of removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Policies {
    protection: bool,
    keep_roles: bool,
    keep_database: bool,
}

impl Policies {
    /// What a mode means there.
    fn of_mode(protected: bool) -> Self {
        Self { protection: protected, keep_roles: protected, keep_database: protected }
    }

    /// Whatever keeps a part keeps all: nothing is lost by a conversion.
    fn is_protected(self) -> bool {
        self.protection || self.keep_roles || self.keep_database
    }

    fn to_text(self) -> String {
        let policy = |keep| if keep { "Orphan" } else { "Delete" };
        json!({PROTECTION: self.protection, ROLES: policy(self.keep_roles), DATABASE: policy(self.keep_database)})
            .to_string()
    }

    fn from_text(text: &str) -> Option<Self> {
        Self::take(serde_json::from_str::<Value>(text).ok()?.as_object_mut()?).ok()
    }

    /// Takes the fields out of a spec; one that is absent has the schema's default.
    fn take(spec: &mut Map<String, Value>) -> Result<Self, ConvertError> {
        Ok(Self {
            protection: take_bool(spec, PROTECTION)?,
            keep_roles: take_policy(spec, ROLES)?,
            keep_database: take_policy(spec, DATABASE)?,
        })
    }

    fn put(self, spec: &mut Map<String, Value>) {
        let policy = |keep| Value::from(if keep { "Orphan" } else { "Delete" });
        spec.insert(PROTECTION.to_owned(), Value::from(self.protection));
        spec.insert(ROLES.to_owned(), policy(self.keep_roles));
        spec.insert(DATABASE.to_owned(), policy(self.keep_database));
    }
}

/// The object in version `desired`, as `pgtenant.io/v1`. Only `apiVersion`, the fields that differ, and the annotation
/// [`POLICIES`] change.
///
/// # Errors
/// A version that is not known, or a field that is not of its kind.
pub fn convert(mut object: Value, desired: &str) -> Result<Value, ConvertError> {
    let from = Version::of(object["apiVersion"].as_str().unwrap_or_default())?;
    let to = Version::of(desired)?;
    if from == to {
        return Ok(object);
    }
    let remembered = object["metadata"]["annotations"][POLICIES].as_str().and_then(Policies::from_text);
    if let Some(spec) = object["spec"].as_object_mut() {
        let policies = read(from, spec, remembered)?;
        write(to, spec, policies);
        annotate(&mut object["metadata"], from, to, policies);
    }
    object["apiVersion"] = Value::from(desired);
    Ok(object)
}

/// What an object of version `from` says; v1 and v1beta1 speak for themselves, and their annotation only where it agrees.
fn read(from: Version, spec: &mut Map<String, Value>, remembered: Option<Policies>) -> Result<Policies, ConvertError> {
    let protected = match from {
        Version::V1alpha1 => return Policies::take(spec),
        Version::V1beta1 => take_bool(spec, PROTECTION)?,
        Version::V1 => match spec.remove("mode") {
            None => false,
            Some(Value::String(mode)) if mode == "standard" => false,
            Some(Value::String(mode)) if mode == "protected" => true,
            Some(value) => return Err(ConvertError::Field { field: "spec.mode", value }),
        },
    };
    let agrees = remembered.filter(|policies| policies.is_protected() == protected);
    Ok(agrees.unwrap_or_else(|| Policies::of_mode(protected)))
}

fn write(to: Version, spec: &mut Map<String, Value>, policies: Policies) {
    let protected = policies.is_protected();
    match to {
        Version::V1alpha1 => policies.put(spec),
        Version::V1beta1 => _ = spec.insert(PROTECTION.to_owned(), Value::from(protected)),
        Version::V1 => {
            _ = spec.insert("mode".to_owned(), Value::from(if protected { "protected" } else { "standard" }))
        }
    }
}

/// v1alpha1 says by itself what the others have to remember.
fn annotate(metadata: &mut Value, from: Version, to: Version, policies: Policies) {
    let canonical = policies == Policies::of_mode(policies.is_protected());
    let Some(metadata) = metadata.as_object_mut() else { return };
    let is_annotated = metadata.get("annotations").is_some_and(|all| all.get(POLICIES).is_some());
    // One that is left over would speak for what it says no more.
    if from == Version::V1alpha1 && (!canonical || is_annotated) {
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(POLICIES.to_owned(), Value::from(policies.to_text()));
        }
    } else if to == Version::V1alpha1
        && !canonical
        && let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut)
    {
        annotations.remove(POLICIES);
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
}

fn take_bool(spec: &mut Map<String, Value>, field: &'static str) -> Result<bool, ConvertError> {
    match spec.remove(field) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(value),
        Some(value) => Err(ConvertError::Field { field, value }),
    }
}

fn take_policy(spec: &mut Map<String, Value>, field: &'static str) -> Result<bool, ConvertError> {
    match spec.remove(field) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::String(value)) if value == "Orphan" => Ok(true),
        Some(Value::String(value)) if value == "Delete" => Ok(false),
        Some(value) => Err(ConvertError::Field { field, value }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn object(version: &str, spec: Value) -> Value {
        json!({
            "apiVersion": format!("pgtenant.io/{version}"), "kind": "PostgresqlDatabase",
            "metadata": {"name": "my-db", "annotations": {"team": "a"}}, "spec": spec, "status": {"state": "Ready"},
        })
    }

    fn any_object() -> impl Strategy<Value = Value> {
        let policy = prop::sample::select(vec!["Orphan", "Delete"]);
        let alpha = (any::<bool>(), policy.clone(), policy).prop_map(|(protection, roles, database)| {
            object("v1alpha1", json!({PROTECTION: protection, ROLES: roles, DATABASE: database, "cluster": "c"}))
        });
        let beta = any::<bool>()
            .prop_map(|on| object("v1beta1", json!({PROTECTION: on, "schemas": ["x"], "slackChannel": "#a"})));
        let mode = prop::sample::select(vec!["standard", "protected"]);
        prop_oneof![alpha, beta, mode.prop_map(|mode| object("v1", json!({"mode": mode, "connectionLimit": 3})))]
    }

    proptest! {
        #[test]
        fn there_and_back_is_the_same(
            object in any_object(),
            way in prop::collection::vec(prop::sample::select(vec!["v1", "v1beta1", "v1alpha1"]), 1..5),
        ) {
            let mut travelled = object.clone();
            for version in way {
                travelled = convert(travelled, &format!("pgtenant.io/{version}")).unwrap();
            }
            prop_assert_eq!(convert(travelled, object["apiVersion"].as_str().unwrap()).unwrap(), object);
        }

        #[test]
        fn nothing_that_was_kept_is_dropped(object in any_object()) {
            let spec = object["spec"].clone();
            let keeps = spec[PROTECTION] == true || spec[ROLES] == "Orphan" || spec[DATABASE] == "Orphan"
                || spec["mode"] == "protected";
            let converted = convert(object, "pgtenant.io/v1").unwrap();
            prop_assert_eq!(converted["spec"]["mode"] == "protected", keeps);
        }
    }

    #[test]
    fn a_mode_that_was_changed_since_wins_over_what_is_remembered() {
        let alpha = object("v1alpha1", json!({PROTECTION: false, ROLES: "Orphan", DATABASE: "Delete"}));
        let mut stored = convert(alpha.clone(), "pgtenant.io/v1").unwrap();
        assert_eq!(stored["spec"], json!({"mode": "protected"}));
        assert!(stored["metadata"]["annotations"][POLICIES].as_str().unwrap().contains("Orphan"));
        assert_eq!(convert(stored.clone(), "pgtenant.io/v1alpha1").unwrap(), alpha);

        stored["spec"]["mode"] = json!("standard");
        let back = convert(stored, "pgtenant.io/v1alpha1").unwrap();
        assert_eq!(back["spec"], json!({PROTECTION: false, ROLES: "Delete", DATABASE: "Delete"}));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let v1 = object("v1", json!({"mode": "standard"}));
        assert!(matches!(convert(v1.clone(), "pgtenant.io/v2"), Err(ConvertError::Version(_))));
        assert!(matches!(convert(v1, "example.com/v1"), Err(ConvertError::Version(_))));
        let odd = object("v1", json!({"mode": 1}));
        assert!(matches!(convert(odd, "pgtenant.io/v1beta1"), Err(ConvertError::Field { .. })));
        assert!(convert(json!([]), "pgtenant.io/v1").is_err() && convert(json!(null), "pgtenant.io/v1").is_err());
    }
}

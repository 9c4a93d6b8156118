//! Rules of the API server that every version of `PostgresqlDatabase` has: each version is checked by its own alone.

use kube::core::Rule;

/// What a claim's name is made of.
pub(super) fn label() -> Rule {
    Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must be a DNS label: a-z, 0-9 and hyphens, with a letter or digit first and last")
}

/// A rule can not see the namespace: how long both are together is checked by the webhook.
pub(super) fn length() -> Rule {
    Rule::new("size(self.metadata.name) <= 53")
        .message("metadata.name has more than 53 bytes; {namespace}-{name} names the database, and has at most 55")
}

/// A wish that was refused, as for a cluster that is not there, can be put right.
pub(super) fn cluster_stays() -> Rule {
    Rule::new("!has(self.status) || !has(self.status.database) || self.spec.cluster == oldSelf.spec.cluster")
        .message("can not be changed any more; make another database on the other cluster and copy the data")
        .field_path(".spec.cluster")
}

/// PostgreSQL's own names.
pub(super) fn schemas() -> Rule {
    Rule::new("self.all(s, s != 'public' && s != 'information_schema' && !s.startsWith('pg_'))")
        .message("public is always there; information_schema and pg_… are PostgreSQL's own")
}

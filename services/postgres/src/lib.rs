//! A tenant cluster in SQL: observe, plan, apply. The only place with dynamic DDL.
//!
//! [`plan()`] is a pure function of what is wished ([`Desired`]) and what is there ([`Observed`]); what it says is what is
//! [applied](apply()), printed on a pull request, and called drift when it is not empty.
//!
//! ```no_run
//! # use pgtenant_model::Tier;
//! # use pgtenant_postgres::*;
//! # async fn example(
//! #     server: Server, mut desired: Desired, admin_password: secrecy::SecretString, fence: &dyn Fence
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! let key = desired.key.clone();
//! let (database, admin) = (desired.database.clone(), key.role(Tier::Admin));
//! let mut session = server.maintenance().await?;
//! let mut observed = observe(&server, &mut session, &key, &database, &desired.extensions).await?;
//! let mut made = plan(&desired, &observed)?;
//! if !made.roles_without_password().is_empty() {
//!     // Roles that are to be made: store their passwords first, then plan with them.
//!     desired.passwords.insert(Tier::Admin, Verifier::of(&admin_password));
//!     made = plan(&desired, &observed)?;
//! }
//! run_maintenance(&server, &mut session, &made, fence, &|_| {}).await?;
//! drop(session);
//! // The roles can log in; what is inside does not concern that.
//! let inside = connect_inside(&server, &made).await?;
//! let inside = run_inside(&server, inside, &made, fence, &|_| {});
//! let (inside, proof) = tokio::join!(inside, server.prove(&database, &admin, &admin_password));
//! inside?;
//! let mut session = proof?;
//! // Later, on the same session: is all as it should be?
//! observed.inside = Some(observe_inside(&mut session, &desired, &observed.server.current_user).await?);
//! # Ok(()) }
//! ```

mod apply;
mod bootstrap;
mod change;
mod comment;
mod error;
mod exchange;
mod follow;
mod job;
mod leftovers;
mod observe;
mod observed;
mod own_login;
mod plan;
mod pooler;
mod preflight;
mod pulse;
mod relocate;
mod server;
mod session;
mod sessions;
mod shut;
mod sql;
mod tls;
pub mod transfer;
mod trial;
mod verifier;
mod version;

pub use apply::{Fence, OnStep, Step, Unfenced, apply, connect_inside, run_inside, run_maintenance};
pub use bootstrap::{Bootstrap, GROUP, LOOKUP_DATABASE, bootstrap, bootstrap_sql};
pub use change::{
    Attribute, Change, DatabaseChange, InsideChange, Object, ObjectChange, Privilege, Relation, RoleChange,
};
pub use comment::{database_comment, parse_database_comment, parse_role_comment, role_comment};
pub use error::{ErrorClass, PostgresError, ProofError};
pub use exchange::{
    Beside, BesideKind, Exchange, Rehearsal, beside, drop_beside, empty, end_claims_sessions, exchange, make_public,
    occupant, reopen,
};
pub use follow::{
    Followed, Slot, cannot_publish, cannot_replicate, cannot_subscribe, closing_position, databases_following, follow,
    followed, go_on_following, moves_here, publish, slot, slots_of_first_copies, stop_following, unfollow, unpublish,
    unpublished,
};
pub use job::{Job, JobOptions, end_job, jobs};
pub use leftovers::{claims_on_cluster, drop_half_made, drop_roles_put_aside, half_made};
pub use observe::{observe, observe_inside};
pub use observed::{
    AclItem, DatabaseFacts, DatabaseSetting, DefaultAcl, Elsewhere, Foreign, HALF_MADE_LIMIT, Inside, Lacking,
    Membership, Observed, Owner, RelationKind, RoleFacts, RoleSetting, SchemaFacts, ServerFacts,
};
pub use own_login::{OwnLogin, acts_as};
pub use plan::{Batch, Beyond, Desired, Logins, Place, Plan, Refusal, plan, plan_drop, step};
pub use pooler::{Known, Lent, Pooler, PoolerOptions};
pub use preflight::{max_connections, preflight};
pub use pulse::{Beat, PULSE_TABLE, Pulse, PulseOptions, Record};
pub use relocate::{drop_roles_alone, put_aside, take_place};
pub use server::{Server, ServerOptions, Timeouts};
pub use session::Session;
pub use sessions::{databases_bytes, logged_in, server_started, server_version, strangers};
pub use shut::shut_logins;
pub use trial::{
    Sandbox, ServerBasics, Trial, extension_problems, server_basics, try_database, try_extensions, try_logins,
    try_roles,
};
pub use verifier::{Verifier, generate_password};
pub use version::{OWN_TEMPLATE, ServerVersion};

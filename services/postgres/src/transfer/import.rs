//! The target: definitions, then data, then what is built on them.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use pgtenant_model::LeftOut;

use super::acl::{self, RoleMap};
use super::archive::{Archive, display, is_about_another, is_header};
use super::catalog::target;
use super::connect::{Access, Pool, Wire};
use super::export::brief;
use super::memory::MemoryFile;
use super::part::Relation;
use super::process::Program;
use super::restore_log::Log;
use super::selection::{Present, Selection};
use super::toc::Entry;
use super::tools::Tools;
use super::{TransferError, sql};
use crate::error::{ErrorClass, PostgresError};
use crate::server::ServerOptions;
use crate::sessions;

/// How a database is written.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// The role that owns all that is made. The login is a member of it.
    pub admin: String,
    /// What roles of the source are called in the target.
    pub roles: RoleMap,
    /// How many sessions write at once.
    pub jobs: usize,
    /// Where `pg_restore` is.
    pub tools: Tools,
}

/// An empty database that becomes a copy. In this order: [`prepare`](Self::prepare), [`write`](Self::write) every part,
/// [`finish`](Self::finish).
#[derive(Debug)]
pub struct Import {
    pub(super) pool: Arc<Pool>,
    options: ImportOptions,
    /// Major version of the server.
    server: u32,
    /// Tells whether the server was started again.
    started: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Entries of the archive that are not in the copy.
    missing: HashSet<i32>,
    left_out: Vec<LeftOut>,
}

impl Import {
    /// Connects as the login of `server`.
    ///
    /// # Errors
    /// The server does not let the login in, or it is not a member of the admin role.
    pub async fn begin(server: &ServerOptions, database: &str, options: ImportOptions) -> Result<Self, TransferError> {
        let access = Access::new(server, database)?;
        let wire = access.open("SELECT").await?;
        let started = wire.text("ask when the server was started", sessions::STARTED).await?;
        let version = wire.text("ask for the version", "SHOW server_version_num").await?;
        let encoding = wire.text("ask for the encoding", "SHOW server_encoding").await?;
        let setup = format!("{}; {}", sql::act_as(&options.admin), sql::client_encoding(&encoding));
        wire.run("act as the owner", &setup).await?;
        let pool = Pool::renewed(access, setup, options.jobs);
        let server = version.parse::<u32>().unwrap_or(0) / 10_000;
        Ok(Self { pool, options, server, started, state: Mutex::default() })
    }

    /// What of the source is not in the copy, as far as that is known now.
    #[must_use]
    pub fn left_out(&self) -> Vec<LeftOut> {
        self.state().left_out.clone()
    }

    pub(super) fn tools(&self) -> &Tools {
        &self.options.tools
    }

    pub(super) fn jobs(&self) -> usize {
        self.options.jobs.max(1)
    }

    pub(super) fn roles(&self) -> &RoleMap {
        &self.options.roles
    }

    pub(super) fn leave_out(&self, left_out: LeftOut) {
        self.state().left_out.push(left_out);
    }

    /// Makes schemas, extensions, types, functions and tables.
    ///
    /// # Errors
    /// The database is not empty, or it refuses what the copy can not be without.
    pub async fn prepare(&self, archive: &Archive) -> Result<Vec<LeftOut>, TransferError> {
        let lease = self.pool.take().await?;
        self.check_empty(&lease.wire).await?;
        self.forget_defaults(&lease.wire).await?;
        let present = Present {
            extensions: lease
                .wire
                .documents("look for extensions", target::EXTENSIONS, &[])
                .await?
                .into_iter()
                .collect(),
            schemas: lease.wire.documents("look for schemas", target::SCHEMAS, &[]).await?.into_iter().collect(),
        };
        let mut selection = Selection::new(&archive.toc, &present, HashSet::new());
        // Extensions may be in schemas, and anything else may need extensions.
        self.restore(archive, &selection.schemas.clone(), &mut selection, 1).await?;
        for entry in selection.extensions.clone() {
            self.create_extension(&lease.wire, entry, &mut selection).await?;
        }
        lease.give_back();
        self.restore(archive, &selection.pre_data.clone(), &mut selection, 1).await?;
        let mut left_out = selection.left_out;
        left_out.extend(self.other_owners(archive, &selection.missing));
        let mut state = self.state();
        *state = State { missing: selection.missing, left_out };
        Ok(state.left_out.clone())
    }

    /// Makes indexes, constraints, triggers and policies, fills materialised views, and gives privileges.
    ///
    /// # Errors
    /// The data do not fit the definitions, or a connection broke.
    pub async fn finish(&self, archive: &Archive) -> Result<Vec<LeftOut>, TransferError> {
        let missing = self.state().missing.clone();
        let mut selection = Selection::new(&archive.toc, &Present::default(), missing);
        // Said when the rest was prepared.
        selection.left_out.clear();
        self.restore(archive, &selection.post_data.clone(), &mut selection, self.jobs()).await?;
        let lease = self.pool.take().await?;
        self.grant(&lease.wire, &mut selection).await?;
        lease.give_back();
        selection.left_out.extend(self.analyze().await?);
        self.make_durable().await?;
        let mut state = self.state();
        state.missing = selection.missing;
        state.left_out.extend(selection.left_out);
        Ok(state.left_out.clone())
    }

    async fn check_empty(&self, wire: &Wire) -> Result<(), TransferError> {
        let found: Vec<String> = wire.documents("see whether the database is empty", target::OCCUPANT, &[]).await?;
        let database = self.pool.access.database.clone();
        found.into_iter().next().map_or(Ok(()), |example| Err(TransferError::NotEmpty { database, example }))
    }

    /// What is made would have privileges that it had not in the source. The archive's own come in the end.
    async fn forget_defaults(&self, wire: &Wire) -> Result<(), TransferError> {
        let what = "forget the default privileges";
        type Default = (String, Option<String>, String, Option<String>);
        let found: Vec<Default> = wire.documents(what, target::DEFAULT_PRIVILEGES, &[]).await?;
        let one = |(role, schema, kind, grantee): &Default| {
            sql::forget_default(role, schema.as_deref(), kind, grantee.as_deref())
        };
        let mut statements = vec!["SET ROLE NONE".to_owned()];
        statements.extend(found.iter().filter_map(one));
        statements.push(sql::act_as(&self.options.admin));
        Ok(wire.run(what, &statements.join("; ")).await?)
    }

    /// Trusted ones are made by whoever may CREATE in the database.
    async fn create_extension<'a>(
        &self,
        wire: &Wire,
        entry: &'a Entry,
        selection: &mut Selection<'a>,
    ) -> Result<(), TransferError> {
        let schema = acl::schema_of_extension(&entry.definition);
        let what = format!("create extension {:?}", entry.tag);
        match wire.run(&what, &sql::create_extension(&entry.tag, schema.as_deref())).await {
            Ok(()) => Ok(()),
            Err(error) if is_refusal(&error) => {
                let remedy = "have a superuser create it in the copy's database, or in the template, and copy again";
                selection.leave_out(entry, error.to_string(), remedy);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// One note for each role that owned something and does not own it in the copy.
    fn other_owners(&self, archive: &Archive, missing: &HashSet<i32>) -> Vec<LeftOut> {
        let admin = &self.options.admin;
        let mut owned: std::collections::BTreeMap<&str, (usize, String)> = std::collections::BTreeMap::new();
        let is_owned = |entry: &&Entry| !is_header(entry) && !is_about_another(entry) && entry.kind != "DEFAULT ACL";
        let here = |entry: &&Entry| !missing.contains(&entry.id);
        let entries = archive.toc.entries.iter().filter(is_owned).filter(here);
        for entry in entries.filter(|entry| !entry.owner.is_empty() && !entry.owner.starts_with("pg_")) {
            if self.options.roles.map(&entry.owner) != admin {
                owned.entry(&entry.owner).or_insert_with(|| (0, display(entry))).0 += 1;
            }
        }
        let one = |(owner, (count, example)): (&str, (usize, String))| LeftOut {
            object: format!("ownership by role {owner:?}"),
            reason: format!("{count} objects belong to {admin:?} in the copy; one is {example}"),
            remedy: "ALTER … OWNER TO, or GRANT what that role needs".into(),
        };
        owned.into_iter().map(one).collect()
    }

    async fn restore<'a>(
        &self,
        archive: &'a Archive,
        entries: &[&'a Entry],
        selection: &mut Selection<'a>,
        jobs: usize,
    ) -> Result<(), TransferError> {
        if entries.is_empty() {
            return Ok(());
        }
        let list: String = entries.iter().map(|entry| format!("{};\n", entry.id)).collect();
        let file = |bytes: &[u8]| {
            MemoryFile::new(bytes)
                .map_err(|source| TransferError::Io { what: "hand the archive to pg_restore", source })
        };
        let (whole, list) = (file(archive.bytes())?, file(list.as_bytes())?);
        let pg_restore = &self.options.tools.at_least(archive.dumped_by())?.pg_restore;
        let arguments = vec![
            "--no-owner".into(),
            "--no-privileges".into(),
            "--no-security-labels".into(),
            "--no-tablespaces".into(),
            format!("--role={}", self.options.admin).into(),
            format!("--jobs={jobs}").into(),
            "--use-list".into(),
            list.path().into(),
            whole.path().into(),
        ];
        let (access, what) = (&self.pool.access, "what pg_restore says".to_owned());
        let program = Program { path: pg_restore, access, arguments, server: self.server, limit: 1 << 20, what };
        let output = program.run().await?;
        if output.success {
            return Ok(());
        }
        let log = Log::read(&output.stderr);
        if !log.complete {
            let (program, status) = (pg_restore.display().to_string(), output.status);
            return Err(TransferError::Tool { program, status, stderr: brief(&output.stderr) });
        }
        selection.judge(entries, &log)
    }

    /// As the owner; default privileges as the login, which acts for all tiers.
    async fn grant(&self, wire: &Wire, selection: &mut Selection<'_>) -> Result<(), TransferError> {
        for entry in selection.policies.clone() {
            self.grant_entry(wire, entry, selection).await?;
        }
        for entry in selection.privileges.clone() {
            self.grant_entry(wire, entry, selection).await?;
        }
        wire.run("act as the login", "SET ROLE NONE").await?;
        for entry in selection.default_privileges.clone() {
            self.grant_entry(wire, entry, selection).await?;
        }
        Ok(wire.run("act as the owner", &sql::act_as(&self.options.admin)).await?)
    }

    async fn grant_entry<'a>(
        &self,
        wire: &Wire,
        entry: &'a Entry,
        selection: &mut Selection<'a>,
    ) -> Result<(), TransferError> {
        for statement in acl::statements(&entry.definition, &self.options.roles) {
            match wire.run(&format!("set {}", display(entry)), &statement).await {
                Ok(()) => {}
                // Without a policy others would see what they shall not, unless it was for a role that is not there.
                Err(error) if entry.kind == "POLICY" && error.sqlstate() != Some(NO_SUCH_ROLE) => {
                    return Err(error.into());
                }
                Err(error) if is_refusal(&error) => {
                    let to = acl::grantee(&statement).map(|role| format!(" for {role:?}")).unwrap_or_default();
                    let object = format!("{}{to}", display(entry));
                    let (reason, remedy) = (error.to_string(), format!("run it when that is mended: {statement}"));
                    selection.left_out.push(LeftOut { object, reason, remedy });
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Gathers statistics of every table. Says of which the server refuses it.
    ///
    /// # Errors
    /// A connection broke.
    pub async fn analyze(&self) -> Result<Vec<LeftOut>, TransferError> {
        let lease = self.pool.take().await?;
        let tables: Vec<Relation> = lease.wire.documents("look for tables", target::TABLES_TO_ANALYZE, &[]).await?;
        lease.give_back();
        let one = |table: Relation| async move {
            let lease = self.pool.take().await?;
            let name = sql::relation(&table);
            let result = lease.wire.run(&format!("analyze {name}"), &sql::analyze(&table)).await;
            let refused = match result {
                Ok(()) => None,
                Err(error) if is_refusal(&error) => Some(error.to_string()),
                Err(error) => return Err(TransferError::from(error)),
            };
            lease.give_back();
            let remedy = "ANALYZE it when that is mended; until then its queries may be slow".to_owned();
            Ok(refused.map(|reason| LeftOut { object: format!("statistics of {name}"), reason, remedy }))
        };
        let done = futures::stream::iter(tables).map(one).buffer_unordered(self.jobs());
        let refused: Vec<Option<LeftOut>> = done.try_collect().await?;
        Ok(refused.into_iter().flatten().collect())
    }

    /// Commits so far did not wait for the disk. The last one does, and with it all before it.
    async fn make_durable(&self) -> Result<(), TransferError> {
        let lease = self.pool.take().await?;
        let flush = "SET LOCAL synchronous_commit = on; SELECT pg_logical_emit_message(true, 'pgtenant', 'copied')";
        lease.wire.run("make the copy durable", flush).await?;
        let started = lease.wire.text("ask when the server was started", sessions::STARTED).await?;
        if started != self.started {
            return Err(TransferError::Restarted);
        }
        lease.give_back();
        self.pool.close_idle();
        Ok(())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a part in one transaction: all of it, or nothing. As many as jobs are written at once, further ones wait for their
    /// turn.
    ///
    /// # Errors
    /// Nothing of it was written, so that it can be tried again; but for [`TransferError::Unknown`].
    pub async fn write(
        &self,
        part: &super::Part,
        stream: impl Stream<Item = io::Result<Bytes>> + Send,
    ) -> Result<(), TransferError> {
        super::write::write(self, part, stream).await
    }
}

/// `undefined_object`.
const NO_SUCH_ROLE: &str = "42704";

/// Whether the server refused, and would again: not that the connection broke, or that somebody was in the way.
pub(super) fn is_refusal(error: &PostgresError) -> bool {
    error.sqlstate().is_some() && !matches!(error.class(), ErrorClass::Moved | ErrorClass::Transient)
}

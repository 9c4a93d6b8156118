//! Copies of whole databases.

mod broken;
mod compared;
mod hostile;
mod random;
mod versions;
mod whole;

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use pgtenant_model::{Tier, Verification};
use pgtenant_postgres::ServerOptions;
use pgtenant_postgres::transfer::{
    Copied, Export, ExportOptions, Flow, Import, ImportOptions, RoleMap, Scrutiny, Side, Tools, TransferError, compare,
    copy_all,
};
use pgtenant_testkit::unique;

use crate::world::{Tenant, World};

/// A claim's database, an empty one for the copy, and a login for the occasion.
pub(crate) struct Job<'a> {
    pub(crate) tenant: Tenant<'a>,
    pub(crate) target: String,
    pub(crate) login: ServerOptions,
    pub(crate) roles: RoleMap,
    pub(crate) admin: String,
    pub(crate) jobs: usize,
    pub(crate) chunk: Option<u64>,
}

impl<'a> Job<'a> {
    pub(crate) async fn new(world: &'a World) -> Self {
        let tenant = world.tenant();
        tenant.create().await;
        let target = format!("{}-copy", tenant.database());
        make_target(&tenant, &target).await;
        let admin = tenant.role(Tier::Admin);
        let login = job_login(world, &[&tenant]).await;
        Self { tenant, target, login, roles: RoleMap::default(), admin, jobs: 2, chunk: None }
    }

    pub(crate) async fn export_of(&self, database: &str) -> Result<Export, TransferError> {
        let options = ExportOptions { jobs: self.jobs, chunk: self.chunk, ..ExportOptions::default() };
        Export::begin(&self.login, database, &options).await
    }

    pub(crate) async fn export(&self) -> Export {
        self.export_of(&self.tenant.database()).await.unwrap()
    }

    pub(crate) async fn import(&self) -> Import {
        let (admin, roles) = (self.admin.clone(), self.roles.clone());
        let options = ImportOptions { admin, roles, jobs: self.jobs, tools: tools() };
        Import::begin(&self.login, &self.target, options).await.unwrap()
    }

    pub(crate) async fn copy(&self) -> Result<(Export, Copied), TransferError> {
        let (export, import) = (self.export().await, self.import().await);
        let copied = copy_all(&export, &import, &Flow::new(export.parts(), None)).await?;
        Ok((export, copied))
    }

    /// Compares the copy with what was exported.
    pub(crate) async fn verify(&self, export: &Export, copied: &Copied, sample_above: u64) -> Verification {
        let source = export.inventory(Scrutiny { sample_above, like: None }).await.unwrap();
        let other = self.export_of(&self.target).await.unwrap();
        let copy = other.inventory(Scrutiny { sample_above, like: Some(&source) }).await.unwrap();
        let archive = other.schema(&tools()).await.unwrap();
        let source = Side { inventory: &source, archive: &copied.archive };
        compare(source, Side { inventory: &copy, archive: &archive }, &copied.left_out, &self.roles)
    }

    /// Runs the fixture as the admin tier.
    pub(crate) async fn fill(&self, sql: &str) {
        let sql = Tier::ALL
            .iter()
            .fold(sql.to_owned(), |sql, tier| sql.replace(&format!("{{{tier}}}"), &self.tenant.role(*tier)));
        self.tenant.sql(Tier::Admin, &sql).await.unwrap();
    }

    /// What a program of this PostgreSQL's says of a database, as the superuser.
    pub(crate) fn tool(&self, program: &str, database: &str) -> Command {
        let superuser = &self.tenant.world.superuser;
        let set = tools().for_server(150_000).unwrap().clone();
        let path = if program == "pg_dump" { set.pg_dump } else { set.pg_restore };
        let mut command = Command::new(path);
        command
            .env("PGPASSWORD", superuser.plain_password())
            .env("PGHOST", "localhost")
            .env("PGPORT", self.login.port.to_string())
            .env("PGUSER", &superuser.username)
            .env("PGSSLMODE", "require")
            .args(["-d", database]);
        command
    }

    /// The definitions in plain text, without what differs each time.
    pub(crate) fn dump(&self, database: &str, arguments: &[&str]) -> String {
        let output = self.tool("pg_dump", database).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// As the control plane makes one.
pub(crate) async fn make_target(tenant: &Tenant<'_>, target: &str) {
    let (admin, read, write) = (tenant.role(Tier::Admin), tenant.role(Tier::Read), tenant.role(Tier::Write));
    tenant.world.sql("postgres", &format!("CREATE DATABASE \"{target}\" TEMPLATE template0 OWNER pgtenant")).await;
    let sql = format!(
        "REVOKE ALL ON DATABASE \"{target}\" FROM PUBLIC;
         GRANT CONNECT, CREATE ON DATABASE \"{target}\" TO \"{admin}\";
         ALTER SCHEMA public OWNER TO \"{admin}\"; GRANT USAGE ON SCHEMA public TO \"{read}\", \"{write}\";
         ALTER DEFAULT PRIVILEGES FOR ROLE \"{admin}\" IN SCHEMA public GRANT SELECT ON TABLES TO \"{read}\";
         ALTER DEFAULT PRIVILEGES FOR ROLE \"{admin}\" IN SCHEMA public GRANT SELECT, INSERT ON TABLES TO \"{write}\""
    );
    tenant.world.sql(target, &sql).await;
}

/// A login that has the tiers of claims, and nothing else.
pub(crate) async fn job_login(world: &World, tenants: &[&Tenant<'_>]) -> ServerOptions {
    let (username, password) = (unique("job"), unique("password"));
    world.sql("postgres", &format!("CREATE ROLE \"{username}\" LOGIN PASSWORD '{password}'")).await;
    for tenant in tenants {
        for tier in Tier::ALL {
            world.sql("postgres", &format!("GRANT \"{}\" TO \"{username}\"", tenant.role(tier))).await;
        }
    }
    ServerOptions { username, password: password.into(), ..world.server.options().clone() }
}

/// What this machine has, and what was put beside the servers of other versions.
pub(crate) fn tools() -> Tools {
    static TOOLS: OnceLock<Tools> = OnceLock::new();
    TOOLS.get_or_init(|| Tools::find(&more_tools())).clone()
}

fn more_tools() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let versions = std::fs::read_dir(home.join(".cache/pgtenant/postgresql-tools"));
    versions.into_iter().flatten().filter_map(Result::ok).map(|version| version.path().join("bin")).collect()
}

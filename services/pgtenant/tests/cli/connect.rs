//! `db connect`, with a psql that tells what it was given.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::documents::database;
use crate::run::end;
use crate::server::{Answer, Server};

const CREDENTIALS: &str = "GET /v1/namespaces/idp-dev/databases/my-db/credentials";
const PASSWORD: &str = "hunter2:with\\more";

struct Stage {
    dir: tempfile::TempDir,
    server: Server,
}

fn stage(psql: &str) -> Stage {
    let dir = tempfile::tempdir().unwrap();
    let secrets = dir.path().join("secrets/customer/idp-dev");
    std::fs::create_dir_all(&secrets).unwrap();
    let document = json!({"username": "idp-dev-my-db-write", "password": PASSWORD, "endpoint": "db1.example",
        "port": "5433", "database": "idp-dev-my-db", "sslmode": "verify-full", "ca.crt": "THE CERTIFICATE",
        "uri": format!("postgresql://idp-dev-my-db-write:{PASSWORD}@x1:1,x2:2/idp-dev-my-db?sslmode=verify-full")});
    std::fs::write(secrets.join("idp-dev-my-db-write.json"), document.to_string()).unwrap();
    let script = dir.path().join("bin/psql");
    std::fs::create_dir(dir.path().join("bin")).unwrap();
    std::fs::write(&script, format!("#!/bin/sh\n{psql}\n")).unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let server = Server::start();
    let database = database("idp-dev", "my-db", "Ready");
    server.on(
        CREDENTIALS,
        [Answer::json(
            200,
            &json!({"namespace": "idp-dev", "name": "my-db",
        "database": "idp-dev-my-db", "endpoint": database["endpoint"], "roles": database["roles"]}),
        )],
    );
    Stage { dir, server }
}

impl Stage {
    fn edit_credential(&self, edit: impl FnOnce(&mut serde_json::Value)) {
        let file = self.dir.path().join("secrets/customer/idp-dev/idp-dev-my-db-write.json");
        let mut document = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        edit(&mut document);
        std::fs::write(file, document.to_string()).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command =
            self.server.command(&[&["db", "connect", "idp-dev/my-db", "--tier", "write"], arguments].concat());
        let path = format!("{}:{}", self.dir.path().join("bin").display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).env("PGTENANT_SECRETS_DIR", self.dir.path().join("secrets"));
        command.env("TMPDIR", self.dir.path()).env("PGPASSWORD", "another");
        command
    }
}

#[test]
fn psql_gets_everything_but_never_the_password() {
    let stage = stage(
        "echo \"args: $*\"; env | grep ^PG | sort; stat -c 'mode: %a' \"$PGPASSFILE\"; cat \"$PGPASSFILE\" \"$PGSSLROOTCERT\"; \
         tr '\\0' ' ' < /proc/$PPID/cmdline",
    );
    let ended = end(&mut stage.command(&["--", "-c", "select 1"])).expect(0);
    let place = |name: &str| ended.stdout.lines().find_map(|l| l.strip_prefix(name)).map(PathBuf::from);
    for expected in [
        "args: -c select 1",
        "PGDATABASE=idp-dev-my-db",
        "PGHOST=x1,x2",
        "PGPORT=1,2",
        "PGSSLMODE=verify-full",
        "PGTARGETSESSIONATTRS=read-write",
        "PGUSER=idp-dev-my-db-write",
        "mode: 600",
        "*:*:*:idp-dev-my-db-write:hunter2\\:with\\\\more",
        "THE CERTIFICATE",
    ] {
        assert!(ended.stdout.contains(expected), "{expected} is not in\n{}", ended.stdout);
    }
    assert!(!ended.stdout.contains("PGPASSWORD") && !ended.stdout.contains("PGTENANT_TOKEN"), "{}", ended.stdout);
    assert_eq!(ended.stdout.matches("hunter2").count(), 1, "{}", ended.stdout);
    assert!(!place("PGPASSFILE=").unwrap().exists() && !place("PGSSLROOTCERT=").unwrap().exists());
}

#[test]
fn the_certificate_authority_can_be_named() {
    let stage = stage("echo \"$PGSSLROOTCERT\"");
    let ended = end(stage.command(&[]).env("PGTENANT_CA", "/etc/my-ca.crt")).expect(0);
    assert_eq!(ended.stdout, "/etc/my-ca.crt\n");
}

#[test]
fn without_an_authority_the_machines_own_are_trusted() {
    let psql = "if [ \"$1\" = --version ]; then echo \"psql (PostgreSQL) $VERSION\"; else echo \"$PGSSLROOTCERT\"; fi";
    let stage = stage(psql);
    let trusts = |sslmode: &str, version: &str, further: &[(&str, &str)]| {
        stage.edit_credential(|document| {
            document.as_object_mut().unwrap().remove("ca.crt");
            document["sslmode"] = sslmode.into();
        });
        let mut command = stage.command(&[]);
        command.env("VERSION", version).envs(further.iter().copied());
        end(&mut command).expect(0).stdout.trim().to_owned()
    };
    let stores = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem", ""];
    let own = stores.into_iter().find(|file| file.is_empty() || std::path::Path::new(file).is_file()).unwrap();
    assert_eq!(trusts("verify-full", "16.14", &[]), "system");
    assert_eq!(trusts("verify-full", "15.18 (Debian 15.18-0+deb12u1)", &[]), own);
    assert_eq!(trusts("verify-ca", "18.4", &[]), own, "libpq refuses `system` with it");
    assert_eq!(trusts("require", "18.4", &[]), "", "it asks for no authority");
    assert_eq!(trusts("verify-full", "18.4", &[("PGSSLROOTCERT", "/mine.crt")]), "/mine.crt");
}

#[test]
fn however_psql_fails_the_status_is_1() {
    for status in [1, 2, 3] {
        end(&mut stage(&format!("exit {status}")).command(&[])).expect(1);
    }
    end(&mut stage("kill -KILL $$").command(&[])).expect(137);
}

#[test]
fn signals_reach_psql_and_the_password_goes_with_it() {
    let stage = stage("trap 'exit 9' TERM; echo \"$PGPASSFILE\"; while :; do sleep 0.05; done");
    let mut child = stage.command(&[]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let file = PathBuf::from(line.trim());
    assert!(file.exists());
    Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(!file.exists());
}

#[test]
fn what_is_missing_is_said() {
    let stage = stage("true");
    std::fs::remove_file(stage.dir.path().join("bin/psql")).unwrap();
    let ended = end(stage.command(&[]).env("PATH", stage.dir.path().join("bin"))).expect(1);
    assert!(
        ended.stderr.contains("error: psql is not installed\nhint: Debian and Ubuntu: apt-get"),
        "{}",
        ended.stderr
    );

    let ended = end(stage.command(&[]).env_remove("PGTENANT_SECRETS_DIR")).expect(2);
    assert!(ended.stderr.contains("PGTENANT_SECRETS_DIR"), "{}", ended.stderr);

    let ended = end(stage.command(&[]).env("PGTENANT_SECRETS_DIR", "/nonexistent")).expect(1);
    assert!(ended.stderr.contains("can not use the credential /nonexistent/customer/"), "{}", ended.stderr);

    let file = stage.dir.path().join("secrets/customer/idp-dev/idp-dev-my-db-write.json");
    std::fs::write(&file, "{\"password\": \"hunter2\", ").unwrap();
    let ended = end(&mut stage.command(&[])).expect(1);
    assert!(ended.stderr.contains("line 1") && !ended.stderr.contains("hunter2"), "{}", ended.stderr);
}

//! Where the commands of a document run.
//!
//! Of a developer: a running `pgtenant dev --backups`, the lines of `DIR/env` read, and `DIR` set.
//!
//! Of a team on Kubernetes: a running `pgtenant dev --kubernetes --backups`, the lines of `DIR/env` read, with kubectl and helm.
//!
//! Of an operator: a cluster of two servers `db1.example` and `db2.example`, a server `ledger.example`, with a superuser `postgres`
//! whose passwords psql has; `/etc/pgtenant` with the servers' `ca.crt`, `/var/lib/pgtenant` and `/srv/apps-repository`.
//! `pgtenant serve` runs as a service, which `systemctl` stops, starts and restarts. Hosts, ports and folders stand for others that this
//! machine has: they are replaced in what is run.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use pgtenant_lab::KubernetesBinaries;
use pgtenant_tests::{Cli, Dev, Folder, Own, binary, free_port, repository, run};
use secrecy::ExposeSecret as _;
use tokio::sync::OnceCell;

use crate::documents::Block;

/// Stops at the first command that fails and names it, with its line in the document; in a function that of the call.
const STRICT: &str = r#"
set -Eeuo pipefail
failed() {
    local depth=${#BASH_LINENO[@]}
    local line=$(( depth > 2 ? BASH_LINENO[depth - 2] : $1 ))
    echo "$DOCUMENT:$((block + line - here)): $2"
}
trap 'failed "$LINENO" "$BASH_COMMAND"' ERR
"#;

const SERVICE: &str = r#"
start_service() {
    setpriv --pdeathsig KILL -- pgtenant "${serve[@]}" >> "$WORK/service.log" 2>&1 < /dev/null &
    service=$!
    for _ in $(seq 300); do
        if curl --silent --fail --output /dev/null "http://$LISTEN/readyz"; then return; fi
        if ! kill -0 "$service"; then break; fi
        sleep 0.1
    done
    cat "$WORK/service.log"
    return 1
}
stop_service() { kill "$service" && { wait "$service" || true; }; }
pgtenant() { if [ "${1-}" = serve ]; then serve=("$@"); start_service; else command pgtenant "$@"; fi; }
systemctl() { case $1 in stop) stop_service ;; start) start_service ;; restart) stop_service; start_service ;; *) ;; esac; }
trap 'stop_service 2> /dev/null || true' EXIT
"#;

/// What is around the commands.
pub(crate) struct Stage {
    cli: Cli,
    folder: Folder,
    /// What is said in a document, and what it stands for.
    names: Vec<(String, String)>,
    prelude: String,
    _servers: Vec<Own>,
    _dev: Option<Dev>,
}

/// A script that takes too long is killed, and can not remove its lab then.
impl Drop for Stage {
    fn drop(&mut self) {
        let lab = self.folder.join("work/lab");
        if lab.exists() {
            self.cli.command(&["lab", "down", "--remove", "--yes", "--dir"]).arg(lab).output().ok();
        }
    }
}

impl Stage {
    pub(crate) async fn of_a_developer() -> Self {
        // Other tests break the apps folder of the one that they share.
        static DEV: OnceCell<Dev> = OnceCell::const_new();
        let dev = DEV.get_or_init(Dev::with_backups).await;
        dev.api().is_ready("demo", "orders").await;
        let cli = dev.cli().env("DIR", &dev.dir);
        let names = vec![("http://127.0.0.1:8080".to_owned(), dev.url.clone())];
        let folder = Folder::new("documents");
        let prelude = ". \"$DIR/env\"\n".to_owned();
        Self { cli, folder, names, prelude, _servers: Vec::new(), _dev: None }
    }

    pub(crate) async fn of_kubernetes() -> Self {
        let dev = Dev::with_kubernetes_and_backups().await;
        dev.api().is_ready("demo", "orders").await;
        let kubectl = KubernetesBinaries::locate().unwrap().kubectl.expect("kubectl: run `make kubernetes`");
        let cli = dev.cli().env("DIR", &dev.dir).env("TOOLS", kubectl.parent().unwrap());
        let chart = repository().join("charts/idp-postgresql").display().to_string();
        let names = vec![("charts/idp-postgresql".to_owned(), chart)];
        let prelude = ". \"$DIR/env\"; PATH=$PATH:$TOOLS\n".to_owned();
        Self { cli, folder: Folder::new("documents"), names, prelude, _servers: Vec::new(), _dev: Some(dev) }
    }

    pub(crate) async fn of_an_operator() -> Self {
        let (cluster, ledger) = (Own::start(true, &[]).await, Own::start(false, &[]).await);
        let folder = Folder::new("documents");
        let path = |name: &str| folder.join(name).display().to_string();
        for name in ["etc", "lib", "srv/apps"] {
            fs::create_dir_all(folder.join(name)).unwrap();
        }
        let mut names = Vec::new();
        let mut passwords = String::new();
        let mut authorities = String::new();
        for (server, hosts) in [(&cluster, &["db1.example", "db2.example"][..]), (&ledger, &["ledger.example"])] {
            for (said, host) in hosts.iter().zip(server.place().hosts) {
                let port = host.rsplit(':').next().unwrap();
                names.push((format!("{said}:5432"), host.clone()));
                names.push((format!("host={said} port=5432"), format!("host=localhost port={port}")));
                passwords +=
                    &format!("localhost:{port}:*:postgres:{}\n", server.cluster.superuser_password().expose_secret());
            }
            authorities += &fs::read_to_string(server.place().ca).unwrap();
        }
        let listen = format!("127.0.0.1:{}", free_port());
        names.push(("127.0.0.1:8080".to_owned(), listen.clone()));
        for (said, is) in [("/etc/pgtenant", "etc"), ("/var/lib/pgtenant", "lib"), ("/srv/apps-repository", "srv")] {
            names.push((said.to_owned(), path(is)));
        }
        fs::write(folder.join("etc/ca.crt"), authorities).unwrap();
        fs::write(folder.join("pgpass"), passwords).unwrap();
        fs::set_permissions(folder.join("pgpass"), fs::Permissions::from_mode(0o600)).unwrap();
        let cli = Cli::new().env("PGPASSFILE", path("pgpass")).env("LISTEN", listen);
        Self { cli, folder, names, prelude: SERVICE.to_owned(), _servers: vec![cluster, ledger], _dev: None }
    }

    /// Labs are made and removed by the document itself; one that is left by a command that failed is removed, too.
    pub(crate) fn of_a_lab() -> Self {
        let prelude = "trap 'if [ -e lab ]; then pgtenant lab down --remove --yes --dir lab; fi' EXIT\n".to_owned();
        let folder = Folder::new("documents-lab");
        Self { cli: Cli::new(), folder, names: Vec::new(), prelude, _servers: Vec::new(), _dev: None }
    }

    /// Runs the blocks of a document; `Err` says which one failed and how.
    pub(crate) async fn run(&self, document: &str, blocks: &[Block]) -> Result<(), String> {
        for name in ["bin", "work"] {
            fs::create_dir(self.folder.join(name)).unwrap();
        }
        symlink(binary(), self.folder.join("bin/pgtenant")).unwrap();
        let mut script = format!("{STRICT}block=0 here=0\n{}", self.prelude);
        for block in blocks {
            script += &match block {
                Block::Run { line, script } => {
                    format!("block={line} here=$LINENO; echo '== {document}:{line}'\n{}\n", self.meant(script))
                }
                Block::File { path, text } => {
                    format!("cat > '{}' <<'END OF FILE'\n{}\nEND OF FILE\n", self.meant(path), self.meant(text))
                }
                Block::Skip => String::new(),
            };
        }
        let file = self.folder.join("script");
        fs::write(&file, script).unwrap();
        let typed = format!("bash '{}'", file.display());
        let mut terminal =
            self.cli.command_of("script".as_ref(), &["--quiet", "--return", "--command", &typed, "/dev/null"]);
        let search = format!("{}:{}", self.folder.join("bin").display(), std::env::var("PATH").unwrap());
        terminal.current_dir(self.folder.join("work")).env("PATH", search).env("WORK", self.folder.path());
        terminal.env("DOCUMENT", document).env("HOME", self.folder.path()).env("TERM", "dumb").env("PAGER", "cat");
        let done = run(terminal).await;
        if done.status == 0 {
            return Ok(());
        }
        let lines: Vec<&str> = done.stdout.lines().collect();
        let last = lines.iter().rposition(|line| line.starts_with("== ")).unwrap_or(0);
        Err(format!("exit status {}\n{}\n{}", done.status, lines[last..].join("\n"), done.stderr))
    }

    fn meant(&self, said: &str) -> String {
        self.names.iter().fold(said.to_owned(), |text, (said, is)| text.replace(said, is))
    }
}

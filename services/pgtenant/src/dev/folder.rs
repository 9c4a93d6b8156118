//! What lies where under `DIR`.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Result;

/// Grows when a folder of an earlier version can not be read any more.
const FORMAT: u32 = 1;

/// The folder of `pgtenant dev`, held by a lock.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    _lock: fs::File,
}

#[derive(Serialize, Deserialize)]
struct Marker {
    format: u32,
    version: String,
}

impl Folder {
    /// Makes the folder, or checks that it is one of ours.
    pub(super) fn open(dir: Option<PathBuf>) -> Result<Self> {
        let root = match dir {
            Some(dir) => dir,
            None => data_folder("dev")?,
        };
        make_passable(&root).map_err(|e| format!("can not make {}: {e}", root.display()))?;
        let root = root.canonicalize()?;
        check_marker(&root)?;
        // The servers run as another user when root starts them: that user passes through, and lists nothing.
        fs::set_permissions(&root, fs::Permissions::from_mode(0o711))?;
        let lock = fs::File::create(root.join("lock"))?;
        lock.try_lock().map_err(|_| {
            format!(
                "another `pgtenant dev` runs in {}\nhint: stop it, or choose another folder with --dir",
                root.display()
            )
        })?;
        let marker = Marker { format: FORMAT, version: env!("CARGO_PKG_VERSION").to_owned() };
        fs::write(root.join("pgtenant.json"), serde_json::to_vec(&marker)?)?;
        make_private(&root.join("secrets"))?;
        fs::create_dir_all(root.join("apps"))?;
        Ok(Self { root, _lock: lock })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn apps(&self) -> PathBuf {
        self.root.join("apps")
    }

    pub(super) fn secrets(&self) -> PathBuf {
        self.root.join("secrets")
    }

    pub(super) fn env_file(&self) -> PathBuf {
        self.root.join("env")
    }

    pub(super) fn token_file(&self) -> PathBuf {
        self.root.join("token")
    }

    pub(super) fn passfile(&self) -> PathBuf {
        self.root.join("pgpass")
    }

    pub(super) fn log_file(&self) -> PathBuf {
        self.root.join("pgtenant.log")
    }

    /// Lines for a shell to read; `further` are variables of what runs beside the rest.
    pub(super) fn write_env(
        &self,
        address: SocketAddr,
        token: &SecretString,
        ca: &Path,
        further: &[(&str, String)],
    ) -> Result<()> {
        let mut text = format!(
            "export PGTENANT_URL={}\nexport PGTENANT_TOKEN={}\nexport PGTENANT_CA={}\nexport PGTENANT_SECRETS_DIR={}\n",
            quote(&url(address)),
            quote(token.expose_secret()),
            quote(&ca.display().to_string()),
            quote(&self.secrets().display().to_string()),
        );
        for (name, value) in further {
            text.push_str(&format!("export {name}={}\n", quote(value)));
        }
        write_private(&self.env_file(), text.as_bytes())
    }

    /// An example claim, in a folder that has never had one. Whether it was written.
    pub(super) fn write_example(&self) -> Result<bool> {
        let made = self.root.join("example");
        if made.exists() || fs::read_dir(self.apps())?.next().is_some() {
            return Ok(false);
        }
        let application = self.apps().join("demo/orders");
        fs::create_dir_all(&application)?;
        fs::write(application.join("values.yaml"), include_str!("example/values.yaml"))?;
        fs::write(application.join("application.yaml"), include_str!("example/application.yaml"))?;
        fs::write(made, "The example was written once; remove it from apps/ and it stays away.\n")?;
        Ok(true)
    }

    /// Where dumps are kept.
    pub(super) fn backups(&self) -> PathBuf {
        self.root.join("backups")
    }

    /// The key of age that dumps are encrypted to: its file, made once and kept, and its public key.
    pub(super) fn backup_key(&self) -> Result<(PathBuf, String)> {
        let path = self.root.join("backup.key");
        if let Ok(text) = fs::read_to_string(&path) {
            let public = text.lines().find_map(|line| line.strip_prefix("# public key: "));
            let public = public.ok_or_else(|| format!("{} does not say its public key", path.display()))?;
            return Ok((path, public.trim().to_owned()));
        }
        let (identity, public) = pgtenant_snapshots::generate_identity();
        let text = Zeroizing::new(format!("# public key: {public}\n{}\n", identity.expose_secret()));
        write_private(&path, text.as_bytes())?;
        Ok((path, public))
    }

    /// A secret that is made once and kept.
    pub(super) fn secret(&self, name: &str) -> Result<(SecretString, PathBuf)> {
        let path = self.root.join(name);
        let secret = match fs::read_to_string(&path) {
            Ok(text) => SecretString::from(text.trim()),
            Err(_) => {
                let secret = pgtenant_postgres::generate_password(&mut rand::rng());
                write_private(&path, secret.expose_secret().as_bytes())?;
                secret
            }
        };
        Ok((secret, path))
    }
}

/// The URL under which a client of this machine reaches `address`.
pub(super) fn url(address: SocketAddr) -> String {
    match address.ip() {
        ip if ip.is_unspecified() => format!("http://127.0.0.1:{}", address.port()),
        _ => format!("http://{address}"),
    }
}

/// Where `dev`, or `lab`, keeps everything if nobody says. Root's own folder can not be passed by the servers' user, so root has the
/// system's.
pub(crate) fn data_folder(of: &str) -> Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok(Path::new("/var/lib/pgtenant").join(of));
    }
    let name = if of == "dev" { "pgtenant".to_owned() } else { format!("pgtenant-{of}") };
    if let Some(data) = std::env::var_os("XDG_DATA_HOME").filter(|v| !v.is_empty()) {
        return Ok(PathBuf::from(data).join(name));
    }
    match std::env::var_os("HOME").filter(|v| !v.is_empty()) {
        Some(home) => Ok(PathBuf::from(home).join(".local/share").join(name)),
        None => Err("HOME is not set\nhint: choose a folder with --dir".into()),
    }
}

fn check_marker(root: &Path) -> Result<()> {
    let path = root.join("pgtenant.json");
    let Ok(text) = fs::read_to_string(&path) else {
        let foreign =
            fs::read_dir(root)?.flatten().any(|e| !["apps", "lock"].iter().any(|ours| e.file_name() == *ours));
        if foreign {
            return Err(format!(
                "{} is not empty, and not a folder of pgtenant\nhint: choose another with --dir",
                root.display()
            )
            .into());
        }
        return Ok(());
    };
    let marker: Marker = serde_json::from_str(&text).map_err(|e| format!("{} can not be read: {e}", path.display()))?;
    if marker.format == FORMAT {
        return Ok(());
    }
    Err(format!(
        "{} was made by pgtenant {} (format {}), this is {} (format {FORMAT})\nhint: use that version, or choose another \
         folder with --dir",
        root.display(),
        marker.version,
        marker.format,
        env!("CARGO_PKG_VERSION"),
    )
    .into())
}

/// Makes the folder and what is missing above it. Where root makes it, the servers' user passes through, whatever root's
/// umask is; what was there before is left as it is.
pub(crate) fn make_passable(dir: &Path) -> std::io::Result<()> {
    if dir.is_dir() || dir.as_os_str().is_empty() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        make_passable(parent)?;
    }
    match fs::create_dir(dir) {
        Ok(()) if rustix::process::geteuid().is_root() => fs::set_permissions(dir, fs::Permissions::from_mode(0o755)),
        // Made a moment ago, as with `missing/..`.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        made => made,
    }
}

fn make_private(path: &Path) -> Result<()> {
    fs::create_dir_all(path)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o700))?)
}

/// Replaces a file that nobody else may read.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("new");
    fs::remove_file(&temporary).ok();
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(fs::rename(&temporary, path)?)
}

/// For a POSIX shell.
pub(super) fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_the_shell() {
        assert_eq!(quote("/var/lib/pgtenant"), "/var/lib/pgtenant");
        assert_eq!(quote("/my folder/it's"), r"'/my folder/it'\''s'");
        assert_eq!(quote(""), "''");
    }
}

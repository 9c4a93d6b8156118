//! Where the programs that Kubernetes consists of are.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::account::Account;
use crate::error::{Error, Result};

/// Paths of the programs. The first that is found of each is taken: in the folder `KUBEBUILDER_ASSETS`, in the cache that
/// `make kubernetes` fills, on `PATH`, in `/usr/bin`.
#[derive(Debug, Clone)]
pub struct KubernetesBinaries {
    /// 3.4 or newer; Debian has it in `etcd-server`.
    pub etcd: PathBuf,
    /// The API server.
    pub kube_apiserver: PathBuf,
    /// Of the same version.
    pub kube_controller_manager: PathBuf,
    /// For people and tests; nothing here needs it.
    pub kubectl: Option<PathBuf>,
    /// For people and tests; nothing here needs it.
    pub helm: Option<PathBuf>,
}

impl KubernetesBinaries {
    /// Finds them, or says what to run.
    pub fn locate() -> Result<Self> {
        Self::locate_in(&folders())
    }

    fn locate_in(folders: &[PathBuf]) -> Result<Self> {
        let find = |name: &str| {
            let path = folders.iter().map(|dir| dir.join(name)).find(|path| path.is_file())?;
            // The cache is behind a link that changes with the version; a server that is started again is to be the same.
            fs::canonicalize(path).ok()
        };
        let need = |name| find(name).ok_or(Error::MissingKubernetes { name });
        Ok(Self {
            etcd: need("etcd")?,
            kube_apiserver: need("kube-apiserver")?,
            kube_controller_manager: need("kube-controller-manager")?,
            kubectl: find("kubectl"),
            helm: find("helm"),
        })
    }

    /// Refuses a server that the servers' user can not reach.
    pub(super) fn require_reachable(&self, account: Option<&Account>) -> Result<()> {
        let Some(account) = account else { return Ok(()) };
        for program in [&self.etcd, &self.kube_apiserver, &self.kube_controller_manager] {
            let dir = program.parent().unwrap_or(Path::new("/"));
            if let Some(blocked) = account.blocked_on_the_way_to(dir)? {
                return Err(Error::Unreachable { user: account.name.clone(), blocked, dir: dir.to_path_buf() });
            }
        }
        Ok(())
    }
}

fn folders() -> Vec<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    let cache = set("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let mut folders: Vec<PathBuf> = set("KUBEBUILDER_ASSETS").map(PathBuf::from).into_iter().collect();
    folders.extend(cache.map(|cache| cache.join("pgtenant/kubernetes/current/bin")));
    folders.extend(env::split_paths(&set("PATH").unwrap_or_default()));
    folders.push("/usr/bin".into());
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        for name in names {
            fs::write(dir.path().join(name), "").expect("written");
        }
        dir
    }

    #[test]
    fn each_program_is_taken_from_the_first_folder_that_has_it() {
        let assets = folder(&["etcd", "kube-apiserver", "kubectl"]);
        let cache = folder(&["kube-apiserver", "kube-controller-manager"]);
        let found = KubernetesBinaries::locate_in(&[assets.path().into(), cache.path().into()]).expect("all of it");
        let real = |dir: &tempfile::TempDir| fs::canonicalize(dir.path()).expect("the folder");
        assert_eq!(found.kube_apiserver, real(&assets).join("kube-apiserver"));
        assert_eq!(found.kube_controller_manager, real(&cache).join("kube-controller-manager"));
        assert_eq!(found.helm, None);
    }

    #[test]
    fn a_missing_program_is_named_with_what_to_run() {
        let assets = folder(&["etcd", "kube-apiserver", "kubectl"]);
        let error = KubernetesBinaries::locate_in(&[assets.path().into()]).expect_err("one is missing");
        assert!(
            error.to_string().starts_with("`kube-controller-manager` was not found: run `make kubernetes`"),
            "{error}"
        );
    }
}

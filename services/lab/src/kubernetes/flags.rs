//! How the programs are called. They run in the servers' own folder.

use std::path::Path;

/// Clients' socket, in the servers' folder. etcd wants a host and a port, and takes both together as the name of a file; it is
/// relative, since a path may be longer than a socket's name can be.
pub(super) const ETCD_SOCKET: &str = "etcd:0";
/// There are no peers, but etcd insists on an address for them.
pub(super) const PEER_SOCKET: &str = "peer:0";

/// The first argument is one that no other process has: the lab knows servers of an earlier run by it.
pub(super) fn etcd(home: &Path, fsync: bool) -> Vec<String> {
    let mut args = vec![
        format!("--data-dir={}", home.join("etcd").display()),
        "--name=default".into(),
        format!("--listen-client-urls=unix://{ETCD_SOCKET}"),
        format!("--advertise-client-urls=unix://{ETCD_SOCKET}"),
        format!("--listen-peer-urls=unix://{PEER_SOCKET}"),
        format!("--initial-advertise-peer-urls=unix://{PEER_SOCKET}"),
        format!("--initial-cluster=default=unix://{PEER_SOCKET}"),
        "--logger=zap".into(),
        "--log-outputs=stderr".into(),
    ];
    args.extend((!fsync).then(|| "--unsafe-no-fsync".to_owned()));
    args
}

/// What is asked is written down when it was answered, with who asked and without what was sent.
pub(super) const AUDIT_POLICY: &str = r#"{"apiVersion":"audit.k8s.io/v1","kind":"Policy","omitStages":["RequestReceived"],"rules":[{"level":"Metadata"}]}"#;
/// In the servers' folder.
pub(super) const AUDIT_POLICY_FILE: &str = "audit-policy.json";
/// In the servers' folder.
pub(super) const AUDIT_LOG: &str = "audit.log";

/// See [`etcd`].
pub(super) fn api_server(home: &Path, port: u16, audit: bool) -> Vec<String> {
    let file = |flag: &str, name: &str| format!("--{flag}={}", home.join(name).display());
    let mut args = vec![
        file("token-auth-file", "tokens.csv"),
        format!("--etcd-servers=unix://{ETCD_SOCKET}"),
        format!("--secure-port={port}"),
        "--bind-address=127.0.0.1".into(),
        // Otherwise it looks for the machine's own address, and does not start where there is no network. Nobody is told of it.
        "--advertise-address=127.0.0.1".into(),
        "--endpoint-reconciler-type=none".into(),
        file("tls-cert-file", "server.crt"),
        file("tls-private-key-file", "server.key"),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        file("service-account-key-file", "service-account.pub"),
        file("service-account-signing-key-file", "service-account.key"),
        "--service-cluster-ip-range=10.0.0.0/24".into(),
        "--authorization-mode=RBAC".into(),
        // It would refuse pods of namespaces whose default account nobody makes here.
        "--disable-admission-plugins=ServiceAccount".into(),
        "--profiling=false".into(),
    ];
    if audit {
        args.extend([file("audit-policy-file", AUDIT_POLICY_FILE), file("audit-log-path", AUDIT_LOG)]);
    }
    args
}

/// See [`etcd`]. Namespaces end and what has lost its owner goes; nothing else of a cluster is played.
pub(super) fn controller_manager(home: &Path) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", home.join("controller-manager.kubeconfig").display()),
        "--controllers=namespace-controller,garbage-collector-controller".into(),
        "--leader-elect=false".into(),
        "--use-service-account-credentials=false".into(),
        "--secure-port=0".into(),
        "--profiling=false".into(),
    ]
}

//! Two HAProxies behind one address that Keepalived moves, as on two machines: each listens in a network namespace of its own. Takes root.
//!
//! ```text
//! this machine ─ pgt-ID ─ uplink ┐
//!                                switch, in namespace pgt-ID
//!         balancer-1: eth0, in namespace pgt-ID-1 ┘ └ balancer-2: eth0, in namespace pgt-ID-2
//! ```
//!
//! HAProxy itself runs in this machine's network, where the servers are, and only listens in the namespace. So servers stay on loopback.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rand::RngExt as _;

use crate::converge::Progress;
use crate::error::{Error, Result};
use crate::ha::haproxy;
use crate::ha::kind::LabKind;
use crate::ha::site::{Daemon, Site};
use crate::ha::state::State;
use crate::pgbouncer;
use crate::process::AtTheEnd;

/// Ports at the address that moves.
pub(crate) const WRITE: u16 = 5000;
pub(crate) const READ: u16 = 5001;
/// The first has the address where both live.
pub(crate) const FIRST: &str = "balancer-1";
pub(crate) const SECOND: &str = "balancer-2";
pub(crate) const MACHINES: [&str; 2] = [FIRST, SECOND];
const KEEPALIVED: &str = "keepalived";
/// As in `docs/lab.md`.
const CONF: &str = include_str!("keepalived.conf");
const ALIVE: &str = include_str!("alive.cfg");
const DEADLINE: Duration = Duration::from_secs(30);
/// Of the numbers in a network: this machine, the first balancer, the address that moves.
const HOST: u32 = 1;
const BALANCER: u32 = 2;
const MOVES: u32 = 10;
const BITS: u8 = 28;

/// What a balancer has of its own in HAProxy's configuration.
pub(crate) struct Own {
    namespace: String,
    /// For the section `global`.
    pub(crate) global: String,
    /// The listener that says that it lives.
    pub(crate) alive: String,
}

impl Own {
    pub(crate) fn bind(&self, port: u16) -> String {
        format!("0.0.0.0:{port} namespace {}", self.namespace)
    }
}

/// The address that moves; none without Keepalived.
pub(crate) fn address(site: &Site) -> Option<Ipv4Addr> {
    Some(numbered(site.state.network?, MOVES))
}

/// None: it is no balancer.
pub(crate) fn own(site: &Site, home: &str) -> Option<Own> {
    site.state.network?;
    let number = number(home)?;
    let namespace = namespace(site, number);
    // It takes root to listen there, and nothing after that.
    let global = site.account().map(|(uid, gid)| format!("    uid {uid}\n    gid {gid}\n")).unwrap_or_default();
    let alive = format!("\n{}", ALIVE.replace("127.0.0.1:8404", &format!("127.0.0.1:8404 namespace {namespace}")));
    Some(Own { namespace, global, alive })
}

/// Refuses where it can not be.
pub(crate) fn require(kind: LabKind) -> Result<()> {
    let refuse =
        |what: &str, instead: &str| Err(Error::Unsuited { what: what.to_owned(), instead: instead.to_owned() });
    if kind != LabKind::Haproxy {
        return refuse("Keepalived is for a lab of kind haproxy: it moves HAProxy's address", "--topology haproxy");
    }
    if !rustix::process::geteuid().is_root() {
        return refuse(
            "Keepalived is run in network namespaces, which only root can make",
            "start the lab as root (`sudo`), or without --keepalived: it has one HAProxy then",
        );
    }
    let needs = [("/usr/sbin/keepalived", "keepalived"), ("/usr/sbin/ip", "iproute2"), ("/usr/bin/curl", "curl")];
    let missing: Vec<_> = needs.into_iter().filter(|(file, _)| !Path::new(file).exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let join = |part: fn(&(&'static str, &'static str)) -> &'static str, with: &str| {
        missing.iter().map(part).collect::<Vec<_>>().join(with)
    };
    let (what, packages) = (join(|(file, _)| file, ", "), join(|(_, package)| package, " "));
    Err(Error::MissingPackages { kind: "haproxy with Keepalived", what, packages })
}

/// Servers that run have certificates without the address.
pub(crate) fn require_new(state: &State, dir: &Path) -> Result<()> {
    if state.ports.is_empty() {
        return Ok(());
    }
    Err(Error::Unsuited {
        what: format!(
            "the lab in {} was made without Keepalived, and its servers' certificates do not name the address",
            dir.display()
        ),
        instead: format!(
            "choose another folder with --dir, or remove that lab: `pgtenant lab down --remove --dir {}`",
            dir.display()
        ),
    })
}

/// One that nobody has here, of those that are for trials (RFC 2544).
pub(crate) fn free_network() -> Result<Ipv4Addr> {
    let taken = ip("-o -4 address show")? + &ip("-o -4 route show")?;
    let mut random = rand::rng();
    let tries = std::iter::repeat_with(|| [198, random.random_range(18..20), random.random_range(0..=255)]);
    let free = |[a, b, c]: &[u8; 3]| !taken.contains(&format!(" {a}.{b}.{c}."));
    let [a, b, c] = tries.take(100).find(free).unwrap_or([198, 18, 0]);
    Ok(Ipv4Addr::new(a, b, c, 16 * random.random_range(0..16)))
}

/// The networks, both HAProxies, and who moves the address. What runs is left alone.
pub(crate) async fn up(site: &mut Site, progress: Progress<'_>) -> Result<()> {
    wire(site)?;
    for (number, home) in (1..).zip(MACHINES) {
        let stats = haproxy::stats_port(home);
        site.prepare(home, &[&stats])?;
        plug(site, number)?;
        if !haproxy::is_up_to_date(site, home)? {
            progress(&format!("starting HAProxy of {home}"));
            let daemon = haproxy::prepare_start(site, home).await?;
            site.start_as_root(home, &daemon, &[site.port(&stats)])?;
        }
        haproxy::wait_until_settled(site, home).await?;
        start_keepalived(site, number, home, progress)?;
    }
    let Some(address) = address(site) else { return Ok(()) };
    let answers = async |site: &Site| {
        MACHINES.iter().filter(|home| held_by(site, home).is_some()).count() == 1
            && pgbouncer::answers(&address.to_string(), WRITE).await
    };
    site.wait_for((FIRST, KEEPALIVED), DEADLINE, &format!("{address} did not lead to the primary"), answers).await
}

fn start_keepalived(site: &mut Site, number: u32, home: &str, progress: Progress<'_>) -> Result<()> {
    let Some(network) = site.state.network.filter(|_| !site.runs(home, KEEPALIVED)) else { return Ok(()) };
    progress(&format!("starting Keepalived of {home}"));
    let conf = CONF
        .replace("INTERFACE", "eth0")
        .replace("OWN_ADDRESS", &numbered(network, BALANCER + number - 1).to_string())
        .replace("PEER_ADDRESS", &numbered(network, BALANCER + 2 - number).to_string())
        .replace("VIRTUAL_ADDRESS", &format!("{}/{BITS}", numbered(network, MOVES)))
        .replace("PRIORITY", &(102 - number).to_string());
    site.write(home, "keepalived.conf", &conf, 0o600)?;
    let file = |name: &str| site.home(home).join(name).display().to_string();
    let namespace = namespace(site, number);
    let words = ["netns", "exec", &namespace, "/usr/sbin/keepalived", "--dont-fork", "--log-console", "--vrrp"];
    let files =
        ["--use-file", &file("keepalived.conf"), "--pid", &file("keepalived.pid"), "--vrrp_pid", &file("vrrp.pid")];
    let args = words.into_iter().chain(files).map(str::to_owned).collect();
    let program = PathBuf::from("/usr/sbin/ip");
    let daemon = Daemon { name: KEEPALIVED, program, args, at_the_end: AtTheEnd::Terminate };
    site.start_as_root(home, &daemon, &[])
}

/// As a machine that lost power: whatever its interface has, nobody gets there. Nothing for what is no balancer.
pub(crate) fn unplug(site: &Site, home: &str) -> Result<()> {
    match (site.state.network, number(home)) {
        (Some(_), Some(number)) => {
            let namespace = namespace(site, number);
            ip(&format!("-n {namespace} link set eth0 down"))?;
            ip(&format!("-n {namespace} address flush dev eth0")).map(drop)
        }
        _ => Ok(()),
    }
}

/// The balancer's own address; Keepalived gives it the other.
fn plug(site: &Site, number: u32) -> Result<()> {
    let Some(network) = site.state.network else { return Ok(()) };
    let (namespace, own) = (namespace(site, number), numbered(network, BALANCER + number - 1));
    ip(&format!("-n {namespace} address replace {own}/{BITS} dev eth0"))?;
    ip(&format!("-n {namespace} link set eth0 up")).map(drop)
}

/// The address, where this balancer has it.
pub(crate) fn held_by(site: &Site, home: &str) -> Option<Ipv4Addr> {
    let (address, number) = (address(site)?, number(home)?);
    let shown = ip(&format!("-n {} -o -4 address show dev eth0", namespace(site, number))).ok()?;
    let up = ip(&format!("-n {} -o link show dev eth0 up", namespace(site, number))).ok()?;
    (shown.contains(&format!(" {address}/")) && !up.is_empty()).then_some(address)
}

/// Makes the namespaces and the links between them, unless they are there: a machine that starts anew has none.
fn wire(site: &Site) -> Result<()> {
    let Some(network) = site.state.network else { return Ok(()) };
    let known = ip("netns list")?;
    let (switch, machines) = (switch(site), [1, 2].map(|number| namespace(site, number)));
    let is_there = |name: &str| known.lines().any(|line| line.split(' ').next() == Some(name));
    if machines.iter().all(|name| is_there(name)) && is_there(&switch) && ip(&format!("link show {switch}")).is_ok() {
        return Ok(());
    }
    remove(site)?;
    ip(&format!("netns add {switch}")).map_err(|error| Error::Unsuited {
        what: format!("this machine makes no network namespaces: {error}"),
        instead: "in a container that takes CAP_SYS_ADMIN and CAP_NET_ADMIN; or leave --keepalived out".to_owned(),
    })?;
    ip(&format!("-n {switch} link add switch type bridge"))?;
    ip(&format!("-n {switch} link set switch up"))?;
    for (number, name) in machines.iter().enumerate() {
        ip(&format!("netns add {name}"))?;
        ip(&format!("-n {name} link set lo up"))?;
        ip(&format!("-n {switch} link add port-{number} type veth peer name eth0 netns {name}"))?;
        ip(&format!("-n {switch} link set port-{number} master switch up"))?;
    }
    // The machine's side has the namespace's name.
    ip(&format!("link add {switch} type veth peer name uplink netns {switch}"))?;
    ip(&format!("-n {switch} link set uplink master switch up"))?;
    ip(&format!("address add {}/{BITS} dev {switch}", numbered(network, HOST)))?;
    ip(&format!("link set {switch} up")).map(drop)
}

/// Nothing of it is left. What runs in it has ended.
pub(crate) fn remove(site: &Site) -> Result<()> {
    if site.state.network.is_none() {
        return Ok(());
    }
    let (known, switch) = (ip("netns list")?, switch(site));
    if ip(&format!("link show {switch}")).is_ok() {
        ip(&format!("link delete {switch}"))?;
    }
    for name in [namespace(site, 1), namespace(site, 2), switch] {
        if known.lines().any(|line| line.split(' ').next() == Some(&name)) {
            ip(&format!("netns delete {name}"))?;
        }
    }
    Ok(())
}

/// 1 or 2.
fn number(home: &str) -> Option<u32> {
    (1..).zip(MACHINES).find(|(_, known)| *known == home).map(|(number, _)| number)
}

fn switch(site: &Site) -> String {
    format!("pgt-{}", site.state.id)
}

fn namespace(site: &Site, number: u32) -> String {
    format!("{}-{number}", switch(site))
}

fn numbered(network: Ipv4Addr, number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(network.to_bits() + number)
}

/// Runs `ip`, whose words have no blanks.
fn ip(words: &str) -> Result<String> {
    let failed = |output: String| Error::Command { program: format!("ip {words}"), output };
    let mut command = Command::new("/usr/sbin/ip");
    command.args(words.split(' ')).stdin(Stdio::null()).env("LC_ALL", "C.UTF-8");
    let done = command.output().map_err(|error| failed(error.to_string()))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    Err(failed(String::from_utf8_lossy(&done.stderr).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_these_configurations() {
        let document = include_str!("../../../../docs/lab.md");
        for (language, text) in [("keepalived", CONF), ("haproxy", ALIVE)] {
            assert!(document.contains(&format!("```{language}\n{text}```\n")), "docs/lab.md has another {language}");
        }
    }

    #[test]
    fn addresses_of_a_network() {
        let network = Ipv4Addr::new(198, 18, 7, 240);
        assert_eq!(numbered(network, MOVES), Ipv4Addr::new(198, 18, 7, 250));
        assert_eq!([FIRST, SECOND, "haproxy"].map(number), [Some(1), Some(2), None]);
    }

    #[test]
    fn kinds_without_haproxy_have_none() {
        let error = require(LabKind::Patroni).expect_err("another kind");
        assert!(error.to_string().contains("hint: --topology haproxy"), "{error}");
    }
}

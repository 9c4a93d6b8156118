//! Keepalived moves an address when HAProxy beside it dies: the configuration of `docs/lab.md`, on two machines that are network
//! namespaces, and a client on a third. That takes root.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::folder;
use crate::ha::DEADLINE;

const DOCUMENT: &str = include_str!("../../../../docs/lab.md");
const VIP: &str = "192.0.2.10";
const BALANCERS: [(&str, &str); 2] = [("one", "192.0.2.11"), ("two", "192.0.2.12")];

/// What the document has between fences of this language.
fn block(language: &str) -> &'static str {
    let (_, rest) = DOCUMENT.split_once(&format!("```{language}\n")).expect("a block in docs/lab.md");
    rest.split_once("\n```").expect("its end").0
}

fn run(command: &str) -> Result<String, String> {
    let mut words = command.split(' ');
    let output =
        Command::new(words.next().expect("a program")).args(words).output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(format!("{command}: {}", text(&output.stderr))) }
}

/// Three machines at a switch. They go with it, and so does what runs there.
struct Network {
    prefix: String,
    processes: Vec<Child>,
}

impl Network {
    fn new() -> Result<Self, String> {
        let network = Self { prefix: format!("lab{}", std::process::id()), processes: Vec::new() };
        let client = network.machine("client");
        run(&format!("ip netns add {client}"))?;
        run(&format!("ip -n {client} link set lo up"))?;
        run(&format!("ip -n {client} link add switch type bridge"))?;
        run(&format!("ip -n {client} addr add 192.0.2.1/24 dev switch"))?;
        run(&format!("ip -n {client} link set switch up"))?;
        for (name, address) in BALANCERS {
            let machine = network.machine(name);
            run(&format!("ip netns add {machine}"))?;
            run(&format!("ip -n {machine} link set lo up"))?;
            run(&format!("ip -n {client} link add port-{name} type veth peer name wire-{name} netns {machine}"))?;
            run(&format!("ip -n {client} link set port-{name} master switch up"))?;
            run(&format!("ip -n {machine} addr add {address}/24 dev wire-{name}"))?;
            run(&format!("ip -n {machine} link set wire-{name} up"))?;
        }
        Ok(network)
    }

    fn machine(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// It ends with this test, in whatever way.
    fn start(&mut self, machine: &str, log: &Path, args: &[&str]) -> usize {
        let log = fs::File::create(log).expect("a log");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--", "ip", "netns", "exec", &self.machine(machine)]).args(args);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("the log")).stderr(log);
        self.processes.push(command.spawn().expect("a process"));
        self.processes.len() - 1
    }

    /// Who answers at the address that moves.
    fn who(&self) -> Option<String> {
        run(&format!("ip netns exec {} curl --silent --max-time 1 http://{VIP}:5000/", self.machine("client"))).ok()
    }

    async fn wait_for(&self, wanted: &str, logs: &Path) {
        let start = Instant::now();
        while self.who().as_deref() != Some(wanted) {
            let said = || BALANCERS.map(|(name, _)| fs::read_to_string(logs.join(format!("{name}.keepalived.log"))));
            assert!(start.elapsed() < DEADLINE, "not {wanted} but {:?} answers: {:#?}", self.who(), said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for child in &mut self.processes {
            let pid = child.id().to_string();
            // Keepalived ends its own process of VRRP.
            Command::new("kill").args(["-TERM", &pid]).output().ok();
            child.wait().ok();
        }
        for name in ["client"].into_iter().chain(BALANCERS.map(|(name, _)| name)) {
            run(&format!("ip netns del {}", self.machine(name))).ok();
        }
    }
}

#[tokio::test]
async fn the_address_moves_when_haproxy_dies() {
    let mut network = match Network::new() {
        Ok(network) => network,
        Err(why) => {
            println!("  SKIPPED: Keepalived in network namespaces: {}", why.trim());
            return;
        }
    };
    let dir = folder();
    let mut first = None;
    for ((name, address), (_, peer)) in BALANCERS.into_iter().zip(BALANCERS.into_iter().rev()) {
        let file = |end: &str| dir.path().join(format!("{name}.{end}"));
        // In the place of PostgreSQL, HAProxy itself says who it is.
        let haproxy = format!(
            "defaults\n    timeout connect 1s\n    timeout client 5s\n    timeout server 5s\n{}\nlisten write\n    bind :5000\n    \
             mode http\n    http-request return status 200 content-type text/plain string {name}\n",
            block("haproxy")
        );
        fs::write(file("haproxy.cfg"), haproxy).expect("written");
        let priority = if name == "one" { "101" } else { "100" };
        let keepalived = block("keepalived")
            .replace("INTERFACE", &format!("wire-{name}"))
            .replace("OWN_ADDRESS", address)
            .replace("PEER_ADDRESS", peer)
            .replace("VIRTUAL_ADDRESS", &format!("{VIP}/24"))
            .replace("PRIORITY", priority);
        fs::write(file("conf"), keepalived).expect("written");
        let path = |end: &str| file(end).to_string_lossy().into_owned();
        let haproxy = ["haproxy", "-db", "-f", &path("haproxy.cfg")];
        first = first.or(Some(network.start(name, &file("haproxy.log"), &haproxy)));
        let flags = ["keepalived", "--dont-fork", "--log-console", "--vrrp"];
        let files = ["--use-file", &path("conf"), "--pid", &path("pid"), "--vrrp_pid", &path("vrrp.pid")];
        network.start(name, &file("keepalived.log"), &[flags.as_slice(), files.as_slice()].concat());
    }
    network.wait_for("one", dir.path()).await;
    let start = Instant::now();
    network.processes[first.expect("it was started")].kill().expect("SIGKILL");
    network.wait_for("two", dir.path()).await;
    println!("  measured: lab Keepalived had the address moved {:?} after HAProxy was killed", start.elapsed());
    // No other machine has it now: two with one address would answer by turns.
    let addresses = |name: &str| run(&format!("ip -n {} -brief address", network.machine(name))).expect("addresses");
    assert!(!addresses("one").contains(VIP) && addresses("two").contains(VIP));
}

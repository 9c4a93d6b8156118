//! Ports on loopback.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rand::RngExt;
use tokio::net::TcpSocket;

use crate::error::{Error, Result};

/// A port that nothing listens on now, on 127.0.0.1 nor ::1. It lies below the range from which the kernel takes ports for
/// outgoing connections, so that none of those takes it before a server does.
pub fn free_port() -> u16 {
    let mut random = rand::rng();
    let tries = std::iter::repeat_with(|| random.random_range(15_000..32_000));
    // With 17,000 ports to choose from, a hundred that are taken mean a machine without any.
    tries.take(100).find(|port| is_free(*port)).unwrap_or(15_432)
}

/// Refuses a port that something listens on.
pub(crate) fn require_free(port: u16, server: &str) -> Result<()> {
    if is_free(port) { Ok(()) } else { Err(Error::PortInUse { port, server: server.to_owned() }) }
}

/// Binds without listening: a socket that is only bound keeps no server from its port, should a child that is being forked
/// just now hold a copy of it for a moment.
fn is_free(port: u16) -> bool {
    let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    loopback.into_iter().all(|address| match bind((address, port).into()) {
        Ok(()) => true,
        // Anything but "in use" (no IPv6 here, …) is for PostgreSQL to judge.
        Err(error) => !matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied),
    })
}

fn bind(address: SocketAddr) -> io::Result<()> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // As PostgreSQL does it: connections that have just ended are no obstacle.
    socket.set_reuseaddr(true)?;
    socket.bind(address)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_taken_port_is_refused() {
        let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0))
            .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .expect("a loopback address");
        let port = listener.local_addr().expect("its address").port();
        let error = require_free(port, "node-1").expect_err("it is taken");
        assert!(error.to_string().contains(&port.to_string()), "{error}");
        require_free(free_port(), "node-1").expect("a free one");
    }
}

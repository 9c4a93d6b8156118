//! The door on a socket.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::Method;
use pgtenant_api::{ApiSettings, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::world::{World, eventually, request};

async fn start(world: &World) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (address, tokio::spawn(serve(listener, world.state.clone())))
}

/// Sends bytes and reads until the server closes.
async fn exchange(address: SocketAddr, bytes: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // It may close before it has read everything.
    let _ = stream.write_all(bytes.as_bytes()).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    let asked = &bytes[..bytes.len().min(60)];
    let _ = read.unwrap_or_else(|_| panic!("{asked:?} is not closed: {}", String::from_utf8_lossy(&answer)));
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn it_speaks_http() {
    let world = World::new().await;
    let (address, server) = start(&world).await;
    let answer = exchange(address, "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\"version\":\"0.1.0\"}"), "{answer}");
    let head = exchange(address, "HEAD /v1/databases HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 401") && head.ends_with("\r\n\r\n"), "{head}");
    let many: String = (0..100).map(|n| format!("x-{n}: 1\r\n")).collect();
    let answer = exchange(address, &format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{many}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let long = "a".repeat(300_000);
    let answer = exchange(address, &format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx-long: {long}\r\n\r\n")).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    world.shutdown.cancel();
    server.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn one_who_says_nothing_is_cut_off() {
    let world = World::with(ApiSettings { header_timeout: Duration::from_millis(100), ..ApiSettings::default() }).await;
    let (address, _server) = start(&world).await;
    exchange(address, "GET /healthz HTTP/1.1\r\nhost:").await;
    exchange(address, "").await;
}

#[tokio::test]
async fn streams_end_when_it_stops() {
    let world = World::new().await;
    let (address, server) = start(&world).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", world.tenant);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut first = [0; 15];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    world.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(5), server).await.expect("it stops").unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"), "the stream is ended, not cut");
}

#[tokio::test]
async fn one_who_takes_nothing_is_cut_off() {
    let settings =
        ApiSettings { write_timeout: Duration::from_millis(200), sse_per_token: 1, ..ApiSettings::default() };
    let world = World::with(settings).await;
    let (address, _server) = start(&world).await;
    world
        .execute(
            "insert into events (kind, namespace, name, message)
             select 'Updated', 'team', 'e', repeat('m', 10000) from generate_series(1, 3000) n",
        )
        .await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let asked = format!("GET /v1/events?after=0 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", world.tenant);
    stream.write_all(asked.as_bytes()).await.unwrap();
    stream.readable().await.unwrap();
    let open = async || world.stream(request(&world.tenant, Method::GET, "/v1/events", "", &[])).await.status();
    assert_eq!(open().await, 429);
    eventually("its place is free", async || open().await == 200).await;
}

//! The stream of events.

use std::time::Duration;

use axum::body::BodyDataStream;
use axum::http::Method;
use futures::StreamExt;
use pgtenant_api::ApiSettings;
use serde_json::{Value, json};

use crate::world::{DATABASES, World, eventually, request};

/// A client and what it has not read yet.
struct Client {
    body: BodyDataStream,
    text: String,
}

#[derive(Debug)]
struct Sent {
    id: i64,
    kind: String,
    data: Value,
}

impl Client {
    async fn open(world: &World, token: &str, query: &str, headers: &[(&str, &str)]) -> Self {
        let response = world.stream(request(token, Method::GET, &format!("/v1/events{query}"), "", headers)).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body().into_data_stream(), text: String::new() }
    }

    /// The next block; none: the stream has ended.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let block = block.to_owned();
                self.text = rest.to_owned();
                return Some(block);
            }
            let more = tokio::time::timeout(Duration::from_secs(20), self.body.next()).await.expect("something");
            self.text.push_str(std::str::from_utf8(&more?.unwrap()).unwrap());
        }
    }

    async fn next(&mut self) -> Option<Sent> {
        loop {
            let block = self.block().await?;
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            let Some(data) = field("data:") else { continue };
            return Some(Sent {
                id: field("id:").unwrap().parse().unwrap(),
                kind: field("event:").unwrap().to_owned(),
                data: serde_json::from_str(data).unwrap(),
            });
        }
    }

    async fn names(&mut self, count: usize) -> Vec<String> {
        let mut names = Vec::new();
        for _ in 0..count {
            names.push(self.next().await.expect("an event").data["name"].as_str().unwrap().to_owned());
        }
        names
    }
}

async fn make_other(world: &World, name: &str) {
    world.post(&world.foreign, "/v1/namespaces/other/databases", json!({"name": name})).await.expect(201);
}

#[tokio::test]
async fn events_are_sent_as_they_happen() {
    let world = World::new().await;
    let mut client = Client::open(&world, &world.tenant, "", &[]).await;
    let made = world.post(&world.tenant, DATABASES, json!({"name": "a"})).await.expect(201);
    let sent = client.next().await.unwrap();
    assert_eq!(
        (sent.kind.as_str(), &sent.data["type"], &sent.data["name"]),
        ("Created", &json!("Created"), &json!("a"))
    );
    assert_eq!((&sent.data["id"], &sent.data["namespace"]), (&json!(sent.id), &json!("team")));
    assert_eq!(sent.data["detail"]["operation"].as_str().unwrap(), made.header("pgtenant-operation"));
}

#[tokio::test]
async fn a_client_that_comes_back_misses_none() {
    let world = World::new().await;
    let mut client = Client::open(&world, &world.tenant, "?after=0", &[]).await;
    for name in ["a", "b"] {
        world.make(name).await;
    }
    let first = client.next().await.unwrap();
    drop(client);
    world.make("c").await;
    let id = first.id.to_string();
    let mut back = Client::open(&world, &world.tenant, "", &[("last-event-id", &id)]).await;
    assert_eq!(back.names(2).await, ["b", "c"]);
    world.make("d").await;
    assert_eq!(back.names(1).await, ["d"]);
    let mut other = Client::open(&world, &world.tenant, &format!("?after={id}"), &[]).await;
    assert_eq!(other.names(3).await, ["b", "c", "d"]);
}

#[tokio::test]
async fn a_long_replay_comes_in_order_and_goes_on() {
    let world = World::new().await;
    world
        .execute(
            "insert into events (kind, namespace, name, message)
             select 'Updated', 'team', 'e' || n, 'm' from generate_series(1, 1700) n",
        )
        .await;
    let mut client = Client::open(&world, &world.tenant, "?after=0", &[]).await;
    for n in 1..=1000 {
        assert_eq!(client.next().await.unwrap().data["name"], format!("e{n}"));
    }
    world.make("a").await;
    for n in 1001..=1700 {
        assert_eq!(client.next().await.unwrap().data["name"], format!("e{n}"));
    }
    assert_eq!(client.names(1).await, ["a"]);
}

#[tokio::test]
async fn streams_show_what_the_token_may_read_and_what_is_asked() {
    let world = World::new().await;
    let mut foreign = Client::open(&world, &world.foreign, "?after=0", &[]).await;
    let mut mine = Client::open(&world, &world.tenant, "", &[]).await;
    let mut all = Client::open(&world, &world.platform, "", &[]).await;
    let mut named = Client::open(&world, &world.platform, "?name=z&namespace=other", &[]).await;
    world.make("z").await;
    make_other(&world, "y").await;
    make_other(&world, "z").await;
    world.make("last").await;
    assert_eq!(foreign.names(2).await, ["y", "z"]);
    assert_eq!(mine.names(2).await, ["z", "last"]);
    assert_eq!(all.names(4).await, ["z", "y", "z", "last"]);
    assert_eq!(named.next().await.unwrap().data["namespace"], "other");
    world.get(&world.tenant, "/v1/events?namespace=other").await.expect_problem(404, "not-found");
    for query in ["after=-1", "after=99999999999999999999", "name=%00", "namespace=A", "x=1"] {
        world.get(&world.tenant, &format!("/v1/events?{query}")).await.expect_problem(400, "invalid-query");
    }
    for id in ["x", "-1", "9007199254740992", ""] {
        let reply = world.ask_with(&world.tenant, Method::GET, "/v1/events", None, &[("last-event-id", id)]).await;
        reply.expect_problem(400, "invalid-header");
    }
}

#[tokio::test]
async fn a_silent_stream_is_kept_alive_and_ends_with_its_token() {
    let settings = ApiSettings {
        sse_keep_alive: Duration::from_millis(50),
        token_ttl: Duration::from_millis(50),
        ..ApiSettings::default()
    };
    let world = World::with(settings).await;
    let mut client = Client::open(&world, &world.tenant, "", &[]).await;
    assert!(client.block().await.unwrap().starts_with(':'));
    drop(client);

    // The end of a token is not waited for until the next comment.
    let settings = ApiSettings { token_ttl: Duration::from_millis(50), ..ApiSettings::default() };
    let world = World::with(settings).await;
    let mut client = Client::open(&world, &world.tenant, "", &[]).await;
    world.execute("update tokens set revoked_at = now() where name = 'tenant'").await;
    assert!(client.next().await.is_none());
}

#[tokio::test]
async fn a_slow_client_misses_none_either() {
    let world = World::new().await;
    let mut slow = Client::open(&world, &world.tenant, "", &[]).await;
    let mut quick = Client::open(&world, &world.tenant, "", &[]).await;
    world.make("a").await;
    assert_eq!((slow.names(1).await, quick.names(1).await), (vec!["a".to_owned()], vec!["a".to_owned()]));
    // More than is kept for the slow one, in parts that are kept for the quick one.
    for _ in 0..5 {
        world
            .execute(
                "with written as (insert into events (kind, namespace, name, message)
                                  select 'Updated', 'team', 'e', 'm' from generate_series(1, 400) n returning id)
                 select pg_notify('pgtenant_events', '') from (select count(*) from written) counted",
            )
            .await;
        for _ in 0..400 {
            quick.next().await.unwrap();
        }
    }
    let mut last = slow.next().await.unwrap().id;
    for _ in 1..2000 {
        let id = slow.next().await.unwrap().id;
        assert_eq!(id, last + 1);
        last = id;
    }
    world.make("b").await;
    assert_eq!((slow.names(1).await, quick.names(1).await), (vec!["b".to_owned()], vec!["b".to_owned()]));
}

#[tokio::test]
async fn nothing_is_missed_while_the_ledger_is_away() {
    let world = World::new().await;
    let mut client = Client::open(&world, &world.tenant, "", &[]).await;
    world.make("a").await;
    assert_eq!(client.names(1).await, ["a"]);
    for name in ["b", "c", "d"] {
        // The listener's connection, and with it what it would have been told.
        world
            .execute(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity
                 where datname = current_database() and query ilike 'listen%' and pid <> pg_backend_pid()",
            )
            .await;
        world.make(name).await;
        assert_eq!(client.names(1).await, [name]);
    }
}

#[tokio::test]
async fn streams_of_a_token_are_few() {
    let world = World::with(ApiSettings { sse_per_token: 2, ..ApiSettings::default() }).await;
    let first = Client::open(&world, &world.tenant, "", &[]).await;
    let _second = Client::open(&world, &world.tenant, "", &[]).await;
    world.get(&world.tenant, "/v1/events").await.expect_problem(429, "too-many-requests");
    let _other = Client::open(&world, &world.viewer, "", &[]).await;
    drop(first);
    eventually("a place is free", async || {
        let request = request(&world.tenant, Method::GET, "/v1/events", "", &[]);
        world.stream(request).await.status() == 200
    })
    .await;
}

//! What becomes of a password, for everything that the stores may have.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use pgtenant_ledger::Wish;
use pgtenant_model::{
    ClaimKey, ClaimSpec, DatabaseState, Provisioner, RoleStatus, Roles, Source, Span, StoreLocation, StreamingTopology,
    TlsSpec, Topology,
};
use pgtenant_secrets::{Action, Fault, Held, StoreError};

use super::*;

const TIER: Tier = Tier::Write;
const OVERLAP: Span = Span::from_secs(300);

fn spec() -> ClusterSpec {
    let topology = Topology::Streaming(StreamingTopology { hosts: Vec::new() });
    let provisioner = Provisioner::from_file("prov_a", "/prov".into());
    ClusterSpec { rotate_overlap: OVERLAP, ..ClusterSpec::new(topology, provisioner, TlsSpec::default(), Vec::new()) }
}

fn state(word: &str, side: Side, age: TimeDelta) -> CredentialState {
    CredentialState {
        fingerprint: fingerprint(&SecretString::from(word)),
        side,
        set_at: Utc::now() - age,
        former_since: None,
        next: None,
        cleaned: None,
    }
}

/// A claim that was Ready with one store, `store one`.
fn claim(known: Option<CredentialState>) -> Claim {
    let status = RoleStatus {
        role: "a-b-write".to_owned(),
        login: "a-b-write".to_owned(),
        set_at: None,
        stores: vec![StoreLocation::new("one", "name")],
    };
    Claim {
        id: uuid::Uuid::nil(),
        key: ClaimKey::new("a", "b").unwrap(),
        spec: ClaimSpec::default(),
        moved_from: Vec::new(),
        source: Source::Api,
        source_ref: None,
        source_generation: None,
        wish: Wish::Present,
        released: false,
        adopt: false,
        purge: false,
        rotate: Vec::new(),
        rotate_at: None,
        asked_at: None,
        keep_at: None,
        proven_at: None,
        generation: 1,
        observed_generation: 1,
        state: DatabaseState::Ready,
        conditions: Vec::new(),
        endpoint: None,
        roles: Some(Roles { read: status.clone(), write: status.clone(), admin: status }),
        credentials: known.into_iter().map(|known| (TIER, known)).collect::<BTreeMap<_, _>>(),
        created_at: Utc::now(),
        wished_at: Utc::now(),
        due_at: Utc::now(),
        attempts: 0,
    }
}

fn reach() -> Reach {
    let endpoint = Endpoint { host: "db".to_owned(), port: 5432, read_host: None, read_port: None };
    Reach { endpoint, hosts: Vec::new(), sslmode: SslMode::VerifyFull, ca_crt: None, pool: None }
}

fn target() -> CredentialTarget {
    CredentialTarget { key: ClaimKey::new("a", "b").unwrap(), tier: TIER }
}

fn held(word: &str, side: Side) -> Result<Held, StoreError> {
    Ok(Held::Credential(reach().credential(&target(), side, &SecretString::from(word))))
}

fn silent() -> Result<Held, StoreError> {
    let fault = Fault::Io { step: "open", source: std::io::Error::other("away") };
    Err(StoreError { store: "one", action: Action::Read, location: "name".to_owned(), fault })
}

fn found<const N: usize>(stores: [(&'static str, Result<Held, StoreError>); N]) -> Findings {
    let found = |(store, held)| Found { store, location: "name".to_owned(), held };
    stores.into_iter().map(found).collect::<Vec<_>>().into()
}

/// In one word, with the login and the password where there are any.
fn chosen(claim: &Claim, spec: &ClusterSpec, found: &Findings, lost: bool) -> String {
    let rules = Rules { claim, spec, now: Utc::now(), idle: false };
    let word = |password: &SecretString| {
        let word = secrecy::ExposeSecret::expose_secret(password).to_owned();
        if word.len() > 20 { "fresh".to_owned() } else { word }
    };
    match choose(rules, TIER, found, lost) {
        Choice::Keep(password) => format!("keep {}", password.as_ref().map_or_else(|| "unread".to_owned(), word)),
        Choice::Wait(password, _) => format!("wait {}", password.as_ref().map_or_else(|| "unread".to_owned(), word)),
        Choice::First(side, password) => format!("first {side:?} {}", word(&password)),
        Choice::Turn { password, reason, .. } => format!("turn {}: {reason}", word(&password)),
        Choice::Lost => "lost".to_owned(),
    }
}

#[test]
fn the_first_password_is_the_one_that_a_former_try_has_stored() {
    let (claim, spec) = (claim(None), spec());
    let choose = |stores| chosen(&claim, &spec, &stores, false);
    assert_eq!(choose(found([("one", Ok(Held::Missing))])), "first A fresh");
    assert_eq!(choose(found([("one", held("p", Side::A)), ("two", held("p", Side::A))])), "first A p");
    assert_eq!(choose(found([("one", held("p", Side::B))])), "first B p", "kept from an earlier claim");
    assert_eq!(choose(found([("one", held("p", Side::A)), ("two", held("q", Side::A))])), "first A fresh");
    assert_eq!(choose(found([("one", held("p", Side::A)), ("two", Ok(Held::Missing))])), "first A fresh");
}

#[test]
fn what_some_store_has_is_kept() {
    let (claim, spec) = (claim(Some(state("p", Side::A, TimeDelta::days(400)))), spec());
    let choose = |stores| chosen(&claim, &spec, &stores, false);
    assert_eq!(choose(found([("one", held("p", Side::A))])), "keep p");
    assert_eq!(choose(found([("one", silent()), ("two", held("p", Side::A))])), "keep p");
    assert_eq!(choose(found([("one", Ok(Held::Missing)), ("two", held("p", Side::A))])), "keep p");
    assert_eq!(choose(found([("one", held("p", Side::A)), ("two", held("q", Side::A))])), "keep p", "two is new");
    assert_eq!(choose(found([("one", Ok(Held::Unread)), ("two", Ok(Held::Reference))])), "keep unread");
    assert_eq!(choose(found([("one", Ok(Held::Reference))])), "lost", "nobody has the credential itself");
    assert_eq!(choose(found([("one", silent())])), "lost");
    assert_eq!(choose(found([("one", Ok(Held::Missing))])), "lost", "until the store itself is known to be there");
}

#[test]
fn what_is_lost_or_changed_by_hand_is_replaced() {
    let (claim, spec) = (claim(Some(state("p", Side::A, TimeDelta::zero()))), spec());
    let choose = |stores, lost| chosen(&claim, &spec, &stores, lost);
    assert_eq!(choose(found([("one", Ok(Held::Missing))]), true), "turn fresh: no store has the credential");
    let by_hand = "turn fresh: the stored credential was changed by hand: store \"one\", name";
    assert_eq!(choose(found([("one", held("q", Side::A))]), false), "lost", "until all stores are known to be there");
    assert_eq!(choose(found([("one", held("q", Side::A))]), true), by_hand);
    assert_eq!(choose(found([("one", Ok(Held::Broken("no JSON".to_owned())))]), true), by_hand);
    assert_eq!(choose(found([("one", held("q", Side::A)), ("two", held("p", Side::A))]), false), by_hand);
}

#[test]
fn a_rotation_goes_on_with_what_a_store_has_of_it() {
    let spec = spec();
    let made_at = Utc::now();
    let next = NextPassword { fingerprint: fingerprint(&SecretString::from("q")), reason: "asked".to_owned(), made_at };
    let known = CredentialState { next: Some(next), ..state("p", Side::A, TimeDelta::zero()) };
    let asked = Claim { rotate: vec![TIER], ..claim(Some(known)) };
    let choose = |stores| chosen(&asked, &spec, &stores, false);
    assert_eq!(choose(found([("one", held("q", Side::B)), ("two", held("p", Side::A))])), "turn q: asked");
    assert_eq!(choose(found([("one", silent()), ("two", held("q", Side::B))])), "turn q: asked");
    // It may be the one that has it: the caller asks for all answers before anything follows.
    assert_eq!(choose(found([("one", silent())])), "lost");
    let again = "turn fresh: a new password was asked for";
    assert_eq!(choose(found([("one", held("p", Side::A))])), again, "nobody has seen it");
}

#[test]
fn a_wish_waits_until_the_former_login_may_be_used_again() {
    let spec = spec();
    let of = |minutes, asked: bool| {
        let former_since = Some(Utc::now() - TimeDelta::minutes(minutes));
        let known = CredentialState { former_since, ..state("p", Side::B, TimeDelta::minutes(minutes)) };
        Claim { rotate: if asked { vec![TIER] } else { Vec::new() }, ..claim(Some(known)) }
    };
    let there = || found([("one", held("p", Side::B))]);
    assert_eq!(chosen(&of(4, true), &spec, &there(), false), "wait p");
    assert_eq!(chosen(&of(6, true), &spec, &there(), false), "turn fresh: a new password was asked for");
    assert_eq!(chosen(&of(4, false), &spec, &there(), false), "keep p");
    let lost = found([("one", Ok(Held::Missing))]);
    assert_eq!(
        chosen(&of(4, false), &spec, &lost, true),
        "turn fresh: no store has the credential",
        "nothing to wait for"
    );
}

#[test]
fn a_password_that_is_too_old_is_replaced() {
    let spec = ClusterSpec { rotate_every: Some(Span::from_secs(86_400)), ..spec() };
    let there = || found([("one", held("p", Side::A))]);
    let of = |hours| claim(Some(state("p", Side::A, TimeDelta::hours(hours))));
    assert_eq!(chosen(&of(23), &spec, &there(), false), "keep p");
    assert_eq!(chosen(&of(25), &spec, &there(), false), "turn fresh: it is older than 1d");
}

#[tokio::test]
async fn nothing_is_concluded_from_a_store_that_does_not_answer() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("store");
    let file = pgtenant_model::FileStore { directory: directory.clone(), name: "{role}".to_owned() };
    let specs = [pgtenant_model::StoreSpec::File(file)];
    let stores = Stores::from_specs("stores", &specs, &pgtenant_secrets::Access::default()).unwrap();
    let spec = spec();
    let next = NextPassword {
        fingerprint: fingerprint(&SecretString::from("q")),
        reason: "asked".to_owned(),
        made_at: Utc::now(),
    };
    let known = CredentialState { next: Some(next), ..state("p", Side::A, TimeDelta::days(2)) };
    let asked = Claim { rotate: vec![TIER], ..claim(Some(known)) };
    let decide = async || {
        let rules = Rules { claim: &asked, spec: &spec, now: Utc::now(), idle: false };
        wanted(rules, TIER, &reach(), &stores).await.map(|one| one.credential.map(|one| one.password))
    };
    let stored = reach().credential(&target(), Side::B, &SecretString::from("q"));
    stores.put(&target(), &stored).await.unwrap();
    // The directory is away, and what was last written to it is what applications read.
    std::fs::rename(&directory, folder.path().join("aside")).unwrap();
    std::fs::write(&directory, "").unwrap();
    let failure = decide().await.unwrap_err();
    assert_eq!(failure.reason(), "StoreFailed", "{}", failure.message());
    std::fs::remove_file(&directory).unwrap();
    std::fs::rename(folder.path().join("aside"), &directory).unwrap();
    let password = decide().await.unwrap().unwrap();
    assert_eq!(secrecy::ExposeSecret::expose_secret(&password), "q", "it goes on with that one");
}

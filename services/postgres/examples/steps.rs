#![allow(clippy::unwrap_used, missing_docs, clippy::print_stdout)]
use pgtenant_model::*;
use pgtenant_postgres::*;
use std::sync::Mutex;
use std::time::*;
#[tokio::main]
async fn main() {
    let port: u16 = std::env::args().nth(1).unwrap().parse().unwrap();
    let n: usize = std::env::args().nth(2).unwrap().parse().unwrap();
    let opts = |u: &str, p: secrecy::SecretString| ServerOptions {
        host: "127.0.0.1".into(),
        port,
        sslmode: SslMode::VerifyFull,
        ca_file: Some("/tmp/pgx/ca.crt".into()),
        username: u.into(),
        password: p,
        maintenance_database: "postgres".into(),
        application_name: "bench".into(),
        timeouts: Timeouts::default(),
    };
    let root = Server::new(opts("postgres", "supersecret".into())).unwrap();
    bootstrap(
        &root,
        &Bootstrap {
            group: "pgtenant".into(),
            logins: vec![("prov_a".into(), Verifier::of(&"supersecret".into()))],
            close_to_public: false,
        },
    )
    .await
    .unwrap();
    let server = Server::new(opts("prov_a", "supersecret".into())).unwrap();
    println!(
        "{:?}",
        preflight(&mut server.maintenance().await.unwrap())
            .await
            .unwrap()
            .iter()
            .map(|p| p.to_string())
            .collect::<Vec<_>>()
    );
    let times: Mutex<std::collections::BTreeMap<String, Vec<Duration>>> = Default::default();
    let add = |k: &str, d: Duration| times.lock().unwrap().entry(k.into()).or_default().push(d);
    for i in 0..n {
        let key = ClaimKey::new("bench", format!("d{i}")).unwrap();
        let mut desired = Desired::new(key.clone(), &ClaimSpec::default());
        let t0 = Instant::now();
        let pw = Tier::ALL.map(|t| (t, generate_password(&mut rand::rng())));
        desired.passwords = pw.iter().map(|(t, p)| (*t, Verifier::of(p))).collect();
        add("0 verifiers", t0.elapsed());
        let t = Instant::now();
        let mut s = server.maintenance().await.unwrap();
        add("1 session", t.elapsed());
        let t = Instant::now();
        let o = observe(&server, &mut s, &key, &[]).await.unwrap();
        add("2 observe", t.elapsed());
        let t = Instant::now();
        let p = plan(&desired, &o).unwrap();
        add("3 plan", t.elapsed());
        let began = Mutex::new(Instant::now());
        let on = |st: Step| {
            let mut b = began.lock().unwrap();
            if st.done {
                add(&format!("4 {}", st.name), b.elapsed());
            }
            *b = Instant::now();
        };
        let on2 = |st: Step| {
            if st.done {
                add("5 inside batch", began.lock().unwrap().elapsed());
            }
            *began.lock().unwrap() = Instant::now();
        };
        run_maintenance(&server, &mut s, &p, &Unfenced, &on).await.unwrap();
        drop(s);
        let t = Instant::now();
        let d = key.database();
        let prove = async |tier: Tier, i: usize| server.prove(&d, &key.role(tier), &pw[i].1).await.unwrap();
        let (r, _a, _b, _c) = tokio::join!(
            run_inside(&server, &p, &Unfenced, &on2),
            prove(Tier::Read, 0),
            prove(Tier::Write, 1),
            prove(Tier::Admin, 2)
        );
        r.unwrap();
        add("6 inside + 3 proofs", t.elapsed());
        add("7 total", t0.elapsed());
        let t = Instant::now();
        let mut s = _c;
        let ins = observe_inside(&mut s, &desired, "pgtenant").await.unwrap();
        add("8 observe inside", t.elapsed());
        let t = Instant::now();
        let mut m = server.maintenance().await.unwrap();
        let mut o = observe(&server, &mut m, &key, &[]).await.unwrap();
        add("8 observe full", t.elapsed());
        o.inside = Some(ins);
        desired.passwords.clear();
        assert!(plan(&desired, &o).unwrap().is_empty());
    }
    if n > 99 {
        let keys: Vec<_> = (0..100).map(|i| ClaimKey::new("bench", format!("d{i}")).unwrap()).collect();
        let mut m = server.maintenance().await.unwrap();
        for _ in 0..5 {
            let t = Instant::now();
            let v: Vec<(&ClaimKey, &[String])> = keys.iter().map(|k| (k, &[][..])).collect();
            observe_many(&server, &mut m, &v).await.unwrap();
            add("8 observe 100", t.elapsed());
        }
    }
    for i in 0..n {
        let key = ClaimKey::new("bench", format!("d{i}")).unwrap();
        let mut s = server.maintenance().await.unwrap();
        let o = observe(&server, &mut s, &key, &[]).await.unwrap();
        let began = Mutex::new(Instant::now());
        let on = |st: Step| {
            let mut b = began.lock().unwrap();
            if st.done {
                add(&format!("9 {}", st.name), b.elapsed());
            }
            *b = Instant::now();
        };
        let mut tries = 0;
        loop {
            let p = plan_drop(&key, &o).unwrap();
            match run_maintenance(&server, &mut s, &p, &Unfenced, &on).await {
                Ok(()) => break,
                Err(e) => {
                    tries += 1;
                    if tries > 50 {
                        panic!("{e}")
                    }
                }
            }
        }
    }
    for (k, mut v) in times.into_inner().unwrap() {
        v.sort();
        println!("{k:24} median {:>8.2?} p90 {:>8.2?} n {}", v[v.len() / 2], v[v.len() * 9 / 10], v.len());
    }
    println!("connections {}", server.connections());
}

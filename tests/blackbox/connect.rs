//! `db connect`: psql with the right role, verified TLS, and no password that anybody can see.

use std::time::Duration;

use pgtenant_tests::{Credential, Place, Running, TIERS, eventually, read_proc, rows, run, unique};

use crate::shared;

#[tokio::test]
async fn psql_opens_as_the_tier_that_was_asked_for_over_verified_tls() {
    let dev = shared::dev().await;
    let (cli, namespace) = (dev.cli(), unique("open"));
    dev.api().ready(&namespace, "db").await;
    let target = format!("{namespace}/db");
    let query =
        "select current_user || ' ' || current_database() || ' ' || ssl from pg_stat_ssl where pid = pg_backend_pid()";
    for tier in TIERS {
        let done = cli.run(&["db", "connect", &target, "--tier", tier, "--", "-Atc", query]).await.expect(0);
        assert_eq!(done.stdout.trim(), format!("{namespace}-db-{tier} {namespace}-db true"));
    }
    let reader = cli.run(&["db", "connect", &target, "--", "-Atc", "select current_user"]).await.expect(0);
    assert_eq!(reader.stdout.trim(), format!("{namespace}-db-read"), "read is the default");
    // Whatever psql fails with is 1 (2, where it can not connect), and an unknown CA is refused.
    cli.run(&["db", "connect", &target, "--", "-v", "ON_ERROR_STOP=1", "-c", "select nonsense"]).await.expect(1);
    let wrong = cli.clone().env("PGTENANT_CA", Place::shared().await.ca);
    let refused = wrong.run(&["db", "connect", &target, "--", "-c", "select 1"]).await;
    assert!(refused.status == 1 && refused.stderr.contains("certificate"), "{}", refused.stderr);
}

#[tokio::test]
async fn it_is_interactive_on_a_terminal() {
    let dev = shared::dev().await;
    let namespace = unique("terminal");
    dev.api().ready(&namespace, "db").await;
    let line = format!("{} db connect {namespace}/db --tier admin", pgtenant_tests::binary().display());
    let folder = pgtenant_tests::Folder::new("terminal");
    std::fs::write(folder.join("typed"), "select 6 * 7 as answer;\n\\conninfo\n\\q\n").unwrap();
    let mut script = dev.cli().command_of("/usr/bin/env".as_ref(), &["bash", "-c"]);
    let typescript = folder.join("typescript");
    script.arg(format!(
        "script --quiet --return --command '{line}' {} < {}",
        typescript.display(),
        folder.join("typed").display()
    ));
    script.env("TERM", "dumb").env("PAGER", "cat");
    let done = run(script).await.expect(0);
    assert!(done.stdout.contains("answer") && done.stdout.contains("42"), "{}", done.stdout);
    assert!(done.stdout.contains(&format!("{namespace}-db-admin")) && done.stdout.contains("SSL"), "{}", done.stdout);
}

#[tokio::test]
async fn nobody_sees_the_password_while_psql_runs_and_nothing_is_left_afterwards() {
    let dev = shared::dev().await;
    let namespace = unique("unseen");
    dev.api().ready(&namespace, "db").await;
    let credential = Credential::read(&dev.secrets(), &namespace, "db", "write");
    let folder = pgtenant_tests::Folder::new("runtime");
    let cli = dev.cli().env("TMPDIR", folder.path()).env("XDG_RUNTIME_DIR", folder.path());
    let query = "select pg_sleep(60)";
    let command = cli.command(&["db", "connect", &format!("{namespace}/db"), "--tier", "write", "--", "-c", query]);
    let mut running = Running::spawn(&command, folder.path(), "connect");
    let busy = format!(
        "select count(*)::text from pg_stat_activity where usename = '{namespace}-db-write' and query = '{query}'"
    );
    eventually("psql is at work", Duration::from_secs(20), || async {
        let count = rows(&dev.superuser(), None, &busy).await;
        if count == ["1"] { Ok(()) } else { Err(running.said()) }
    })
    .await;
    let mut looked_at = 0;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        looked_at += 1;
        let seen = read_proc(pid, "cmdline") + &read_proc(pid, "environ");
        assert!(!seen.contains(&credential.password), "the password is seen in process {pid}");
    }
    assert!(looked_at > 5);
    running.signal(rustix::process::Signal::TERM);
    running.end(Duration::from_secs(20)).await;
    let left: Vec<String> =
        pgtenant_tests::files_below(folder.path()).into_iter().filter(|file| !file.starts_with("connect.")).collect();
    assert_eq!(left, Vec::<String>::new(), "the password file stays");
}

#[tokio::test]
async fn on_a_terminal_create_waits_and_words_have_colours_unless_they_are_not_wanted() {
    let dev = shared::dev().await;
    let namespace = unique("colours");
    let on_a_terminal = async |line: String, env: &[(&str, &str)]| {
        let cli = env.iter().fold(dev.cli(), |cli, (name, value)| cli.env(name, *value));
        let line = format!("{} {line}", pgtenant_tests::binary().display());
        let mut script = cli.command_of("script".as_ref(), &["--quiet", "--return", "--command", &line, "/dev/null"]);
        script.env("TERM", "xterm");
        run(script).await.expect(0).stdout
    };
    let made = on_a_terminal(format!("db create {namespace}/db"), &[]).await;
    assert!(made.contains("is Ready"), "it waits without being told to: {made}");
    let list = format!("db list --namespace {namespace}");
    let coloured = on_a_terminal(list.clone(), &[]).await;
    assert!(coloured.contains("\u{1b}["), "Ready is green: {coloured:?}");
    for plain in
        [on_a_terminal(list.clone(), &[("NO_COLOR", "1")]).await, on_a_terminal(list + " --no-color", &[]).await]
    {
        assert!(!plain.contains("\u{1b}["), "{plain:?}");
    }
}

//! Throttling, refusals, silence, answers that are lost, reads that lag behind.

use std::io::Write;
use std::sync::{Arc, Mutex};

use pgtenant_secrets::Removal;
use pgtenant_testkit::Trouble;
use secrecy::ExposeSecret as _;

use super::*;

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_repeated_and_makes_one_version() {
    let (fake, store) = begun().await;
    let (first, second) = (entry("one"), entry("two"));
    fake.order("CreateSecret", Trouble::LoseAnswer, 1);
    put(&store, &first).await.unwrap();
    assert_eq!((fake.count("CreateSecret"), fake.secret(NAME).unwrap().versions.len()), (2, 1));
    fake.order("PutSecretValue", Trouble::LoseAnswer, 1);
    put(&store, &second).await.unwrap();
    assert_eq!((fake.count("PutSecretValue"), fake.secret(NAME).unwrap().versions.len()), (2, 2));
    assert!(is_unread(&store, &second).await);
    fake.order("DeleteSecret", Trouble::LoseAnswer, 1);
    store.delete_many(std::slice::from_ref(&first.0), Removal::Usual).await.unwrap();
    assert!(fake.secret(NAME).unwrap().recovery_window_days.is_some() && fake.orders_are_done());
}

#[tokio::test]
async fn a_throttled_call_is_made_again() {
    let (fake, store) = begun().await;
    let entry = entry("one");
    fake.order("CreateSecret", Trouble::Throttle, 1);
    put(&store, &entry).await.unwrap();
    assert_eq!(fake.count("CreateSecret"), 2);

    // For as long as it is of use.
    fake.forget_calls();
    fake.order("DescribeSecret", Trouble::Throttle, 100);
    let error = store.get(&entry.0, None).await.unwrap_err();
    assert!(error.explain().contains("quota") || error.explain().contains("throttled"), "{}", error.explain());
    assert!((2..=4).contains(&fake.count("DescribeSecret")), "{} tries", fake.count("DescribeSecret"));
}

#[tokio::test]
async fn a_refusal_names_the_action_and_says_what_to_do() {
    let (fake, store) = begun().await;
    let entry = entry("hunter2");
    fake.order("CreateSecret", Trouble::Deny, 1);
    let error = put(&store, &entry).await.unwrap_err();
    for part in
        ["secretsmanager:CreateSecret", NAME, "pgtenant aws iam-policy", "store \"awsSecretsManager\" can not write"]
    {
        assert!(error.explain().contains(part), "{}", error.explain());
    }
    assert!(!error.fault.silent() && !format!("{error:?} {}", error.explain()).contains("hunter2"));

    let cases = [
        (
            "DecryptionFailure",
            "Secrets Manager can't decrypt the protected secret text using the provided KMS key.",
            "kms:",
        ),
        ("AccessDeniedException", "Access to KMS is not allowed", "kms:GenerateDataKey"),
        (
            "LimitExceededException",
            "You have exceeded the quota for the number of secrets.",
            "quota of Secrets Manager",
        ),
        ("ExpiredTokenException", "The security token included in the request is expired", "IRSA"),
        ("UnrecognizedClientException", "The security token included in the request is invalid.", "IRSA"),
    ];
    for (code, message, advice) in cases {
        // Some of these the SDK tries again.
        let (fake, store) = begun().await;
        fake.order("CreateSecret", Trouble::Refuse(code, message.to_owned()), 10);
        let error = put(&store, &entry).await.unwrap_err();
        assert!(error.explain().contains(message) && error.explain().contains(advice), "{code}: {}", error.explain());
    }
    // The message is AWS's: it is bounded, and one line.
    let long = format!("line\n{}", "x".repeat(10_000));
    fake.order("CreateSecret", Trouble::Refuse("ValidationException", long), 1);
    let text = put(&store, &entry).await.unwrap_err().explain();
    assert!(text.len() < 700 && !text.contains('\n'), "{text}");
    put(&store, &entry).await.unwrap();
}

#[tokio::test]
async fn nobody_there_and_nobody_known_are_told_apart() {
    let entry = entry("one");
    let port = pgtenant_testkit::free_port();
    let away = store_with(&format!("http://127.0.0.1:{port}"), json!({}));
    for error in [put(&away, &entry).await.unwrap_err(), away.reach().await.unwrap_err()] {
        assert!(error.fault.silent(), "{error:?}");
        assert!(error.advice().contains("when AWS answers"), "{}", error.explain());
    }
    let (fake, store) = begun().await;
    fake.order("CreateSecret", Trouble::Ignore, 100);
    let error = put(&store, &entry).await.unwrap_err();
    assert!(error.fault.silent() && error.fault.to_string().contains("did not answer in time"), "{error:?}");
    // The listing is away as well: nothing is known, and nothing is missing.
    fake.order("ListSecrets", Trouble::Ignore, 100);
    fake.order("DescribeSecret", Trouble::Ignore, 100);
    let error = store.get(&entry.0, Some(id(&entry.1))).await.unwrap_err();
    assert!(error.fault.silent(), "{error:?}");
}

#[tokio::test]
async fn reads_that_lag_behind_do_no_harm() {
    let (fake, store) = begun().await;
    let (first, second) = (entry("one"), entry("two"));
    put(&store, &first).await.unwrap();
    // AWS says that there is one, and that there is none.
    fake.order("DescribeSecret", Trouble::Stale, 2);
    put(&super::store(&fake), &second).await.unwrap();
    assert_eq!(fake.secret(NAME).unwrap().current(), Some(id(&second.1).to_string().as_str()));
    // The listing is as it was before the store's own write, and is not believed.
    put(&store, &first).await.unwrap();
    fake.order("ListSecrets", Trouble::Stale, 1);
    assert!(is_unread(&store, &first).await);
    // To a process that knows nothing, an old listing says that something is wrong, and it asks.
    let other = super::store(&fake);
    fake.order("ListSecrets", Trouble::Stale, 1);
    assert!(is_unread(&other, &first).await);
    // What was written a moment ago is removed, whatever a read says.
    let (fake, store) = begun().await;
    put(&store, &first).await.unwrap();
    fake.order("DescribeSecret", Trouble::Stale, 2);
    store.delete_many(std::slice::from_ref(&first.0), Removal::Final).await.unwrap();
    assert!(fake.secret(NAME).is_none(), "it was left behind");
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// With everything that the SDK has to say, down to what it traces.
#[tokio::test]
async fn no_log_shows_a_password() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
    let subscriber = subscriber.with_writer(move || writer.clone()).finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let (fake, store) = begun().await;
    let (first, second) = (entry("hunter2-one"), entry("hunter2-two"));
    put(&store, &first).await.unwrap();
    put(&store, &second).await.unwrap();
    fake.order("GetSecretValue", Trouble::Throttle, 1);
    let Held::Credential(there) = read(&store, &first.0).await else { panic!("no credential") };
    assert_eq!(there.password.expose_secret(), "hunter2-two");
    fake.order("CreateSecret", Trouble::Deny, 1);
    put(&store_with(fake.url(), json!({"name": "x/{role}"})), &first).await.unwrap_err();
    drop(guard);
    let text = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(text.contains("CreateSecret"), "nothing was traced; the test proves nothing");
    let leak = text.lines().find(|line| line.contains("hunter2"));
    assert_eq!(leak, None);
}

//! `pgtenant events`.

use std::time::Duration;

use clap::Args;
use pgtenant_model::Event;

use super::context::Context;
use super::error::{CliError, Outcome, Result};
use super::http::{Client, Document, EventStream, HttpError, Item, Message};
use super::operation::json_word;
use super::output::{Output, Paint, note, time};

const PAUSE: Duration = Duration::from_secs(2);

/// Arguments of `pgtenant events`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Events are kept for a week.

Examples:
  pgtenant events -n idp-dev
  pgtenant events -f
  pgtenant events -f -n idp-dev --name my-db --output json")]
pub(super) struct EventsArgs {
    /// Go on with what happens from now on
    #[arg(short, long)]
    follow: bool,
    /// Only this namespace
    #[arg(short, long, value_name = "NS")]
    namespace: Option<String>,
    /// Only the database or cluster of this name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Only events after the one with this id [default: all that are kept; with --follow: those to come]
    #[arg(long, value_name = "ID")]
    after: Option<u64>,
}

pub(super) async fn run(context: &Context, args: &EventsArgs) -> Result<Outcome> {
    let client = context.client()?;
    let after = args.after.or((!args.follow).then_some(0)).map(|id| id.to_string());
    let parts = [("namespace", &args.namespace), ("name", &args.name), ("after", &after)];
    let query: Vec<(&str, &str)> = parts.iter().filter_map(|(key, value)| Some((*key, value.as_deref()?))).collect();
    let mut last = None;
    let mut stream = client.events(&query, None).await?;
    if !args.follow {
        return stored(context, stream).await;
    }
    loop {
        match stream.next().await {
            Ok(Some(message)) => {
                print(&context.out, &message)?;
                last = message.id.or(last);
            }
            Ok(None) => stream = again(&client, &query, last.as_deref(), "the control plane ended the stream").await?,
            Err(error) => stream = again(&client, &query, last.as_deref(), &error.to_string()).await?,
        }
    }
}

/// Prints what is kept, up to the control plane's word that this is all.
async fn stored(context: &Context, mut stream: EventStream) -> Result<Outcome> {
    let patience = context.request_timeout();
    let cut = |why: &str| CliError::failed(format!("these may not be all events: {why}"));
    loop {
        let item = tokio::time::timeout(patience, stream.item()).await.map_err(|_| {
            cut(&format!("nothing came for {}", humantime::format_duration(patience)))
                .hint("a longer --timeout may help")
        })?;
        match item? {
            Some(Item::Message(message)) => print(&context.out, &message)?,
            Some(Item::CaughtUp) => return Ok(Outcome::Done),
            None => return Err(cut("the control plane ended the stream")),
        }
    }
}

/// Opens the stream again where it broke, for as long as that may help.
async fn again(
    client: &Client,
    query: &[(&str, &str)],
    last: Option<&str>,
    why: &str,
) -> Result<EventStream, HttpError> {
    note(&format!("warning: {why}; going on as soon as it answers"));
    loop {
        tokio::time::sleep(PAUSE).await;
        match client.events(query, last).await {
            Err(error) if error.is_transient() || matches!(error, HttpError::Connect { .. }) => {}
            other => return other,
        }
    }
}

fn print(out: &Output, message: &Message) -> Result<()> {
    let fault = |error: serde_json::Error| CliError::failed(format!("an event can not be understood: {error}"));
    if out.is_for_machines() {
        let document: Document = serde_json::from_str(&message.data).map_err(fault)?;
        out.streamed(&document)?;
        return Ok(());
    }
    let Event { at, kind, namespace, name, message, .. } = serde_json::from_str(&message.data).map_err(fault)?;
    let kind = json_word(kind);
    let target = namespace.map_or_else(|| name.clone(), |namespace| format!("{namespace}/{name}"));
    let padded = format!("{kind:18}");
    let shown = message.replace(|c: char| c.is_control(), " ");
    out.line(format!("{}  {} {target}  {shown}", time(at), out.paint(&padded, Paint::of_word(&kind))))?;
    Ok(())
}

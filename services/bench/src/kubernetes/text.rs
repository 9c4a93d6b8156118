//! What is printed of it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::door::Side;
use super::{Door, Kubernetes, Rest};
use crate::report::new_table;
use crate::stats::median;

pub(crate) fn details(Kubernetes { door, rest }: &Kubernetes) -> String {
    let mut text = String::from("\nclaims at once, as objects and over REST, by round\n");
    let mut table = new_table(&["round", "objects s", "REST s", "ratio", "apply median ms", "POST median ms"]);
    for (index, round) in door.rounds.iter().enumerate() {
        let posted = |side: &Side| median(&side.burst.claims.iter().map(|sample| sample.posted).collect::<Vec<_>>());
        table.add_row([
            (index + 1).to_string(),
            format!("{:.2}", round.objects.burst.seconds),
            format!("{:.2}", round.rest.burst.seconds),
            format!("{:.2}", round.ratio()),
            format!("{:.1}", posted(&round.objects)),
            format!("{:.1}", posted(&round.rest)),
        ]);
    }
    let _ = writeln!(text, "{table}");
    text.push_str(&cost(door));
    text.push_str(&at_rest(rest));
    text
}

fn cost(door: &Door) -> String {
    let sides = |objects: bool, value: &dyn Fn(&Side) -> f64| {
        let side = door.rounds.iter().map(|round| value(if objects { &round.objects } else { &round.rest }));
        median(&side.collect::<Vec<_>>())
    };
    let mut text = String::from("processor ms for each claim\n");
    let mut table =
        new_table(&["", "API server", "etcd", "pgtenant", "primary", "standby", "ledger", "benchmark", "together"]);
    for (what, objects) in [("objects", true), ("REST", false)] {
        let of = |value: &dyn Fn(&Side) -> f64| sides(objects, value);
        let parts = [
            of(&|side| side.servers.api_server),
            of(&|side| side.servers.etcd),
            of(&|side| side.cpu.pgtenant),
            of(&|side| side.cpu.primary),
            of(&|side| side.cpu.standby),
            of(&|side| side.cpu.ledger),
            of(&|side| side.cpu.bench),
        ];
        let all = parts.into_iter().chain([parts.iter().sum()]).map(|ms| format!("{ms:.1}"));
        table.add_row(std::iter::once(what.to_owned()).chain(all));
    }
    let _ = writeln!(text, "{table}");
    let kinds: BTreeSet<&String> =
        door.rounds.iter().flat_map(|round| round.objects.requests.keys().chain(round.rest.requests.keys())).collect();
    let mut table = new_table(&["requests to the API server for each claim", "objects", "REST"]);
    let row = |what: &str, value: &dyn Fn(&Side) -> f64| {
        [what.to_owned(), format!("{:.2}", sides(true, value)), format!("{:.2}", sides(false, value))]
    };
    for kind in kinds {
        table.add_row(row(kind, &|side| side.requests.get(kind).copied().unwrap_or_default()));
    }
    table.add_row(row("together", &|side| side.requests.values().sum()));
    let _ = writeln!(text, "{table}");
    text
}

fn at_rest(rest: &[Rest]) -> String {
    let mut text = String::from(
        "\nobjects at rest: one released for real, the others what that left (object, row of the ledger, three Secrets),\n\
         copied; caught up: from the start of the process until it leads and has seen to all of them\n",
    );
    let mut table = new_table(&[
        "objects",
        "caught up s",
        "CPU s",
        "requests",
        "ledger's transactions",
        "peak MB",
        "core %",
        "RSS MB",
        "requests /min",
        "other's core %",
        "other's RSS MB",
    ]);
    for one in rest {
        table.add_row([
            one.objects.to_string(),
            format!("{:.1}", one.start.seconds),
            format!("{:.2}", one.start.cpu),
            format!("{:.0}", one.start.requests),
            format!("{:.0}", one.start.transactions),
            format!("{:.1}", one.start.memory.peak),
            format!("{:.2}", one.leader.cpu),
            format!("{:.1}", one.leader.memory.resident),
            format!("{:.0}", one.requests / one.window * 60.0),
            format!("{:.2}", one.other.cpu),
            format!("{:.1}", one.other.memory.resident),
        ]);
    }
    let _ = writeln!(text, "{table}");
    text
}

//! The same file through the stock client: `client-28.2.2.json` holds the bodies that `docker stack deploy` of client 28.2.2
//! sent for `stack.yml`, in the folder `/stack` and with the environment below.

#![expect(clippy::unwrap_used, reason = "a broken test should stop where it broke")]

use std::collections::BTreeMap;

use serde_json::Value;
use skep_compose::{Stack, Surroundings, load};

fn read() -> Stack {
    let environment =
        [("HOME", "/home/somebody"), ("FROM_OUTSIDE", "outside"), ("ONLY_NAMED", "named"), ("TAG", "")];
    let environment: BTreeMap<String, String> =
        environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let read = |path: &str| match path {
        "/stack/web.env" => Ok(include_str!("stock/web.env").to_owned()),
        _ => Err(format!("open {path}: no such file or directory")),
    };
    let surroundings = Surroundings { environment: &environment, folder: "/stack", read: &read };
    load("stack.yml", include_str!("stock/stack.yml"), "st", &surroundings).unwrap()
}

/// Without what Go writes and nobody reads: nothing, no, and nought.
fn bare(value: &Value) -> Value {
    match value {
        Value::Object(entries) => {
            let entries = entries.iter().map(|(key, value)| (key.clone(), bare(value)));
            let is_empty = |value: &Value| matches!(value, Value::Null | Value::Bool(false)) || value == "";
            entries.filter(|(_, value)| !is_empty(value)).collect()
        }
        Value::Array(list) => list.iter().map(bare).collect(),
        Value::Number(number) => number.as_f64().into(),
        value => value.clone(),
    }
}

#[test]
fn a_stack_is_what_the_stock_client_sends() {
    let stack = read();
    let sent: Value = serde_json::from_str(include_str!("stock/client-28.2.2.json")).unwrap();
    for (kind, own) in [("networks", &stack.networks), ("services", &stack.services)] {
        let sent = sent[kind].as_object().unwrap();
        assert_eq!(own.keys().collect::<Vec<_>>(), sent.keys().collect::<Vec<_>>());
        for (name, body) in own {
            let (own, sent) = (bare(body), bare(&sent[name]));
            // ForceUpdate is nothing that a file can say.
            let mut sent = sent;
            if let Some(task) = sent.get_mut("TaskTemplate").and_then(Value::as_object_mut) {
                task.remove("ForceUpdate");
            }
            let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap();
            for (own, sent) in pretty(&own).lines().zip(pretty(&sent).lines()) {
                assert_eq!(own, sent, "{name}");
            }
            assert_eq!(own, sent, "{name}");
        }
    }
    assert_eq!(stack.external_networks.iter().collect::<Vec<_>>(), ["existing-network"]);
    assert_eq!(stack.ignored, ["build", "depends_on", "oom_score_adj"]);
}

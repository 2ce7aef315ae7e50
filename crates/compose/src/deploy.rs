//! The section `deploy` of a service.

use serde_json::{Value as Json, json};

use crate::error::Fault;
use crate::read::Object;
use crate::units;
use crate::yaml::{Node, Value};

/// How many tasks.
pub(crate) fn mode(deploy: &Node) -> Result<Json, Fault> {
    let replicas = deploy.count("replicas")?;
    let refuse_replicas = || match replicas {
        Some(_) => {
            Err(deploy.fault("replicas", "replicas can only be used with replicated or replicated-job mode"))
        }
        None => Ok(()),
    };
    match deploy.text("mode").as_str() {
        "" | "replicated" => {
            Ok(json!({ "Replicated": Object::default().keep("Replicas", replicas).build() }))
        }
        "global" => refuse_replicas().map(|()| json!({ "Global": {} })),
        "global-job" => refuse_replicas().map(|()| json!({ "GlobalJob": {} })),
        "replicated-job" => {
            let counts = Object::default().keep("MaxConcurrent", replicas).keep("TotalCompletions", replicas);
            Ok(json!({ "ReplicatedJob": counts.build() }))
        }
        mode => Err(deploy.fault("mode", format!("unknown mode: {mode}"))),
    }
}

/// How an update or a rollback goes.
pub(crate) fn update(deploy: &Node, key: &str) -> Result<Option<Json>, Fault> {
    let Some(node) = deploy.get(key) else { return Ok(None) };
    let ratio = match node.get("max_failure_ratio").map(|ratio| &ratio.value) {
        // Go reads it into 32 bits.
        Some(Value::Float(ratio)) => *ratio as f32,
        Some(Value::Integer(ratio)) => *ratio as f32,
        _ => 0.0,
    };
    Ok(Some(
        Object::default()
            .keep("Parallelism", Some(node.count("parallelism")?.unwrap_or(1)))
            .add("Delay", node.duration("delay").unwrap_or_default())
            .add("FailureAction", node.text("failure_action"))
            .add("Monitor", node.duration("monitor").unwrap_or_default())
            // The shortest decimal of those 32 bits, as Go writes it.
            .keep("MaxFailureRatio", Some(ratio.to_string().parse::<f64>().unwrap_or_default()))
            .keep("Order", Some(node.text("order")))
            .build(),
    ))
}

/// Limits and reservations.
pub(crate) fn resources(deploy: &Node) -> Result<Json, Fault> {
    let Some(node) = deploy.get("resources") else { return Ok(json!({})) };
    let limits = node.get("limits").map(|limits| -> Result<Json, Fault> {
        Ok(amounts(limits)?.add("Pids", limits.integer("pids").unwrap_or_default()).build())
    });
    let reservations = node.get("reservations").map(|reserved| -> Result<Json, Fault> {
        let generic = reserved.items("generic_resources").iter().map(|resource| {
            let discrete = resource.get("discrete_resource_spec").map(|spec| {
                json!({ "Kind": spec.text("kind"), "Value": spec.integer("value").unwrap_or_default() })
            });
            Object::default().keep("DiscreteResourceSpec", discrete).build()
        });
        Ok(amounts(reserved)?.add("GenericResources", generic.collect::<Vec<_>>()).build())
    });
    Ok(Object::default()
        .keep("Limits", limits.transpose()?)
        .keep("Reservations", reservations.transpose()?)
        .build())
}

fn amounts(node: &Node) -> Result<Object, Fault> {
    let read = |key: &str, unit: fn(&str) -> Option<i64>, what: &str| {
        let text = node.text(key);
        if text.is_empty() {
            return Ok(0);
        }
        unit(&text).ok_or_else(|| node.fault(key, format!("invalid {what}: '{text}'")))
    };
    Ok(Object::default()
        .add("NanoCPUs", read("cpus", units::nano_cpus, "number of CPUs")?)
        .add("MemoryBytes", read("memory", units::bytes, "size")?))
}

/// What follows a task's end: as the section says, or as `restart` of the service.
pub(crate) fn restart(service: &Node, deploy: &Node) -> Result<Option<Json>, Fault> {
    if let Some(node) = deploy.get("restart_policy") {
        return Ok(Some(
            Object::default()
                .add("Condition", node.text("condition"))
                .keep("Delay", node.duration("delay"))
                .keep("MaxAttempts", node.count("max_attempts")?)
                .keep("Window", node.duration("window"))
                .build(),
        ));
    }
    let text = service.text("restart");
    let (name, count) = text.split_once(':').unwrap_or((&text, ""));
    let refuse = |message: &str| Err(service.fault("restart", message));
    if name.is_empty() && !text.is_empty() {
        return refuse("invalid restart policy format: no policy provided before colon");
    }
    let attempts = match count.parse::<i64>() {
        _ if count.is_empty() => 0,
        Ok(count) if count < 0 => {
            return refuse("invalid restart policy: maximum retry count cannot be negative");
        }
        Ok(count) => count,
        Err(_) => return refuse("invalid restart policy format: maximum retry count must be an integer"),
    };
    let condition = match name {
        "" | "no" => return Ok(None),
        "always" | "unless-stopped" => "any",
        "on-failure" => "on-failure",
        name => return refuse(&format!("invalid restart policy: unknown policy '{name}'")),
    };
    Ok(Some(Object::default().add("Condition", condition).add("MaxAttempts", attempts).build()))
}

/// Where tasks may run.
pub(crate) fn placement(deploy: &Node) -> Result<Json, Fault> {
    let Some(node) = deploy.get("placement") else { return Ok(json!({})) };
    let preference = |node: &Node| json!({ "Spread": { "SpreadDescriptor": node.text("spread") } });
    let preferences: Vec<Json> = node.items("preferences").iter().map(preference).collect();
    Ok(Object::default()
        .add("Constraints", node.texts("constraints"))
        .add("Preferences", preferences)
        .add("MaxReplicas", node.count("max_replicas_per_node")?.unwrap_or_default())
        .build())
}

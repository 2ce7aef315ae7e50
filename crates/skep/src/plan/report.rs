//! A deployment in lines for people.

use std::fmt::Write;

use skep_compose::Difference;

use super::deployment::{Action, Deployment, Step, Update};

/// All of it, and a line that counts.
pub fn text(deployment: &Deployment) -> String {
    let mut text = String::new();
    let (mut create, mut change, mut remove, mut leave, mut refused) = (0, 0, 0, 0, 0);
    for Step { kind, name, action } in &deployment.steps {
        let said = match action {
            Action::Leave => {
                leave += 1;
                "unchanged".to_owned()
            }
            Action::Create => {
                create += 1;
                "create".to_owned()
            }
            Action::Remove { tasks } => {
                remove += 1;
                format!("remove, with {tasks} tasks")
            }
            Action::Update(update) => {
                change += 1;
                effect(update)
            }
            Action::Refused(reason) => {
                refused += 1;
                format!("refused: {reason}")
            }
        };
        // Writing to a String does not fail.
        let _ = writeln!(text, "{kind} {name}: {said}");
        if let Action::Update(update) = action {
            for difference in &update.differences {
                let _ = writeln!(text, "  {}", field(update, difference));
            }
        }
    }
    let refused = if refused > 0 { format!(", {refused} refused") } else { String::new() };
    let counts = format!("{create} to create, {change} to update, {remove} to remove, {leave} unchanged");
    let _ = writeln!(text, "{counts}{refused}");
    text
}

fn effect(Update { tasks, replaced, runs_again, .. }: &Update) -> String {
    match (runs_again, replaced) {
        (true, _) => "update, runs the job again, as every deployment does".to_owned(),
        (false, 0) => "update, restarts no task".to_owned(),
        (false, replaced) => format!("update, restarts {replaced} of {tasks} tasks"),
    }
}

fn field(update: &Update, difference: &Difference) -> String {
    let Difference { field, old, new, part } = difference;
    let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "(none)".to_owned());
    let restarts = if update.replaces(*part) { "  (restarts tasks)" } else { "" };
    format!("{field}: {} -> {}{restarts}", value(old), value(new))
}

#[cfg(test)]
mod tests {
    use skep_compose::Part;

    use super::*;

    #[test]
    fn a_deployment_is_told_line_by_line() {
        let difference = |field: &str, old: Option<&str>, new: Option<&str>, part| Difference {
            field: field.to_owned(),
            old: old.map(str::to_owned),
            new: new.map(str::to_owned),
            part,
        };
        let web = Update {
            differences: vec![
                difference("deploy.replicas", Some("1"), Some("2"), Part::Service),
                difference("environment.A", None, Some("\"x\""), Part::Task),
            ],
            tasks: 1,
            replaced: 1,
            runs_again: false,
        };
        let bound = Update {
            differences: vec![difference("deploy.placement.constraints", None, Some("[]"), Part::Placement)],
            tasks: 3,
            replaced: 0,
            runs_again: false,
        };
        let step = |kind, name: &str, action| Step { kind, name: name.to_owned(), action };
        let steps = vec![
            step("service", "s_old", Action::Remove { tasks: 2 }),
            step("network", "s_front", Action::Create),
            step("secret", "s_key", Action::Refused("not built".to_owned())),
            step("service", "s_web", Action::Update(web)),
            step("service", "s_bound", Action::Update(bound)),
            step("service", "s_db", Action::Leave),
        ];
        let expected = "service s_old: remove, with 2 tasks\n\
            network s_front: create\n\
            secret s_key: refused: not built\n\
            service s_web: update, restarts 1 of 1 tasks\n  \
              deploy.replicas: 1 -> 2\n  \
              environment.A: (none) -> \"x\"  (restarts tasks)\n\
            service s_bound: update, restarts no task\n  \
              deploy.placement.constraints: (none) -> []\n\
            service s_db: unchanged\n\
            1 to create, 2 to update, 1 to remove, 1 unchanged, 1 refused\n";
        assert_eq!(text(&Deployment { steps }), expected);
    }
}

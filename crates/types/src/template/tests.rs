#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

fn with_context<T>(look: impl FnOnce(&Context<'_>) -> T) -> T {
    let labels =
        [("tier", "front"), ("com.example.zone", "a")].map(|(name, value)| (name.into(), value.into()));
    look(&Context {
        service_id: "sid",
        service_name: "web",
        service_labels: &labels.into(),
        node_id: "nid",
        node_hostname: "bee",
        node_architecture: "x86_64",
        node_os: "linux",
        task_id: "tid",
        task_name: "web.3.tid",
        task_slot: "3",
    })
}

#[test]
fn templates_give_what_go_s_give() {
    for (template, expected) in [
        ("plain } text", "plain } text"),
        ("{{.Service.ID}} {{ .Service.Name }}", "sid web"),
        ("{{.Service.Labels.tier}}", "front"),
        (r#"{{index .Service.Labels "com.example.zone"}}"#, "a"),
        (r#"[{{index .Service.Labels "none"}}]"#, "[]"),
        ("{{.Service.Labels}}", "map[com.example.zone:a tier:front]"),
        ("{{.Node.ID}}/{{.Node.Hostname}}", "nid/bee"),
        ("{{.Node.Platform.Architecture}}-{{.Node.Platform.OS}}", "x86_64-linux"),
        ("{{.Task.ID}} {{.Task.Name}} {{.Task.Slot}}", "tid web.3.tid 3"),
        (r#"{{join ":" .Task.Slot .Service.Name "x"}}"#, "3:web:x"),
        (r#"{{.Service.Name | printf "%s-%s" "a"}}"#, "a-web"),
        (r#"{{if eq .Task.Slot "3"}}third{{else}}other{{end}}"#, "third"),
        (r#"{{if eq .Task.Slot "1" "2"}}low{{else if .Service.Labels.tier}}tier{{end}}"#, "tier"),
        ("a {{- /* nothing */ -}} b", "ab"),
        ("a {{- .Task.Slot -}}  b", "a3b"),
        (r#"{{"}}"}}{{`{{`}}"#, "}}{{"),
        (r#"{{printf "%q" (index .Service.Labels "tier")}}"#, "\"front\""),
        (r#"{{print 1 2 "x" true}}{{len .Service.Name}}{{not false}}"#, "1 2xtrue3true"),
        (r#"{{and "" "b"}}{{or "" "b"}}"#, "b"),
    ] {
        assert_eq!(with_context(|context| expand(template, context)), Ok(expected.to_owned()), "{template}");
    }
}

#[test]
fn what_cannot_be_expanded_is_named() {
    for (template, named) in [
        ("{{.Service.Nome}}", "can't evaluate field .Service.Nome"),
        ("{{.Service.Labels.none}}", "map has no entry for key \"none\""),
        ("{{.Service.Labels.a-b}}", "a-b"),
        ("{{.Task.Slot", "unclosed action"),
        ("{{}}", "missing value for command"),
        ("{{if true}}", "unexpected EOF"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{range .Service.Labels}}{{end}}", "\"range\" is not built yet"),
        ("{{$x}}", "variables ($)"),
        ("{{env \"A\"}}", "function \"env\" not defined"),
        ("{{.Task.Slot | 3}}", "non-function"),
        ("{{index .Service.Name 1}}", "index"),
        ("{{(.Task.Slot}}", "unclosed left paren"),
        ("{{\"\\", "unclosed action"),
        ("{{.Service}}", "group of fields"),
    ] {
        let error = with_context(|context| expand(template, context)).unwrap_err().to_string();
        assert!(error.starts_with("template: ") && error.contains(named), "{template}: {error}");
    }
    let (deep, nested) = ("{{".to_owned() + &"(".repeat(10_000), "{{if true}}".repeat(10_000));
    for text in [deep + "1}}", nested] {
        assert!(with_context(|context| expand(&text, context)).is_err());
    }
}

#[test]
fn a_container_is_expanded_where_swarmkit_does() {
    let volume = MountSource::Volume {
        name: "v{{.Task.Slot}}".to_owned(),
        no_copy: false,
        labels: [("{{x}}".to_owned(), "{{.Node.ID}}".to_owned())].into(),
    };
    let container = ServiceContainer {
        env: ["A={{.Task.Slot}}", "{{B}}=c", "{{D}}"].map(str::to_owned).into(),
        hostname: "{{.Service.Name}}-{{.Task.Slot}}".to_owned(),
        args: Some(vec!["{{.Task.Slot}}".to_owned()]),
        mounts: vec![Mount { target: "/{{.Service.Name}}".into(), source: volume, read_only: false }],
        ..ServiceContainer::default()
    };
    let expanded = with_context(|context| container.expanded(context)).unwrap();
    assert_eq!(expanded.env, ["A=3", "{{B}}=c", "{{D}}"]);
    assert_eq!((expanded.hostname.as_str(), &expanded.args), ("web-3", &container.args));
    let source = MountSource::Volume {
        name: "v3".to_owned(),
        no_copy: false,
        labels: [("{{x}}".to_owned(), "nid".to_owned())].into(),
    };
    assert_eq!(expanded.mounts, [Mount { target: "/web".into(), source, read_only: false }]);
    let wrong = ServiceContainer { env: vec!["A={{.B}}".to_owned()], ..ServiceContainer::default() };
    let error = with_context(|context| wrong.expanded(context)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "expanding env failed: expanding env \"A={{.B}}\": template: can't evaluate field .B"
    );
}

#[test]
fn what_grows_without_bound_is_refused() {
    let labels = [("l".to_owned(), "x".repeat(1 << 20))].into();
    let entry = "A={{.Service.Labels.l}}{{.Service.Labels.l}}".to_owned();
    let container = ServiceContainer { env: vec![entry; 1000], ..ServiceContainer::default() };
    let error = with_context(|context| {
        container.expanded(&Context { service_labels: &labels, ..*context }).unwrap_err()
    });
    assert!(error.to_string().contains("more than 4194304 bytes"), "{error}");
    let one = format!("{{{{print {}}}}}", ".Service.Labels.l ".repeat(20_000));
    let error =
        with_context(|context| expand(&one, &Context { service_labels: &labels, ..*context }).unwrap_err());
    assert!(error.to_string().contains("more than 4194304 bytes"), "{error}");
}

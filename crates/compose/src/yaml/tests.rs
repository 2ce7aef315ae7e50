use super::*;

fn fault(text: &str) -> String {
    let fault = parse(text).expect_err("a fault");
    let at = fault.at.unwrap_or_default();
    format!("{}:{} {}", at.line, at.column, fault.message)
}

fn show(node: &Node) -> String {
    match &node.value {
        Value::List(list) => format!("[{}]", list.iter().map(show).collect::<Vec<_>>().join(",")),
        Value::Mapping(entries) => {
            let entries = entries.iter().map(|(key, node)| format!("{key}:{}", show(node)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
        }
        value => scalar::sprint(value).unwrap_or("null".to_owned()),
    }
}

#[test]
fn anchors_merges_and_tags_are_followed() {
    let text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [*a, {z: 4, x: 5}]}\nd: !!str 1\ne: '<<'\nf: [*a]\n---\nz: 1";
    let node = parse(text).expect("sound");
    assert_eq!(show(&node), "{a:{x:1,y:2},b:{x:1,y:3},c:{x:1,y:2,z:4},d:1,e:<<,f:[{x:1,y:2}]}");
    assert_eq!(node.get("d").map(|node| node.value.clone()), Some(Value::Text("1".to_owned())));
}

#[test]
fn faults_are_told_with_their_place() {
    assert_eq!(fault("a: 1\nb: 2\na: 3\n"), "3:1 mapping key \"a\" already defined at line 1");
    assert_eq!(fault("a:\n  1: x\n"), "2:3 Non-string key: quote it");
    assert_eq!(fault("a: &a [*a]\n"), "1:8 an anchor's value contains itself");
    assert_eq!(fault("a: {<<: 1}\n"), "1:9 map merge requires map or sequence of maps as the value");
    assert!(fault("a: [\n").starts_with("2:1 invalid YAML: "), "{}", fault("a: [\n"));
    assert!(fault("a: *b\n").contains("invalid YAML"), "{}", fault("a: *b\n"));
}

#[test]
fn what_aliases_repeat_is_bounded() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = format!("*a{}, ", level - 1).repeat(10);
        text.push_str(&format!("a{level}: &a{level} [{}]\n", below.trim_end_matches(", ")));
    }
    assert!(fault(&text).contains("aliases written out"));
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), "*a, ".repeat(1000));
    assert!(fault(&long).contains("aliases written out"));
    // The parser's own bound, where it has to look ahead.
    assert!(fault(&"[".repeat(100_000)).contains("recursion limit"));
    assert!(fault(&"- ".repeat(100_000)).contains("inside each other"));
    assert!(fault(&"{a: ".repeat(1000)).contains("recursion limit"));
}

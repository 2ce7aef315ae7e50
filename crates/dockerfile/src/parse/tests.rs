use super::*;

fn one(line: &str) -> Result<Instruction, String> {
    match parse(&format!("FROM x\n{line}\n")) {
        Ok(mut file) => Ok(file.stages.remove(0).steps.remove(0).instruction),
        Err(Error::Line { line: 2, fault }) => Err(fault.to_string()),
        Err(error) => panic!("{error}"),
    }
}

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn stages_have_names_and_platforms() {
    let file =
        parse("ARG V=1 W\nFROM --platform=linux/amd64 a:$V AS Build\nRUN x\nfrom build\nCMD y").unwrap();
    assert_eq!(file.meta.len(), 2);
    assert_eq!(file.meta[0].text(), "V=1");
    let stage = &file.stages[0];
    assert_eq!((stage.base.as_str(), stage.name.as_str()), ("a:$V", "build"));
    assert_eq!(stage.platform, "linux/amd64");
    assert_eq!(stage.source, "FROM --platform=linux/amd64 a:$V AS Build");
    assert_eq!(file.stages[1].steps[0].source, "CMD y");
}

#[test]
fn commands_are_of_two_forms() {
    let shell = |text: &str| Command { words: texts(&[text]), shell: true };
    assert_eq!(one("CMD a  b"), Ok(Instruction::Cmd(shell("a  b"))));
    let exec = Command { words: texts(&["a", "b c"]), shell: false };
    assert_eq!(one("ENTRYPOINT [\"a\", \"b c\"]"), Ok(Instruction::Entrypoint(exec.clone())));
    assert_eq!(exec.resolve(&texts(&["/bin/sh", "-c"])), ["a", "b c"]);
    assert_eq!(shell("x").resolve(&texts(&["/bin/sh", "-c"])), ["/bin/sh", "-c", "x"]);
    assert_eq!(one("RUN ['a']"), Ok(Instruction::Run(Run { command: shell("['a']"), heredocs: vec![] })));
}

#[test]
fn copies_have_sources_flags_and_a_destination() {
    let Ok(Instruction::Copy(copy)) = one("COPY --from=b --chown=1:2 --chmod=755 a b* /c/") else { panic!() };
    assert_eq!(copy.sources, ["a", "b*"]);
    assert_eq!((copy.destination.as_str(), copy.from.as_str()), ("/c/", "b"));
    assert_eq!((copy.chown.as_str(), copy.chmod.as_str()), ("1:2", "755"));
    let Ok(Instruction::Add(copy)) = one("ADD [\"a b\", \"/c\"]") else { panic!() };
    assert_eq!(copy.sources, ["a b"]);
    let Ok(Instruction::Copy(copy)) = one("COPY <<one <<two plain /c/\n1\none\n2\ntwo") else { panic!() };
    assert_eq!(copy.sources, ["plain"]);
    let contents: Vec<_> = copy.heredocs.iter().map(|it| (it.name.as_str(), it.content.as_str())).collect();
    assert_eq!(contents, [("one", "1\n"), ("two", "2\n")]);
    assert_eq!(check_chmod_of("0755"), Some(0o755));
    assert_eq!(check_chmod_of("8"), None);
    assert_eq!(check_chmod_of("+7"), None);
}

fn check_chmod_of(text: &str) -> Option<u32> {
    crate::check_chmod(text)
}

#[test]
fn health_checks_have_times() {
    let Ok(Instruction::Healthcheck(check)) = one("HEALTHCHECK --interval=5s --retries=3 CMD a b") else {
        panic!()
    };
    assert_eq!(check.test, ["CMD-SHELL", "a b"]);
    assert_eq!((check.interval, check.retries), (5_000_000_000, 3));
    assert_eq!(check.text(), "&{[\"CMD-SHELL\" \"a b\"] \"5s\" \"0s\" \"0s\" \"0s\" '\\x03'}");
    let Ok(Instruction::Healthcheck(check)) = one("healthcheck none") else { panic!() };
    assert_eq!(check.test, ["NONE"]);
}

#[test]
fn the_rest_is_read() {
    assert_eq!(one("EXPOSE 80 53/udp"), Ok(Instruction::Expose(texts(&["53/udp", "80"]))));
    assert_eq!(one("VOLUME /a /b"), Ok(Instruction::Volume(texts(&["/a", "/b"]))));
    assert_eq!(one("VOLUME [\"/a b\"]"), Ok(Instruction::Volume(texts(&["/a b"]))));
    assert_eq!(one("SHELL [\"/bin/ash\", \"-c\"]"), Ok(Instruction::Shell(texts(&["/bin/ash", "-c"]))));
    assert_eq!(one("USER a:b"), Ok(Instruction::User("a:b".to_owned())));
    assert_eq!(one("WORKDIR /a b"), Ok(Instruction::Workdir("/a b".to_owned())));
    assert_eq!(one("ONBUILD  RUN x"), Ok(Instruction::Onbuild("RUN x".to_owned())));
    assert_eq!(one("MAINTAINER a <b>"), Ok(Instruction::Maintainer("a <b>".to_owned())));
    let arg =
        |name: &str, default: Option<&str>| Arg { name: name.into(), default: default.map(str::to_owned) };
    let args = vec![arg("A", None), arg("B", Some("")), arg("C", Some("\"x y\""))];
    assert_eq!(one("ARG A B= C=\"x y\""), Ok(Instruction::Arg(args)));
}

#[test]
fn faults_name_their_line() {
    for (line, fault) in [
        ("FOO x", "unknown instruction: FOO"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV a", "ENV must have two arguments"),
        ("LABEL a=b c", "Syntax error - can't find = in \"c\". Must be of the form: name=value"),
        (
            "COPY a",
            "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        ("CMD [1]", "when using JSON array syntax, arrays must be comprised of strings only"),
        ("FROM a b", "FROM requires either one or three arguments"),
        (
            "FROM a AS 1b",
            "invalid name for build stage: \"1b\", name can't start with a number or contain symbols",
        ),
        ("USER", "USER requires exactly one argument"),
        ("SHELL sh", "SHELL requires the arguments to be in JSON form"),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK FOO x", "Unknown type \"FOO\" in HEALTHCHECK (try CMD)"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK --interval=1us CMD x", "Interval \"interval\" cannot be less than 1ms"),
        ("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("VOLUME [\"\"]", "VOLUME specified can not be an empty string"),
        ("ARG =x", "ARG names can not be blank"),
        ("COPY --foo=x a b", "unknown flag: foo"),
        ("ENV --x=y a=b", "unknown flag: x"),
    ] {
        assert_eq!(one(line).expect_err(line), fault, "{line}");
    }
    assert!(one("RUN --mount=type=cache x").unwrap_err().starts_with("the --mount option requires BuildKit"));
    assert_eq!(parse("RUN x").unwrap_err(), Error::NoStage);
    assert_eq!(parse("ARG x").unwrap_err(), Error::NoStage);
    let text = parse("FROM x\n\nFOO").unwrap_err().to_string();
    assert_eq!(text, "dockerfile parse error on line 3: unknown instruction: FOO");
}

#[test]
fn triggers_and_changes_are_parts_of_the_language() {
    assert!(parse_trigger("RUN x").is_ok());
    assert_eq!(parse_trigger("RUN x\nRUN y"), Err(Error::Trigger));
    assert!(parse_trigger("FROM x").is_err());
    assert_eq!(parse_changes("ENV a=b\nCMD [\"x\"]").map(|steps| steps.len()), Ok(2));
    assert_eq!(parse_changes("").map(|steps| steps.len()), Ok(0));
    assert_eq!(parse_changes("RUN x"), Err(Error::Change("RUN".to_owned())));
    assert_eq!(parse_changes("FROM x"), Err(Error::Change("FROM".to_owned())));
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "(FROM|RUN|COPY|ENV|ADD|ONBUILD|ARG|HEALTHCHECK|#escape=|<<E|\\\\|\"|'|\\[|\\]|\\$\\{|--|=| |\n|x|é){0,60}") {
        if let Ok(file) = parse(&text) {
            let lex = crate::Lex::new(file.escape);
            for step in file.stages.into_iter().flat_map(|stage| stage.steps) {
                let mut instruction = step.instruction;
                let _ = instruction.expand(&|word| lex.word(word, &["x=y".to_owned()]));
            }
        }
    }
}

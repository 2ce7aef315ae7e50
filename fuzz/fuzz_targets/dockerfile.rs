//! Dockerfiles, as far as a builder reads them before it knows any variable.
#![no_main]

use libfuzzer_sys::fuzz_target;
use skep_dockerfile::{Instruction, Lex, parse, parse_changes, parse_trigger};

fuzz_target!(|text: &str| {
    let _ = (parse_trigger(text), parse_changes(text));
    let Ok(file) = parse(text) else { return };
    assert!(!file.stages.is_empty(), "a Dockerfile has a stage");
    assert_eq!(parse(text).as_ref(), Ok(&file), "the same text says the same");
    let (lex, env) = (Lex::new(file.escape), ["A=1".to_owned(), "B=x y".to_owned(), "C=".to_owned()]);
    for stage in &file.stages {
        let _ = (lex.word(&stage.base, &env), lex.word(&stage.platform, &env));
        for step in &stage.steps {
            assert!(!step.source.is_empty(), "a step has a line");
            match &step.instruction {
                Instruction::Onbuild(line) => drop(parse_trigger(line)),
                Instruction::Env(pairs) | Instruction::Label(pairs, _) => {
                    for (name, value) in pairs {
                        let _ = (lex.word(name, &env), lex.word(value, &env));
                    }
                }
                Instruction::Copy(copy) | Instruction::Add(copy) => {
                    for word in &copy.sources {
                        let _ = lex.words(word, &env);
                    }
                }
                _ => {}
            }
        }
    }
});

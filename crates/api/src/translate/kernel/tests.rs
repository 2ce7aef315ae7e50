#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use hyper::StatusCode;
use skep_types::ulimit::RlimitResource;

use super::*;

#[test]
fn ulimits_are_read_and_shown() {
    let model = |name: &str, soft, hard| models::ResourcesUlimits { name: Some(name.to_owned()), soft, hard };
    let given = vec![model("nofile", Some(1024), Some(2048)), model("core", Some(-1), Some(-1))];
    let read = ulimits(Some(given.clone())).unwrap();
    let expected = [
        Rlimit { resource: RlimitResource::Nofile, soft: 1024, hard: 2048 },
        Rlimit { resource: RlimitResource::Core, soft: u64::MAX, hard: u64::MAX },
    ];
    assert_eq!(read, expected);
    assert_eq!(ulimit_models(&read), Some(given));
    assert_eq!((ulimits(None), ulimit_models(&[])), (Ok(Vec::new()), None));
    for (wrong, words) in [
        (model("files", Some(1), Some(1)), "invalid ulimit type: files"),
        (model("nofile", Some(-2), Some(1)), "invalid ulimit -2: only -1 may be negative"),
    ] {
        assert_eq!(ulimits(Some(vec![wrong])), Err(ApiError::invalid(words)));
    }
}

#[test]
fn security_options_are_read() {
    let read =
        |options: &[&str]| security(&options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>());
    let plain = Security::default();
    for (options, expected) in [
        (&["no-new-privileges"][..], Security { no_new_privileges: true, ..plain.clone() }),
        (&["no-new-privileges:true"], Security { no_new_privileges: true, ..plain.clone() }),
        (
            &["no-new-privileges=false", "label=disable", "apparmor=unconfined", "seccomp=builtin"],
            plain.clone(),
        ),
        (&["seccomp=unconfined"], Security { seccomp: Seccomp::Unconfined, ..plain.clone() }),
        (&["seccomp={\"a\": 1}"], Security { seccomp: Seccomp::Custom("{\"a\": 1}".to_owned()), ..plain }),
    ] {
        assert_eq!(read(options), Ok(expected), "{options:?}");
    }
    for (option, status) in [
        ("apparmor=docker-default", StatusCode::NOT_IMPLEMENTED),
        ("label=type:svirt_t", StatusCode::NOT_IMPLEMENTED),
        ("systempaths=unconfined", StatusCode::NOT_IMPLEMENTED),
        ("sandbox", StatusCode::BAD_REQUEST),
        ("no-new-privileges=perhaps", StatusCode::BAD_REQUEST),
    ] {
        let error = read(&[option]).unwrap_err();
        assert_eq!(error.status(), status, "{option}");
        assert!(error.to_string().contains(option), "{error}");
    }
}

#[test]
fn privileges_survive_the_round_trip() {
    let read = |text: &str| {
        let model: models::TaskSpecContainerSpecPrivileges = serde_json::from_str(text).unwrap();
        privileges(Some(model))
    };
    for text in [
        "{}",
        r#"{"NoNewPrivileges":true}"#,
        r#"{"Seccomp":{"Mode":"default"},"AppArmor":{"Mode":"disabled"}}"#,
        r#"{"Seccomp":{"Mode":"unconfined"},"AppArmor":{"Mode":"default"}}"#,
        r#"{"Seccomp":{"Mode":"custom","Profile":"e30="}}"#,
    ] {
        let read = read(text).unwrap().unwrap();
        assert_eq!(serde_json::to_string(&privileges_model(&read)).unwrap(), text);
    }
    for (text, named) in [
        (r#"{"CredentialSpec":{"Config":"x"}}"#, "CredentialSpec"),
        (r#"{"SELinuxContext":{"Disable":true}}"#, "SELinuxContext"),
        (r#"{"Seccomp":{"Mode":"default","Profile":"e30="}}"#, "custom only"),
        (r#"{"Seccomp":{"Mode":"custom"}}"#, "base64"),
        (r#"{"Seccomp":{"Mode":"custom","Profile":"*"}}"#, "base64"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(named), "{text}: {error}");
    }
}

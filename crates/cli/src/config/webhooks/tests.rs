//! What settings of webhooks are taken, and how others are refused.

#![expect(clippy::result_large_err, reason = "figment's Jail asks for its own error type")]

use std::path::Path;

use figment::Jail;

use super::*;
use crate::config::{
    Loaded,
    tests::{assert_told, problems},
};

/// 32 bytes each.
const SECRET: &str = "whsec_Z2VoZWltZ2VoZWltZ2VoZWltZ2VoZWltMTIzNDU2Nzg=";
const OTHER: &str = "whsec_YW5kZXJlYW5kZXJlYW5kZXJlYW5kZXJlYW5kZTEyMzQ=";

fn loaded(set: &[(&str, &str)], file: &str) -> Loaded {
    let mut loaded = None;
    Jail::expect_with(|jail| {
        jail.create_file("ca.pem", "-----BEGIN CERTIFICATE-----\n")?;
        jail.create_file("secret", &format!("{SECRET}\n"))?;
        jail.create_file("url", "https://hooks.example/geheim\n")?;
        for (name, value) in set {
            jail.set_env(name, value);
        }
        jail.create_file("f.toml", file)?;
        loaded = Some(Config::load(Some(Path::new("f.toml"))).unwrap_or_else(|error| panic!("{error}")));
        Ok(())
    });
    loaded.unwrap_or_else(|| panic!("nothing was loaded"))
}

#[test]
fn what_is_not_set_is_as_the_example_says() {
    let file = format!("[webhooks.dispatch]\nurl = \"https://example.com/\"\nsecret = \"{SECRET}\"\n");
    let loaded = loaded(&[], &file);
    let webhook = &loaded.config.webhooks["dispatch"];
    let subscription = webhook.subscription("dispatch", None);
    let secrets = vec![SECRET.to_owned()];
    assert_eq!(
        subscription,
        Subscription { secrets, ..Subscription::new("dispatch", "https://example.com/") }
    );
    assert_eq!(webhook.retry(), Ok(RetryPolicy::default()));
    assert_eq!(webhook.circuit(), CircuitSettings::default());
    assert_eq!((webhook.in_flight_max, webhook.start_at), (256, StartAt::End));
    let source =
        |key| loaded.settings.iter().find(|setting| setting.key == key).map(|setting| setting.source.clone());
    assert_eq!(source("webhooks.dispatch.timeout_ms").as_deref(), Some("default"));
    assert!(source("webhooks.dispatch.url").is_some_and(|source| source.ends_with("f.toml")));
}

#[test]
fn without_a_section_there_is_no_webhook() {
    assert!(loaded(&[], "").config.webhooks.is_empty());
    assert!(loaded(&[], "[webhooks]\n").config.webhooks.is_empty());
    assert!(!loaded(&[], "").settings.iter().any(|setting| setting.key.starts_with(BELOW)));
}

#[test]
fn variables_set_webhooks_and_underscores_in_their_names_stand_for_hyphens() {
    let both = format!("{SECRET} {OTHER}");
    let loaded = loaded(
        &[
            ("FLEETLOG_WEBHOOKS__ERP_TEST_2__URL", "https://example.com/x"),
            ("FLEETLOG_WEBHOOKS__ERP_TEST_2__EVENT_TYPES", "robot.Connected, task.Failed"),
            ("FLEETLOG_WEBHOOKS__ERP_TEST_2__RETRY_DELAYS_MS", "500,1500"),
            ("FLEETLOG_WEBHOOKS__ERP_TEST_2__IN_FLIGHT_MAX", "10"),
            ("FLEETLOG_WEBHOOKS__ERP_TEST_2__START_AT", "begin"),
            ("FLEETLOG_WEBHOOKS__ERP_TEST_2__SECRET", &both),
            ("FLEETLOG_WEBHOOKS__DISPATCH__MODE", "binary"),
        ],
        "[webhooks.erp-test-2]\nsites = [504, \"505\"]\nin_flight_max = 20\n\
         [webhooks.dispatch]\nurl = \"https://example.com/\"\nallow_unsigned = true\n",
    );
    let names: Vec<&String> = loaded.config.webhooks.keys().collect();
    assert_eq!(names, ["dispatch", "erp-test-2"]);
    assert_eq!(loaded.config.webhooks["dispatch"].mode, Mode::Binary);
    let webhook = &loaded.config.webhooks["erp-test-2"];
    assert_eq!(webhook.event_types, ["robot.Connected", "task.Failed"]);
    assert_eq!(webhook.sites, ["504", "505"]);
    assert_eq!(webhook.retry_delays_ms, [500, 1500]);
    assert_eq!((webhook.in_flight_max, webhook.start_at), (10, StartAt::Begin));
    assert_eq!(webhook.subscription("erp-test-2", None).secrets, [SECRET, OTHER]);
    let setting = loaded.settings.iter().find(|setting| setting.key == "webhooks.erp-test-2.in_flight_max");
    assert_eq!(setting.map(|it| it.source.as_str()), Some("FLEETLOG_WEBHOOKS__ERP_TEST_2__IN_FLIGHT_MAX"));
}

#[test]
fn every_wrong_value_is_named_at_once_with_its_place() {
    let text = problems(
        &[
            ("FLEETLOG_WEBHOOKS__ERP_TEST__TIMEOUT_MS", "0"),
            ("FLEETLOG_WEBHOOKS__ERP_TEST__IN_FLIGHT_MAX", "-1"),
            ("FLEETLOG_WEBHOOKS__ERP_TEST__EVENT_TYPES", "Conected,task.Failed,nothing"),
            ("FLEETLOG_WEBHOOKS__ERP_TEST__RETRY_DELAYS_MS", "1000,soon"),
            ("FLEETLOG_WEBHOOKS__ERP_TEST__ALLOW_PRIVATE", "perhaps"),
        ],
        Some(
            "[webhooks.erp-test]\nurl = \"ftp://example.com/geheim\"\nsecret = \"geheim\"\nmode = \"xml\"\n\
             start_at = \"middle\"\nsites = [\"\"]\ncircuit_trials = 0\ncircuit_open_ms = 5000000\nca_file = \"fleetlog.toml\"\n\
             [webhooks.dispatch]\nretry_delays_ms = [2000, 1000]\n",
        ),
    );
    assert_told(
        &text,
        &[
            "FLEETLOG_WEBHOOKS__ERP_TEST__TIMEOUT_MS: `webhooks.erp-test.timeout_ms` is 0: give a time of 1 to 60000 ms",
            "FLEETLOG_WEBHOOKS__ERP_TEST__IN_FLIGHT_MAX: `webhooks.erp-test.in_flight_max` is the text \"-1\", expected a number that is not below 0",
            "FLEETLOG_WEBHOOKS__ERP_TEST__EVENT_TYPES: `webhooks.erp-test.event_types` holds `Conected`: there is no such event, the nearest is `Connected`",
            "FLEETLOG_WEBHOOKS__ERP_TEST__EVENT_TYPES: `webhooks.erp-test.event_types` holds `nothing`: there is no such event",
            "`webhooks.erp-test.retry_delays_ms` is the text \"1000,soon\", expected a list of whole numbers",
            "`webhooks.erp-test.allow_private` is the text \"perhaps\", expected true or false",
            "fleetlog.toml: `webhooks.erp-test.url` is `ftp://example.com/***`: no http or https",
            "fleetlog.toml: `webhooks.erp-test.secret` does not begin with `whsec_`",
            "`webhooks.erp-test.mode` is the text \"xml\", expected structured or binary",
            "`webhooks.erp-test.start_at` is the text \"middle\", expected end or begin",
            "`webhooks.erp-test.sites` holds ``: name a site",
            "`webhooks.erp-test.circuit_trials` is 0, expected 1 to 1000",
            "`webhooks.erp-test.circuit_open_ms` is 5000000, expected 100 to 3600000",
            "`webhooks.erp-test.ca_file` names `fleetlog.toml`, which holds no certificate in PEM form",
            "fleetlog.toml: `webhooks.dispatch.url` is not set",
            "fleetlog.toml: `webhooks.dispatch.secret` is not set: give one",
            "`webhooks.dispatch.retry_delays_ms` is [2000, 1000]: a retry tier of 1000 ms after one of 2000 ms",
        ],
    );
    assert!(!text.contains("geheim"), "{text}");
}

#[test]
fn of_several_secrets_the_wrong_one_is_named_and_none_is_shown() {
    let set = format!("{SECRET} whsec_Z2VoZWlt");
    let file = "[webhooks.a]\nurl = \"https://example.com\"\n";
    let text = problems(&[("FLEETLOG_WEBHOOKS__A__SECRET", &set)], Some(file));
    assert_told(
        &text,
        &[
            "FLEETLOG_WEBHOOKS__A__SECRET: `webhooks.a.secret` holds 2 secrets, and number 2 has 6 bytes, expected 24 to 64",
        ],
    );
    assert!(!text.contains("Z2Vo"), "{text}");
}

#[test]
fn keys_that_are_none_are_refused_with_the_nearest() {
    let file = "[webhooks.a]\nurl = \"https://example.com\"\nallow_unsigned = true\ntimeout = 5\nsecrets = \"geheim\"\n\
                [webhooks.a.b]\nurl = \"x\"\n[webhooks.\"b.c\"]\nurl = \"x\"\nmode = \"y\"\n[webhooks.Dock_1]\n[webhooks.empty]\n";
    let set = [("FLEETLOG_WEBHOOKS__A__ULR", "https://geheim"), ("FLEETLOG_WEBHOOKS__DISPATCH", "geheim")];
    let text = problems(&set, Some(file));
    assert_told(
        &text,
        &[
            "FLEETLOG_WEBHOOKS__A__ULR: unknown key `webhooks.a.ulr`; did you mean `webhooks.a.url`?",
            "FLEETLOG_WEBHOOKS__DISPATCH: unknown key `webhooks.dispatch`: a webhook is a section, [webhooks.NAME]",
            "fleetlog.toml: unknown key `webhooks.a.timeout`; did you mean `webhooks.a.timeout_ms`?",
            "fleetlog.toml: unknown key `webhooks.a.secrets`; did you mean `webhooks.a.secret`?",
            "fleetlog.toml: unknown key `webhooks.a.b.url`",
            "fleetlog.toml: `webhooks.b.c` has a name that no webhook can have",
            "fleetlog.toml: `webhooks.Dock_1` has a name that no webhook can have",
            "fleetlog.toml: `webhooks.empty.url` is not set",
            "fleetlog.toml: `webhooks.empty.secret` is not set",
        ],
    );
    assert!(!text.contains("geheim"), "{text}");
    let text = problems(&[], Some("webhooks = 5\n"));
    assert_told(&text, &["fleetlog.toml: unknown key `webhooks`: a webhook is a section, [webhooks.NAME]"]);
}

#[test]
fn secrets_and_addresses_can_lie_in_files_and_are_not_shown() {
    let loaded = loaded(
        &[("FLEETLOG_WEBHOOKS__ERP_TEST__SECRET_FILE", "secret")],
        "[webhooks.erp-test]\nurl_file = \"url\"\nca_file = \"\"\n\
         [webhooks.token]\nurl = \"https://example.com:8443/?geheim\"\nallow_unsigned = true\nevent_types = [\"Connected\"]\n",
    );
    let webhook = &loaded.config.webhooks["erp-test"];
    assert_eq!(webhook.url, "https://hooks.example/geheim");
    assert_eq!(webhook.secret, SECRET);
    let shown = Config::redacted(&loaded.settings);
    let of = |key| shown.iter().find(|setting| setting.key == key).expect(key);
    assert_eq!(of("webhooks.erp-test.secret").value, "***");
    let source = "file secret (FLEETLOG_WEBHOOKS__ERP_TEST__SECRET_FILE)";
    assert_eq!(of("webhooks.erp-test.secret").source, source);
    assert_eq!(of("webhooks.erp-test.url").value, "https://hooks.example/***");
    assert_eq!(of("webhooks.token.url").value, "https://example.com:8443/***");
    // A webhook's name is no key that names a secret.
    assert_eq!(of("webhooks.token.mode").value, "structured");
    let json = serde_json::to_string(&shown).expect("JSON");
    assert!(!json.contains("geheim") && !json.contains("whsec_"), "{json}");
}

#[test]
fn a_file_that_gives_nothing_is_one_problem() {
    let text = problems(
        &[("FLEETLOG_WEBHOOKS__A__SECRET_FILE", "missing")],
        Some("[webhooks.a]\nurl = \"https://example.com\"\n"),
    );
    let told =
        "FLEETLOG_WEBHOOKS__A__SECRET_FILE: `webhooks.a.secret_file` names `missing`, which cannot be read";
    assert_told(&text, &[told]);
}

#[test]
fn certificates_are_read_and_of_use() {
    let text = problems(
        &[("FLEETLOG_WEBHOOKS__A__CA_FILE", "nowhere.pem")],
        Some("[webhooks.a]\nurl = \"http://example.com\"\nallow_unsigned = true\n"),
    );
    assert_told(
        &text,
        &[
            "`webhooks.a.ca_file` is set, but the URL does not begin with https://",
            "`webhooks.a.ca_file` names `nowhere.pem`, which cannot be read",
        ],
    );
}

//! What the settings refuse, and how they say it.

#![expect(clippy::result_large_err, reason = "figment's Jail asks for its own error type")]

use figment::Jail;

use super::*;

/// Each of these stands in the text, which tells of as many problems and of no more.
pub(super) fn assert_told(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part}\nis not in\n{text}");
    }
    assert!(text.starts_with(&format!("{} problem", parts.len())), "{text}");
}

/// What the settings are refused for; nothing if they are not.
pub(super) fn problems(set: &[(&str, &str)], file: Option<&str>) -> String {
    let mut text = String::new();
    Jail::expect_with(|jail| {
        for (name, value) in set {
            jail.set_env(name, value);
        }
        let path = file.map(|content| {
            jail.create_file("fleetlog.toml", content).map(|_| PathBuf::from("fleetlog.toml"))
        });
        let path = path.transpose()?;
        text = match Config::load(path.as_deref()) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        Ok(())
    });
    text
}

#[test]
fn the_defaults_are_fine() {
    assert_eq!(problems(&[], None), "");
}

#[test]
fn every_problem_is_named_at_once_with_its_place() {
    let text = problems(
        &[
            ("FLEETLOG_KAFKA__BROKER", "x"),
            ("FLEETLOG_RUN__BATCH_EVENTS_MAX", "many"),
            ("FLEETLOG_NONSENSE", "1"),
        ],
        Some("[redis]\nurl = 5\n[run]\nprojectons = []\n"),
    );
    for part in [
        "5 problems",
        "FLEETLOG_KAFKA__BROKER: unknown key `kafka.broker`; did you mean `kafka.brokers`?",
        "FLEETLOG_RUN__BATCH_EVENTS_MAX: `run.batch_events_max` is the text \"many\", expected a whole number",
        "unknown key `nonsense`",
        "fleetlog.toml: unknown key `run.projectons`; did you mean `run.projections`?",
    ] {
        assert!(text.contains(part), "{part}\nis not in\n{text}");
    }
}

#[test]
fn relations_between_settings_are_checked() {
    let text = problems(
        &[
            ("FLEETLOG_RUN__DRAIN_DEADLINE_MS", "10000"),
            ("FLEETLOG_RUN__MEMORY_BYTES_MAX", "1"),
            ("FLEETLOG_POSTGRES__URL", "mysql://a:geheim@b"),
        ],
        None,
    );
    for part in ["`run.drain_deadline_ms` is 10000, must be below", "at least 134217728", "mysql://a:***@b"] {
        assert!(text.contains(part), "{part}\nis not in\n{text}");
    }
    assert!(!text.contains("geheim"));
}

#[test]
fn the_environment_wins_over_the_file_and_text_stays_text() {
    Jail::expect_with(|jail| {
        jail.create_file("f.toml", "[kafka]\ntopic_prefix = \"file-\"\nclient_id = \"a\"\n")?;
        jail.set_env("FLEETLOG_KAFKA__CLIENT_ID", "17");
        jail.set_env("FLEETLOG_RUN__PROJECTIONS", "unit-status,task-state");
        jail.set_env("FLEETLOG_TEST_REGISTRY_URL", "ignored");
        let loaded = Config::load(Some(Path::new("f.toml"))).map_err(|error| error.to_string())?;
        assert_eq!(loaded.config.kafka.client_id, "17");
        assert_eq!(loaded.config.kafka.topic_prefix, "file-");
        assert_eq!(loaded.config.run.projections, ["unit-status", "task-state"]);
        let source = |key| {
            loaded.settings.iter().find(|setting| setting.key == key).map(|setting| setting.source.clone())
        };
        assert_eq!(source("kafka.client_id").as_deref(), Some("FLEETLOG_KAFKA__CLIENT_ID"));
        assert!(source("kafka.topic_prefix").is_some_and(|source| source.ends_with("f.toml")));
        assert_eq!(source("redis.url").as_deref(), Some("default"));
        Ok(())
    });
}

#[test]
fn properties_of_librdkafka_are_taken_and_wrong_ones_named() {
    let text = problems(
        &[],
        Some("[kafka.properties]\n\"socket.timeout.ms\" = 7000\n\"security.protocol\" = \"plaintext\"\n"),
    );
    assert_eq!(text, "");
    let text = problems(&[], Some("[kafka.properties]\n\"socket.timeouts\" = \"1\"\n"));
    assert!(text.contains("fleetlog.toml: `kafka.properties` hold what librdkafka does not take"), "{text}");
}

#[test]
fn secrets_are_not_shown() {
    assert_eq!(redact_url("postgres://me:geheim@h:5432/db?x=1"), "postgres://me:***@h:5432/db?x=1");
    assert_eq!(redact_url("redis://h:6379/0"), "redis://h:6379/0");
    assert_eq!(redact("registry.password", &"geheim".into()), "***");
    assert_eq!(redact("kafka.properties.sasl.password", &"geheim".into()), "***");
    assert_eq!(redact("kafka.client_id", &"fleetlog".into()), "fleetlog");
}

#[test]
fn variables_that_nest_without_end_are_named_and_do_not_end_the_process() {
    let name = format!("FLEETLOG_{}", vec!["A"; 5_000].join("__"));
    let text = problems(&[(&name, "1"), ("FLEETLOG_RUN__PROJECTIONS", &"[".repeat(50_000))], None);
    assert!(text.starts_with("1 problem in the settings:"), "{text}");
    assert!(text.contains("the environment: `FLEETLOG_A__A__A"), "{text}");
    assert!(text.len() < 500, "{text}");
}

#[test]
fn what_variables_hold_is_text_as_it_is() {
    Jail::expect_with(|jail| {
        for (name, value) in [
            ("FLEETLOG_KAFKA__TOPIC_PREFIX", "5"),
            ("FLEETLOG_RUN__BATCH_EVENTS_MAX", " 1000 "),
            // Ends in a panic where figment reads it.
            ("FLEETLOG_KAFKA__PROPERTIES__SASL.PASSWORD", "\"\u{fffd}\\u0000\""),
        ] {
            jail.set_env(name, value);
        }
        let loaded = Config::load(None).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(loaded.config.kafka.topic_prefix, "5");
        assert_eq!(loaded.config.run.batch_events_max, 1_000);
        assert_eq!(loaded.config.kafka.properties["sasl.password"], "\"\u{fffd}\\u0000\"");
        Ok(())
    });
}

#[test]
fn a_secret_in_a_file_is_read_and_not_shown() {
    Jail::expect_with(|jail| {
        jail.create_file("redis", "geheim\n")?;
        jail.create_file("kafka", "ge heim \r\n")?;
        jail.set_env("FLEETLOG_REDIS__PASSWORD_FILE", "redis");
        jail.set_env("FLEETLOG_KAFKA__PROPERTIES__SASL__PASSWORD_FILE", "kafka");
        jail.set_env("FLEETLOG_REGISTRY__PASSWORD_FILE", "");
        let loaded = Config::load(None).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(loaded.config.redis.url, "redis://:geheim@127.0.0.1:6379/0");
        assert_eq!(loaded.config.kafka.properties["sasl.password"], "ge heim ");
        assert_eq!(loaded.config.registry.password, "");
        let shown = Config::redacted(&loaded.settings);
        let of = |key| shown.iter().find(|setting| setting.key == key).expect(key);
        assert_eq!(of("redis.password").value, "***");
        assert_eq!(of("redis.password").source, "file redis (FLEETLOG_REDIS__PASSWORD_FILE)");
        assert_eq!(of("kafka.properties.sasl.password").value, "***");
        assert!(!serde_json::to_string(&shown).expect("JSON").contains("heim"));
        Ok(())
    });
}

#[test]
fn files_that_give_nothing_and_certificates_that_are_none_are_named() {
    let text = problems(
        &[
            ("FLEETLOG_REDIS__PASSWORD_FILE", "missing"),
            ("FLEETLOG_POSTGRES__PASSWORD_FILE", "fleetlog.toml"),
            ("FLEETLOG_POSTGRES__PASSWORD", "geheim"),
            ("FLEETLOG_REDIS__CA_FILE", "fleetlog.toml"),
            ("FLEETLOG_RUN__BATCH_EVENTS_MAX_FILE", "fleetlog.toml"),
            ("FLEETLOG_KAFKA__PROPERTIES__SSL__CA__LOCATION", "nowhere.pem"),
        ],
        Some("[registry]\nusername = \"me\"\n"),
    );
    for part in [
        "FLEETLOG_REDIS__PASSWORD_FILE: `redis.password_file` names `missing`, which cannot be read",
        "`postgres.password_file` and `postgres.password` are both set",
        "`redis.ca_file` names `fleetlog.toml`, which holds no certificate in PEM form",
        "`redis.ca_file` is set, but the URL does not begin with rediss://",
        "unknown key `run.batch_events_max_file`",
        "`kafka.properties.ssl.ca.location` names `nowhere.pem`, which cannot be read",
    ] {
        assert!(text.contains(part), "{part}\nis not in\n{text}");
    }
    assert!(!text.contains("geheim"), "{text}");
}

#[test]
fn a_root_certificate_asks_for_all_that_it_is_for() {
    Jail::expect_with(|jail| {
        jail.create_file("ca.pem", "-----BEGIN CERTIFICATE-----\n")?;
        jail.set_env("FLEETLOG_POSTGRES__CA_FILE", "ca.pem");
        jail.set_env("FLEETLOG_POSTGRES__URL", "postgres://me@h/db");
        jail.set_env("FLEETLOG_POSTGRES__PASSWORD", "a@b");
        let loaded = Config::load(None).unwrap_or_else(|error| panic!("{error}"));
        let url = "postgres://me:a%40b@h/db?sslmode=verify-full&sslrootcert=ca.pem";
        assert_eq!(loaded.config.postgres.url, url);
        jail.set_env("FLEETLOG_POSTGRES__URL", "postgres://me@h/db?sslmode=require");
        let text = Config::load(None).expect_err("does not verify").to_string();
        assert!(text.contains("sslmode in postgres.url does not verify"), "{text}");
        jail.set_env("FLEETLOG_POSTGRES__URL", "postgres://me:old@h/db");
        let text = Config::load(None).expect_err("two passwords").to_string();
        assert!(text.contains("the URL has a password too"), "{text}");
        Ok(())
    });
}

#[test]
fn a_property_from_the_environment_wins_over_the_files() {
    Jail::expect_with(|jail| {
        jail.create_file(
            "f.toml",
            "[kafka.properties]\n\"security.protocol\" = \"ssl\"\n\"client.rack\" = \"a\"\n",
        )?;
        jail.set_env("FLEETLOG_KAFKA__PROPERTIES__SECURITY__PROTOCOL", "plaintext");
        let loaded = Config::load(Some(Path::new("f.toml"))).map_err(|error| error.to_string())?;
        assert_eq!(loaded.config.kafka.properties["security.protocol"], "plaintext");
        assert_eq!(loaded.config.kafka.properties["client.rack"], "a");
        Ok(())
    });
}

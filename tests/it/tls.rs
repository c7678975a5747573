//! All servers with TLS and passwords switched on: everything by the settings that docs/security.md shows, and what is said where a
//! certificate or a password is wrong.

use std::{fs, path::Path, time::Duration};

use fleetlog_kafka::{KafkaSettings, TroubleKind, watch_trouble};
use fleetlog_testkit::{
    Authority, Fleetlog, KafkaServer, Output, PostgresServer, RedisServer, SaslListener, Stack, TlsFront,
    Validity, workspace_root,
};
use fleetlog_tests::{LIMIT, World, address_of, get, until};

/// Needs percent-encoding in a URL, and is found in no text by chance.
const PASSWORD: &str = "p/w:d@9f8e7d6c";
const WRONG: &str = "wr0ng-0a1b2c3d";
const EVENTS: u64 = 300;

/// Servers that take nothing less than TLS and a password; and settings that reach them.
struct Secured {
    world: World,
    /// With the CA, passwords, and the file of settings.
    folder: tempfile::TempDir,
    /// A listener and a server whose certificate has expired.
    expired_kafka: u16,
    kafka: u16,
    expired_redis: RedisServer,
    redis: RedisServer,
    postgres: PostgresServer,
    authority: Authority,
    front: TlsFront,
    expired_front: TlsFront,
    /// Of the registry's addresses.
    registry_path: String,
    _broker: KafkaServer,
}

impl Secured {
    async fn start() -> Self {
        let authority = Authority::new("fleetlog test authority").unwrap();
        let (good, over) = (
            authority.issue("localhost", Validity::Now).unwrap(),
            authority.issue("localhost", Validity::Over).unwrap(),
        );
        let listener =
            |identity| SaslListener { identity, user: "fleetlog".into(), password: PASSWORD.into() };
        let listeners = [listener(good.clone()), listener(over.clone())];
        let registry = Stack::from_env().registry_url.expect("the stack runs with a registry");
        let (address, path) = registry.strip_prefix("http://").unwrap().split_once('/').unwrap();
        // `fleetlog:` and the password above, in base 64.
        let authorization = "Basic ZmxlZXRsb2c6cC93OmRAOWY4ZTdkNmM=";
        let rights = redis_rights_of_the_docs();
        let (kafka, postgres, redis, expired_redis, front, expired_front) = tokio::join!(
            KafkaServer::start_secure(&listeners),
            // Its own URL is not percent-encoded by the testkit.
            PostgresServer::start_secure(&good, PASSWORD),
            RedisServer::start_secure(&good, "fleetlog", PASSWORD, &rights),
            RedisServer::start_secure(&over, "fleetlog", PASSWORD, &rights),
            TlsFront::start(address, authorization, &good),
            TlsFront::start(address, authorization, &over),
        );
        let (broker, ports) = kafka.unwrap();
        let (postgres, redis, front) = (postgres.unwrap(), redis.unwrap(), front.unwrap());
        let folder = tempfile::tempdir().unwrap();
        let stack = Stack {
            brokers: format!("localhost:{}", ports[0]),
            replication: Some(1),
            redis_url: redis.url(),
            postgres_url: postgres.url(),
            registry_url: None,
            pglite_url: None,
            timescale_url: None,
        };
        let mut world = World::bare_on(stack, "tls").await;
        let places = [
            ("kafka.example:9093", format!("localhost:{}", ports[0])),
            ("https://registry.example:8081", format!("https://localhost:{}/{path}", front.port())),
            ("rediss://redis.example:6379/0", redis.url()),
            (
                "postgres.example:5432/fleetlog",
                format!("localhost:{}/{}", postgres.port(), world.database.name()),
            ),
        ];
        let settings = settings_of_the_docs(&authority, folder.path(), &places);
        world.fleetlog = Fleetlog::with_settings(&settings)
            .env("FLEETLOG_KAFKA__TOPIC_PREFIX", &world.prefix)
            .env("FLEETLOG_KAFKA__REPLICATION", "1")
            .env("FLEETLOG_RUN__STATE_DIR", &folder.path().display().to_string());
        Self {
            world,
            folder,
            kafka: ports[0],
            expired_kafka: ports[1],
            expired_redis: expired_redis.unwrap(),
            redis,
            postgres,
            authority,
            front,
            expired_front: expired_front.unwrap(),
            registry_path: path.to_owned(),
            _broker: broker,
        }
    }

    /// Runs a command with other settings; says with which code it ended, and what it said. No password is in it.
    async fn with(&self, variables: &[(&str, &str)], args: &[&str]) -> Output {
        let changed = |fleetlog: Fleetlog, (name, value): &(&str, &str)| fleetlog.env(name, value);
        let fleetlog = variables.iter().fold(self.world.fleetlog.clone(), changed);
        let output = fleetlog.run(args, LIMIT).await.unwrap();
        has_no_secret(&output.stdout);
        has_no_secret(&output.stderr);
        output
    }

    /// The same where it has to fail, with all these words on stderr.
    async fn refused(&self, code: i32, variables: &[(&str, &str)], args: &[&str], words: &[&str]) {
        let output = self.with(variables, args).await;
        assert_eq!(output.code(), Some(code), "{variables:?} {args:?}: {}", output.stderr);
        for word in words {
            assert!(
                output.stderr.contains(word),
                "{variables:?} {args:?}: no `{word}` in: {}",
                output.stderr
            );
        }
    }
}

fn has_no_secret(text: &str) {
    for secret in [PASSWORD, WRONG, "9f8e7d6c", "0a1b2c3d"] {
        assert!(!text.contains(secret), "a password is in: {text}");
    }
}

/// What docs/security.md says that Redis' user needs, all of it but what only later servers know; without a prefix of keys.
fn redis_rights_of_the_docs() -> String {
    let page = fs::read_to_string(workspace_root().join("docs/security.md")).unwrap();
    let of_redis = page.split("- Redis: ").nth(1).unwrap().split("- PostgreSQL:").next().unwrap();
    let words = of_redis.split(|c: char| c.is_whitespace() || "`,;".contains(c));
    let commands: Vec<&str> =
        words.filter(|word| word.starts_with('+') && *word != "+client|setinfo").collect();
    assert!(commands.len() > 30, "{commands:?}");
    format!("~* {}", commands.join(" "))
}

/// The settings of docs/security.md with these addresses, in a folder beside the files that they name.
fn settings_of_the_docs(
    authority: &Authority,
    folder: &Path,
    places: &[(&str, String)],
) -> std::path::PathBuf {
    let page = fs::read_to_string(workspace_root().join("docs/security.md")).unwrap();
    let example = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let mut text = example.to_owned();
    let folder_text = format!("{}/", folder.display());
    let files = [("/etc/fleetlog/", folder_text.clone()), ("/run/secrets/", folder_text)];
    for (there, here) in places.iter().chain(&files) {
        assert!(text.contains(there), "docs/security.md has no `{there}`");
        text = text.replace(there, here);
    }
    fs::copy(authority.ca_file(), folder.join("ca.pem")).unwrap();
    for server in ["kafka", "registry", "redis", "postgres"] {
        fs::write(folder.join(format!("{server}-password")), format!("{PASSWORD}\n")).unwrap();
    }
    fs::write(folder.join("wrong-password"), WRONG).unwrap();
    let other = Authority::new("somebody else").unwrap();
    fs::copy(other.ca_file(), folder.join("other-ca.pem")).unwrap();
    let file = folder.join("fleetlog.toml");
    fs::write(&file, text).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_and_sasl_all_goes_and_what_is_wrong_is_said() {
    let secured = Secured::start().await;
    all_goes(&secured).await;
    kafka_refused(&secured).await;
    redis_refused(&secured).await;
    postgres_refused(&secured).await;
    registry_refused(&secured).await;
}

async fn all_goes(secured: &Secured) {
    let world = &secured.world;
    let shown = secured.with(&[], &["config", "show", "--format", "json"]).await.success().unwrap();
    assert!(shown.contains("***") && shown.contains("kafka-password"), "{shown}");
    world.ok(&["topics", "apply"]).await;
    world.ok(&["migrate"]).await;
    world.simulate(EVENTS, 1).await;
    assert!(secured.front.let_through() > 0, "the registry was not asked");
    world.ok(&["run", "--once"]).await;
    let reports = world.verified().await;
    let compared: i64 = reports.values().map(|report| report["compared"].as_i64().unwrap()).sum();
    assert!(compared > 0, "{reports:?}");
    let units = world.json(&["unit", "list"]).await;
    let unit = units[0]["unit"].as_str().expect("a unit").to_owned();
    let shown = world.json(&["unit", "show", &unit]).await;
    assert_eq!(shown["status"]["connection"], "online", "{shown}");
    let explained = world.json(&["explain", &unit, "connection"]).await;
    assert_eq!(explained["verdict"], "agrees", "{explained}");
    let history = world.ok(&["history", &unit, "--format", "csv"]).await;
    assert!(history.lines().count() > 1, "{history}");
    an_import_goes(secured).await;
    doctor_finds_no_fault(secured).await;
    presence_watches(secured).await;
}

async fn an_import_goes(secured: &Secured) {
    let recording = fs::read(workspace_root().join("data/vda5050/A.jsonl.zst")).unwrap();
    let lines = zstd::decode_all(recording.as_slice()).unwrap();
    let some: Vec<&[u8]> = lines.split_inclusive(|byte| *byte == b'\n').take(500).collect();
    let file = secured.folder.path().join("some.jsonl");
    fs::write(&file, some.concat()).unwrap();
    let report = secured.world.json(&["import", "vda5050", file.to_str().unwrap()]).await;
    assert_eq!(report["lines_done"], 500, "{report}");
    secured.world.ok(&["run", "--once"]).await;
}

/// Every server lets it look at everything.
async fn doctor_finds_no_fault(secured: &Secured) {
    let areas = "kafka,topics,schemas,records,redis,postgres,clock";
    let output = secured
        .with(&[], &["doctor", "--area", areas, "--timeout", "120", "--format", "json"])
        .await
        .success()
        .unwrap();
    let report: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!(report["errors"], 0, "{report:#}");
    let codes =
        report["findings"].as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap());
    let unseen: Vec<&str> = codes.filter(|code| code.ends_with("-unseen")).collect();
    assert!(unseen.is_empty(), "{report:#}");
}

/// It becomes the active one, and its looks at log and hot state succeed.
async fn presence_watches(secured: &Secured) {
    let fleetlog = secured.world.fleetlog.clone().env("FLEETLOG_PRESENCE__HTTP_ADDRESS", "127.0.0.1:0");
    let mut presence = fleetlog.spawn(&["presence"]).unwrap();
    let address = address_of(&mut presence).await;
    until("presence is ready", async || get(&address, "/readyz").await.0 == 200).await;
    presence.signal("TERM").unwrap();
    let ended = presence.wait(LIMIT).await.unwrap();
    assert_eq!(ended.code(), Some(0));
    has_no_secret(&ended.stderr);
}

async fn kafka_refused(secured: &Secured) {
    let in_folder = |name: &str| secured.folder.path().join(name).display().to_string();
    let plan: &[&str] = &["topics", "plan"];
    let wrong = [("FLEETLOG_KAFKA__PROPERTIES__SASL__PASSWORD_FILE", in_folder("wrong-password"))];
    let unknown = [("FLEETLOG_KAFKA__PROPERTIES__SSL__CA__LOCATION", in_folder("other-ca.pem"))];
    let expired = [("FLEETLOG_KAFKA__BROKERS", format!("localhost:{}", secured.expired_kafka))];
    let other = [("FLEETLOG_KAFKA__BROKERS", format!("127.0.0.1:{}", secured.kafka))];
    for (variable, args, words) in [
        (&wrong, plan, ["SASL authentication error", "sasl.password"]),
        // A person is needed: it does not wait.
        (&wrong, &["run"], ["SASL authentication error", "sasl.password"]),
        (&unknown, plan, ["signed by an unknown authority", "ssl.ca.location"]),
        (&expired, plan, ["certificate has expired", "renew it"]),
        (&expired, &["run"], ["certificate has expired", "renew it"]),
        (&other, plan, ["certificate is for another host", "by a name"]),
    ] {
        let words = ["kafka at ", words[0], words[1]];
        secured.refused(3, &[(variable[0].0, variable[0].1.as_str())], args, &words).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn why_brokers_do_not_answer_is_told_where_nobody_refuses() {
    let authority = Authority::new("fleetlog test authority").unwrap();
    let identity = authority.issue("localhost", Validity::Now).unwrap();
    // It speaks TLS and hangs up on whoever does not: as a broker's listener does.
    let front = TlsFront::start("127.0.0.1:1", "", &identity).await.unwrap();
    let limit = Duration::from_secs(2);
    for (port, words) in [(front.port(), "Disconnected"), (1, "refused")] {
        let settings = KafkaSettings::at(format!("localhost:{port}"));
        let trouble = watch_trouble(&settings, limit).await.expect("something is told");
        assert_eq!(trouble.kind, TroubleKind::Connection, "{trouble:?}");
        assert!(trouble.text.contains(words), "{trouble:?}");
        assert!(trouble.remedy().contains("security.protocol"), "{trouble:?}");
    }
}

async fn redis_refused(secured: &Secured) {
    let in_folder = |name: &str| secured.folder.path().join(name).display().to_string();
    let run: &[&str] = &["run", "--once", "--projections", "unit-status"];
    let stopped = "projection `unit-status` stopped for good: ";
    let wrong = [("FLEETLOG_REDIS__PASSWORD_FILE", in_folder("wrong-password"))];
    let unknown = [("FLEETLOG_REDIS__CA_FILE", in_folder("other-ca.pem"))];
    let expired = [("FLEETLOG_REDIS__URL", secured.expired_redis.url())];
    let other = [("FLEETLOG_REDIS__URL", secured.redis.url().replace("localhost", "127.0.0.1"))];
    for (variable, words) in [
        (&wrong, [stopped, "check user and password"]),
        (
            &unknown,
            [stopped, "signed by an unknown authority: name the authority that signed it in redis.ca_file"],
        ),
        (&expired, [stopped, "certificate has expired: renew it"]),
        (&other, ["redis at 127.0.0.1:", "certificate is for another host"]),
    ] {
        let variable = [(variable[0].0, variable[0].1.as_str())];
        secured.refused(1, &variable, run, &words).await;
        secured.refused(3, &variable, &["unit", "list"], &["hint: "]).await;
    }
}

async fn postgres_refused(secured: &Secured) {
    let in_folder = |name: &str| secured.folder.path().join(name).display().to_string();
    let run: &[&str] = &["run", "--once", "--projections", "event-history"];
    let stopped = "projection `event-history` stopped for good: ";
    let name = secured.world.database.name();
    let other = format!("postgres://fleetlog@127.0.0.1:{}/{name}", secured.postgres.port());
    for (name, value, words) in [
        (
            "FLEETLOG_POSTGRES__PASSWORD_FILE",
            in_folder("wrong-password"),
            [stopped, "password authentication failed", "postgres.password"],
        ),
        (
            "FLEETLOG_POSTGRES__CA_FILE",
            in_folder("other-ca.pem"),
            [stopped, "signed by an unknown authority", "postgres.ca_file"],
        ),
        ("FLEETLOG_POSTGRES__URL", other, [stopped, "certificate is for another host", "by a name"]),
    ] {
        let variable = [(name, value.as_str())];
        secured.refused(1, &variable, run, &words).await;
        secured.refused(4, &variable, &["migrate"], &words[1..]).await;
    }
    secured.postgres.set_identity(&secured.authority.issue("localhost", Validity::Over).unwrap()).unwrap();
    until("PostgreSQL shows its new certificate", async || {
        secured.with(&[], &["migrate", "--dry-run"]).await.code() != Some(0)
    })
    .await;
    secured.refused(1, &[], run, &[stopped, "certificate has expired: renew it"]).await;
    secured.refused(4, &[], &["migrate"], &["certificate has expired: renew it"]).await;
}

async fn registry_refused(secured: &Secured) {
    let in_folder = |name: &str| secured.folder.path().join(name).display().to_string();
    let publish: &[&str] = &["schemas", "publish"];
    for (name, value, words) in [
        ("FLEETLOG_REGISTRY__PASSWORD_FILE", in_folder("wrong-password"), ["HTTP 401", "credentials"]),
        (
            "FLEETLOG_REGISTRY__CA_FILE",
            in_folder("other-ca.pem"),
            ["signed by an unknown authority", "registry.ca_file"],
        ),
    ] {
        secured.refused(4, &[(name, value.as_str())], publish, &words).await;
    }
    let at = |host: &str, port: u16| format!("https://{host}:{port}/{}", secured.registry_path);
    for (url, words) in [
        (at("localhost", secured.expired_front.port()), ["certificate has expired", "renew it"]),
        (at("127.0.0.1", secured.front.port()), ["certificate is for another host", "by a name"]),
    ] {
        secured.refused(4, &[("FLEETLOG_REGISTRY__URL", &url)], publish, &words).await;
    }
}

#![expect(clippy::unwrap_used, reason = "tests")]

use fleetlog_testkit::Authority;

use super::*;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn sound() -> Subscription {
    Subscription {
        secrets: vec![SECRET.to_owned()],
        ..Subscription::new("dock", "https://example.com/fleet?key=hush")
    }
}

/// The problems with a sound subscription after a change: field, value, what to do.
fn problems(change: impl FnOnce(&mut Subscription)) -> Vec<(String, String, String)> {
    let mut subscription = sound();
    change(&mut subscription);
    let problems = subscription.check().err().map_or_else(Vec::new, |error| error.problems);
    problems.into_iter().map(|problem| (problem.field, problem.value, problem.remedy)).collect()
}

fn one_problem(change: impl FnOnce(&mut Subscription)) -> (String, String, String) {
    let mut problems = problems(change);
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.remove(0)
}

#[test]
fn a_sound_one_has_no_problems() {
    assert_eq!(problems(|_| ()), []);
    assert_eq!(problems(|it| (it.secrets, it.allow_unsigned) = (vec![], true)), []);
    assert_eq!(problems(|it| it.timeout_ms = 1), []);
    assert_eq!(problems(|it| it.timeout_ms = 60_000), []);
    assert_eq!(problems(|it| it.name = "a".repeat(64)), []);
    assert_eq!(problems(|it| it.sites = vec!["werk 1".to_owned()]), []);
}

#[test]
fn every_problem_is_told_at_once() {
    let wrong = Subscription {
        event_types: vec!["Conected".to_owned(), "Connected".to_owned(), "Telemetri".to_owned()],
        sites: vec![String::new()],
        secrets: vec!["hush".to_owned()],
        timeout_ms: 0,
        ca_pem: Some(b"none".to_vec()),
        ..Subscription::new("Dock 1", "ftp://example.com")
    };
    let error = wrong.check().unwrap_err();
    let fields: Vec<&str> = error.problems.iter().map(|problem| problem.field.as_str()).collect();
    let expected =
        ["name", "url", "event_types[0]", "event_types[2]", "sites[0]", "secrets[0]", "timeout_ms", "ca_pem"];
    assert_eq!(fields, expected);
    let text = error.to_string();
    assert!(
        text.starts_with("webhook `Dock 1`: name is `Dock 1`: give 1 to 64 lower-case letters"),
        "{text}"
    );
    assert!(!text.contains("hush"), "{text}");
}

#[test]
fn names_are_of_lower_case_letters_digits_and_hyphens() {
    for name in ["", "Dock", "dock_1", "dock.1", "döck", "dock 1", &"a".repeat(65)] {
        let (field, value, _) = one_problem(|it| name.clone_into(&mut it.name));
        assert_eq!((field.as_str(), value.as_str()), ("name", name));
    }
}

#[test]
fn an_address_that_cannot_be_called_says_why_and_gives_no_secret_away() {
    for (url, value, words) in [
        ("", "", "relative URL without a base"),
        ("example.com/x", "example.com/x", "relative URL without a base"),
        ("https://", "https://", "empty host"),
        ("https://[::1", "https://[::1", "invalid IPv6 address"),
        ("https://x:hush@:1/", "(not shown)", "empty host"),
        ("example.com/?token=hush", "(not shown)", "no address"),
        ("ftp://example.com/hush", "ftp:…", "no http or https"),
        ("file:///etc/passwd", "file:…", "no http or https"),
        ("https://user:hush@example.com/x", "https://example.com", "take user and password out of it"),
        ("https://hush@example.com:8443/x", "https://example.com:8443", "take user and password out of it"),
    ] {
        let (field, shown, remedy) = one_problem(|it| url.clone_into(&mut it.url));
        assert_eq!((field.as_str(), shown.as_str()), ("url", value));
        assert!(remedy.contains(words) && !remedy.contains("hush"), "{url}: {remedy}");
    }
}

#[test]
fn event_types_are_known_by_each_of_their_names() {
    let types = ["Connected", "robot.ModeChanged", "fleetlog.task.Created"].map(str::to_owned).to_vec();
    let checked = Subscription { event_types: types, ..sound() }.checked().unwrap();
    let expected = ["fleetlog.robot.Connected", "fleetlog.robot.ModeChanged", "fleetlog.task.Created"];
    assert_eq!(checked.event_types, expected);
}

#[test]
fn an_event_type_that_is_none_is_told_with_the_nearest() {
    for (text, near) in [
        ("Conected", "Connected"),
        ("connected", "Connected"),
        ("task.created", "Created"),
        ("fleetlog.robot.FaultRaist", "FaultRaised"),
        ("onnected", "Connected"),
    ] {
        let (field, value, remedy) = one_problem(|it| it.event_types = vec![text.to_owned()]);
        assert_eq!((field.as_str(), value.as_str()), ("event_types[0]", text));
        assert!(remedy.contains(&format!("the nearest is `{near}`")), "{text}: {remedy}");
    }
}

#[test]
fn an_event_type_of_several_topics_has_to_be_told_apart() {
    let types = ["fleetlog.robot.Paused", "fleetlog.task.Paused"].map(|name| EventType { name, topic: "" });
    assert_eq!(event_type(&types, "task.Paused"), Ok(types[1]));
    let expected =
        "more than one event is called so, give one of fleetlog.robot.Paused, fleetlog.task.Paused";
    assert_eq!(event_type(&types, "Paused"), Err(expected.to_owned()));
}

#[test]
fn secrets_are_needed_unless_their_absence_is_allowed() {
    let (field, _, remedy) = one_problem(|it| it.secrets.clear());
    assert_eq!(field, "secrets");
    assert!(remedy.contains("allow calls to be unsigned"), "{remedy}");
    let (field, value, remedy) = one_problem(|it| it.secrets.push("whsec_aHVzaA==".to_owned()));
    assert_eq!((field.as_str(), value.as_str()), ("secrets[1]", "(not shown)"));
    assert!(remedy.contains("has 4 bytes, expected 24 to 64"), "{remedy}");
}

#[test]
fn a_time_is_neither_none_nor_longer_than_a_handlers_call() {
    for wrong in [0, 60_001, u64::MAX] {
        assert_eq!(one_problem(|it| it.timeout_ms = wrong).1, wrong.to_string());
    }
}

#[test]
fn authorities_are_read_from_pem() {
    let authority = Authority::new("webhooks").unwrap();
    let pem = std::fs::read(authority.ca_file()).unwrap();
    let checked = Subscription { ca_pem: Some([pem.clone(), pem].concat()), ..sound() }.checked().unwrap();
    assert_eq!(checked.authorities.len(), 2);
    for wrong in [&b""[..], b"none", b"-----BEGIN CERTIFICATE-----\nhush\n-----END CERTIFICATE-----\n"] {
        let (field, value, _) = one_problem(|it| it.ca_pem = Some(wrong.to_vec()));
        assert_eq!((field.as_str(), value), ("ca_pem", format!("({} bytes)", wrong.len())));
    }
}

#[test]
fn what_is_allowed_and_perhaps_not_meant_is_warned_of() {
    assert_eq!(sound().warnings(), Vec::<String>::new());
    let warnings = |url: &str, allow_private| {
        Subscription { url: url.to_owned(), allow_private, secrets: vec![], allow_unsigned: true, ..sound() }
            .warnings()
    };
    let expected = [
        "http://127.0.0.1:8080 is called without TLS: whoever is on the way reads the events",
        "`127.0.0.1` is 127.0.0.1, a loopback address: no call will be made unless private addresses are allowed",
        "calls are unsigned: a receiver cannot tell them from anybody else's",
    ];
    assert_eq!(warnings("http://127.0.0.1:8080/?key=hush", false), expected);
    assert_eq!(warnings("http://2130706433:8080/", false)[1], expected[1], "another spelling of the same");
    assert_eq!(warnings("https://[::1]/", true), expected[2..]);
}

#[test]
fn secrets_are_in_no_debug_text() {
    let text = format!("{:?} {:?}", sound(), sound().checked().unwrap().secrets);
    assert!(
        text.contains("https://example.com") && !text.contains("hush") && !text.contains("MfKQ"),
        "{text}"
    );
}

#[test]
fn of_an_address_no_more_is_shown_than_where_it_leads() {
    for (url, shown) in [
        ("https://example.com", "https://example.com"),
        ("https://example.com/", "https://example.com"),
        ("https://example.com/hush", "https://example.com/***"),
        ("https://example.com:8443/?hush", "https://example.com:8443/***"),
        ("https://example.com#hush", "https://example.com/***"),
        ("https://user:hush@example.com/", "https://example.com"),
        ("example.com/hush", "***"),
        ("whsec_hush", "***"),
        ("mailto:hush", "***"),
        ("", "***"),
    ] {
        assert_eq!(shown_url(url), shown);
    }
}

#[test]
fn types_are_asked_for_by_each_of_their_names_and_all_where_none_is_named() {
    let asked = |texts: &[&str], name| {
        let event_types = texts.iter().copied().map(str::to_owned).collect();
        Subscription { event_types, ..sound() }.asks_for(name)
    };
    let name = "fleetlog.robot.Connected";
    for text in ["Connected", "robot.Connected", name] {
        assert!(asked(&[text], name), "{text}");
    }
    for text in ["onnected", "task.Connected", ".Connected", ""] {
        assert!(!asked(&[text], name), "{text}");
    }
    assert!(asked(&[], name));
    assert!(asked(&["Created", "Connected"], name));
}

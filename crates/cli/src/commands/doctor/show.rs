//! The report for people: worst first, no line needs colour or more than 100 columns (commands stay in one piece).

use fleetlog_doctor::{Finding, Report, Severity};

/// Longest line, in characters.
const WIDTH: usize = 100;
/// Where texts begin: behind the severity.
const INDENT: usize = 9;

/// The report as text, without a line feed at its end.
pub(super) fn text(report: &Report, all: bool) -> String {
    let mut out = String::new();
    for finding in report.findings() {
        match finding.severity {
            Severity::Ok if all => push_ok(&mut out, finding),
            Severity::Ok => {}
            _ => push(&mut out, finding),
        }
    }
    let ok: Vec<&str> = report
        .findings()
        .iter()
        .filter(|finding| finding.severity == Severity::Ok)
        .map(|finding| finding.check.code())
        .collect();
    if !all && !ok.is_empty() {
        wrap(&mut out, "ok", &ok.join(", "));
        out.push('\n');
    }
    out.push_str(&format!(
        "doctor: {}, {}, {}, {} ok",
        counted(report.count(Severity::Error), "error"),
        counted(report.count(Severity::Warning), "warning"),
        counted(report.count(Severity::Info), "note"),
        report.count(Severity::Ok)
    ));
    out
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn push(out: &mut String, finding: &Finding) {
    wrap(out, finding.severity.as_str(), &format!("{}: {}", finding.check.code(), finding.found));
    wrap(out, "", &format!("why: {}", finding.reason));
    if let Some(action) = &finding.action {
        wrap(out, "", &format!("do: {action}"));
    }
    if let Some(command) = &finding.command {
        out.push_str(&format!("{:INDENT$}$ {command}\n", ""));
    }
    out.push('\n');
}

fn push_ok(out: &mut String, finding: &Finding) {
    wrap(out, finding.severity.as_str(), &format!("{}: {}", finding.check.code(), finding.found));
}

/// Words in lines, `head` before the first. A word that is longer than a line has one of its own.
fn wrap(out: &mut String, head: &str, words: &str) {
    let mut line = format!("{head:INDENT$}");
    let mut length = INDENT;
    for word in words.split_whitespace() {
        let word_length = word.chars().count();
        if length > INDENT {
            if length + 1 + word_length > WIDTH {
                out.push_str(&line);
                out.push('\n');
                (line, length) = (" ".repeat(INDENT), INDENT);
            } else {
                line.push(' ');
                length += 1;
            }
        }
        line.push_str(word);
        length += word_length;
    }
    out.push_str(&line);
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use fleetlog_doctor::Check;

    use super::*;

    #[test]
    fn findings_are_told_worst_first_with_why_and_what_to_do() {
        let command = format!("redis-cli {}", "x".repeat(120));
        let report = Report::new(vec![
            Check::RedisVersion.ok("7.0.15"),
            Check::RedisPersistence.warning("it keeps no append-only file"),
            Check::RedisEviction
                .error("the policy is `allkeys-lru`")
                .cure("set `noeviction`")
                .by(command.clone()),
        ]);
        let text = text(&report, false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "error    redis-eviction: the policy is `allkeys-lru`");
        assert!(lines[1].starts_with("         why: any other policy"), "{text}");
        assert!(text.contains("\n         do: set `noeviction`\n"), "{text}");
        assert!(text.contains(&format!("\n         $ {command}\n")), "commands stay in one piece: {text}");
        assert!(text.contains("\nwarning  redis-persistence: "), "{text}");
        assert!(
            text.ends_with("ok       redis-version\n\ndoctor: 1 error, 1 warning, 0 notes, 1 ok"),
            "{text}"
        );
        let too_long = lines.iter().filter(|line| line.chars().count() > WIDTH && !line.contains('$'));
        assert_eq!(too_long.count(), 0, "{text}");
    }

    #[test]
    fn what_is_as_it_should_be_is_told_where_asked_for() {
        let report = Report::new(vec![Check::RedisVersion.ok("7.0.15")]);
        assert!(text(&report, true).starts_with("ok       redis-version: 7.0.15\n"));
    }
}

//! Addresses with credentials in them: put together from several settings, and shown without.

use super::Config;

/// `user:password@host`, split: (scheme, user and password, host and all that follows).
fn parts(url: &str) -> Option<(&str, Option<&str>, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    // A password that was not percent-encoded may hold anything, slashes too: the last `@` before the query counts.
    let query_at = rest.find('?').unwrap_or(rest.len());
    Some(match rest[..query_at].rfind('@') {
        Some(at) => (scheme, Some(&rest[..at]), &rest[at + 1..]),
        None => (scheme, None, rest),
    })
}

/// Replaces the passwords in `scheme://user:password@host/…?password=…`; for error messages too. What is no URL and has an `@`
/// may hold a password anywhere before it.
pub(crate) fn redact_url(text: &str) -> String {
    let Some((scheme, user, rest)) = parts(text) else {
        return text.rsplit_once('@').map_or_else(|| text.to_owned(), |(_, host)| format!("***@{host}"));
    };
    // A `?` in a password that was not percent-encoded: where it ends cannot be told, so nothing is shown.
    if rest.contains('@') {
        return format!("{scheme}://***");
    }
    let user = user.map_or_else(String::new, |user| match user.split_once(':') {
        Some((name, _)) => format!("{name}:***@"),
        None => format!("{user}@"),
    });
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let shown: Vec<String> = query.split('&').filter(|pair| !pair.is_empty()).map(redact_parameter).collect();
    let query = if shown.is_empty() { String::new() } else { format!("?{}", shown.join("&")) };
    format!("{scheme}://{user}{address}{query}")
}

fn redact_parameter(pair: &str) -> String {
    match pair.split_once('=') {
        Some((name, _)) if name.contains("pass") => format!("{name}=***"),
        _ => pair.to_owned(),
    }
}

/// Whether the URL itself has a password.
pub(super) fn has_password(url: &str) -> bool {
    parts(url).and_then(|(_, user, _)| user).is_some_and(|user| user.contains(':'))
}

/// Puts users, passwords and root certificates into the addresses, so that whoever connects needs only those.
pub(super) fn put_together(config: &mut Config) {
    let redis = &mut config.redis;
    redis.url = with_credentials(&redis.url, &redis.username, &redis.password);
    let postgres = &mut config.postgres;
    postgres.url = with_credentials(&postgres.url, "", &postgres.password);
    if !postgres.ca_file.is_empty() {
        if parameter(&postgres.url, "sslmode").is_none() {
            postgres.url = with_parameter(&postgres.url, "sslmode", "verify-full");
        }
        postgres.url = with_parameter(&postgres.url, "sslrootcert", &postgres.ca_file);
    }
}

/// The URL with another user and password; an empty one leaves what is there.
fn with_credentials(url: &str, user: &str, password: &str) -> String {
    let Some((scheme, present, rest)) = parts(url) else { return url.to_owned() };
    if user.is_empty() && password.is_empty() {
        return url.to_owned();
    }
    if scheme == "unix" {
        // The path of a socket: users of it are named in the query.
        let named = if user.is_empty() { url.to_owned() } else { with_parameter(url, "user", user) };
        return if password.is_empty() { named } else { with_parameter(&named, "pass", password) };
    }
    let (present_user, present_password) = present
        .map_or(("", None), |present| present.split_once(':').map_or((present, None), |(u, p)| (u, Some(p))));
    let user = if user.is_empty() { present_user.to_owned() } else { encoded(user) };
    let password = match (password, present_password) {
        ("", None) => String::new(),
        ("", Some(present)) => format!(":{present}"),
        (password, _) => format!(":{}", encoded(password)),
    };
    format!("{scheme}://{user}{password}@{rest}")
}

/// The value of a parameter of the query.
pub(super) fn parameter<'a>(url: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = url.split_once('?')?;
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(known, _)| *known == name)
        .map(|(_, value)| value)
}

fn with_parameter(url: &str, name: &str, value: &str) -> String {
    let joint = if url.contains('?') { '&' } else { '?' };
    format!("{url}{joint}{name}={}", encoded(value))
}

/// Percent-encoded but for what needs it nowhere.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown_wherever_it_stands() {
        for (url, shown) in [
            ("postgres://me:ge?heim@h/db", "postgres://***"),
            ("postgres://me:geheim@h:5432/db?x=1", "postgres://me:***@h:5432/db?x=1"),
            ("redis://h:6379/0", "redis://h:6379/0"),
            ("redis://:geheim@h/0", "redis://:***@h/0"),
            // Not percent-encoded, as people write them.
            ("postgres://me:ge/h@im@h/db", "postgres://me:***@h/db"),
            (
                "postgres://h/db?user=me&password=geheim&sslmode=require",
                "postgres://h/db?user=me&password=***&sslmode=require",
            ),
            ("unix:///run/redis.sock?user=me&pass=geheim", "unix:///run/redis.sock?user=me&pass=***"),
            ("me:geheim@h:5432", "***@h:5432"),
            ("", ""),
        ] {
            assert_eq!(redact_url(url), shown);
        }
    }

    #[test]
    fn credentials_go_into_the_address_and_win() {
        for ((url, user, password), whole) in [
            (("redis://h:1/0", "", ""), "redis://h:1/0"),
            (("redis://h:1/0", "me", "a/b@c:d e"), "redis://me:a%2Fb%40c%3Ad%20e@h:1/0"),
            (("redis://h:1/0", "", "p"), "redis://:p@h:1/0"),
            (("postgres://me@h/db?sslmode=require", "", "ü"), "postgres://me:%C3%BC@h/db?sslmode=require"),
            (("postgres://me:old@h/db", "", "new"), "postgres://me:new@h/db"),
            (("rediss://me:old@h/0", "you", ""), "rediss://you:old@h/0"),
            (("unix:///r.sock", "me", "p"), "unix:///r.sock?user=me&pass=p"),
        ] {
            assert_eq!(with_credentials(url, user, password), whole);
        }
    }

    #[test]
    fn parameters_of_the_query_are_found() {
        assert_eq!(parameter("postgres://h/d?a=1&sslmode=require", "sslmode"), Some("require"));
        assert_eq!(parameter("postgres://h/d", "sslmode"), None);
    }
}

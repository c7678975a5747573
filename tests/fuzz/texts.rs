//! Short texts with a form: keys, task ids, links, reasons.

use fleetlog_event::{Reason, UnitKey, decode_id, encode_id};
use fleetlog_projection::Link;
use fleetlog_testkit::fuzz::{Allowance, Answer, Target};
use fleetlog_vda5050::{task_id, unit_and_order_of};

#[test]
fn keys_links_and_reasons() {
    Target::new("texts", 200_000, Allowance::per_byte(32)).run(
        |mutator, corpus| {
            mutator.bytes(corpus, &[b"%2F", b".u", b".o", b"%", b"ffffffffffffffff", b"18446744073709551616"])
        },
        check,
    );
}

fn check(input: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(input);
    let mut answer = "no form";
    if decode_id(&encode_id(&text)).as_deref() != Ok(&*text) {
        return Err("an encoded id is decoded to another".to_owned());
    }
    if let Ok(id) = decode_id(&text)
        && encode_id(&id) != text
    {
        return Err(format!("id `{id}` has a second spelling"));
    }
    if let Ok(key) = UnitKey::parse(&text) {
        if key.to_string() != text {
            return Err(format!("{key:?} has a second spelling"));
        }
        answer = "unit key";
    }
    if let Some((unit, order)) = unit_and_order_of(&text) {
        let again = task_id(&unit.site_uid, &unit.unit_uid, &order);
        if again.as_deref().is_some_and(|again| again != text) {
            return Err(format!("task id comes back as {again:?}"));
        }
        answer = "task id";
    }
    if let Ok(link) = text.parse::<Link>() {
        if link.to_string().parse::<Link>().ok() != Some(link) {
            return Err(format!("link {link} is not read again"));
        }
        answer = "link";
    }
    if let Some(reason) = Reason::parse(&text) {
        if reason.as_str() != text {
            return Err(format!("reason {reason:?} has a second name"));
        }
        answer = "reason";
    }
    Ok(answer)
}

//! The handler that tells HTTP endpoints what happened: each event one POST, as a CloudEvent, signed by the Standard
//! Webhooks scheme. For receivers and operators: `docs/webhooks.md`.
//!
//! Guarantees:
//! - an event's identity (`webhook-id`, CloudEvents `id`) and its body are the same at each attempt;
//! - an answer costs a bounded time and a bounded part of it is read, whatever the endpoint does; redirects are not followed;
//! - no connection is made to an address inside a network unless the subscription allows it. Names are looked up and judged in
//!   the same step that connects, so that a name which answers otherwise the second time is no way around it;
//! - secrets are in no text that this crate makes, and of an address only scheme, host and port (a path often is a password).
//!
//! What it does not: order. An event that waits for its retry is overtaken by later ones of its key.

mod address;
mod cloud_event;
mod endpoint;
mod judgement;
mod message;
mod signature;
mod subscription;
mod text;
mod webhook;

pub use address::PrivateAddress;
pub use endpoint::{Answer, NoAnswer};
pub use fleetlog_handler::{Call, HandlerError};
pub use judgement::judge;
pub use message::Message;
pub use subscription::{
    Mode, Problem, Subscription, SubscriptionError, TIMEOUT_MS_DEFAULT, TIMEOUT_MS_MAX, shown_url,
};
pub use text::excerpt;
pub use webhook::Webhook;

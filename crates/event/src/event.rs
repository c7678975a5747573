//! The trait that makes a struct an event, and the sets in which events are read.

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Check, EntityKey, EventMeta, Reject, ops::OpsEvent, robot::RobotEvent, task::TaskEvent,
    telemetry::TelemetryEvent,
};

/// A fact that can stand on the log: one Avro record schema, one topic, one entity.
pub trait Event: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Avro full name, such as `fleetlog.robot.Connected`.
    const NAME: &'static str;
    /// Stem of `topics/<topic>.toml`, such as `robot`.
    const TOPIC: &'static str;
    /// What has to hold of its values beside their types: exactly what [`validate`](Self::validate) asks, in its order.
    const CHECKS: &'static [Check];
    /// An example for people and tests: a JSON object of its fields without `meta`.
    const EXAMPLE: &'static str;

    /// The head of the record.
    fn meta(&self) -> &EventMeta;
    /// The head of the record, to be completed by a producer.
    fn meta_mut(&mut self) -> &mut EventMeta;
    /// What the event is about; must equal the Kafka key.
    fn entity(&self) -> EntityKey;
    /// Asks the [`CHECKS`](Self::CHECKS), which hold for every producer and every reader.
    ///
    /// # Errors
    /// The reason, with the first field that is wrong, its value and the rule.
    fn validate(&self) -> Result<(), Reject>;
}

/// Makes structs events: for each its checks (`{ field: rule }`, and `[list { field: rule }]` for the elements of a
/// list), and an example of its fields without `meta`. `UNIT_HEAD`, `TASK_HEAD` or `OPS_HEAD` says what their heads need.
macro_rules! events {
    (topic $topic:literal, head $head:ident by $check_head:ident, entity $entity:expr; $(
        $name:ident {
            $($field:ident: $rule:expr),* $(,)?
        } $([$list:ident { $($inner:ident: $inner_rule:expr),+ }])? $example:literal
    )+) => {$(
        impl $crate::Event for $name {
            const NAME: &'static str = concat!("fleetlog.", $topic, ".", stringify!($name));
            const TOPIC: &'static str = $topic;
            const CHECKS: &'static [$crate::Check] = &{
                const OWN: &[$crate::Check] = &[
                    $($crate::Check { field: stringify!($field), rule: $rule },)*
                    $($($crate::Check {
                        field: concat!(stringify!($list), "[].", stringify!($inner)),
                        rule: $inner_rule,
                    },)+)?
                ];
                $crate::validate::joined::<{ $crate::validate::$head.len() + OWN.len() }>(
                    $crate::validate::$head,
                    OWN,
                )
            };
            const EXAMPLE: &'static str = $example;
            fn meta(&self) -> &$crate::EventMeta { &self.meta }
            fn meta_mut(&mut self) -> &mut $crate::EventMeta { &mut self.meta }
            fn entity(&self) -> $crate::EntityKey {
                let entity: fn(&Self) -> $crate::EntityKey = $entity;
                entity(self)
            }
            fn validate(&self) -> Result<(), $crate::Reject> {
                $crate::validate::$check_head(&self.meta)?;
                $($crate::validate::Checked::check(&self.$field, stringify!($field), $rule)?;)*
                $(for (index, element) in self.$list.iter().enumerate() {
                    $($crate::validate::Checked::check(&element.$inner, stringify!($inner), $inner_rule)
                        .map_err(|reject| $crate::validate::in_list(stringify!($list), index, reject))?;)+
                })?
                Ok(())
            }
        }
    )+};
}
pub(crate) use events;

/// Decodes one event type out of a record whose type is already known. Implemented by the wire (crate `codec`) and
/// by tests.
pub trait DecodeOne {
    /// Why it could not be decoded.
    type Error;
    /// Decodes the record as `E`.
    ///
    /// # Errors
    /// When the bytes are no `E`.
    fn one<E: Event>(self) -> Result<E, Self::Error>;
}

/// Does something with one event whose type is known. Implemented by the wire (encoding) and by producers.
pub trait EventVisitor {
    /// What comes of it.
    type Output;
    /// Takes the event.
    fn event<E: Event>(self, event: &E) -> Self::Output;
}

/// One event type of a set: its names as constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventType {
    /// Avro full name.
    pub name: &'static str,
    /// Stem of the topic.
    pub topic: &'static str,
}

impl EventType {
    /// The last part of the full name: `Connected`.
    #[must_use]
    pub fn short_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }
}

/// What a projection reads: a closed set of event types (all of one topic, or all of several).
pub trait EventSet: Send + Sync + Sized + 'static {
    /// The stems of the topics these events lie on.
    const TOPICS: &'static [&'static str];
    /// The members.
    const TYPES: &'static [EventType];

    /// Decodes the event type called `name`; none if it is not in the set.
    fn decode<D: DecodeOne>(name: &str, decoder: D) -> Option<Result<Self, D::Error>>;
    /// The event's type.
    fn event_type(&self) -> EventType;
    /// The head of the record.
    fn meta(&self) -> &EventMeta;
    /// What the event is about.
    fn entity(&self) -> EntityKey;
    /// See [`Event::validate`].
    ///
    /// # Errors
    /// As there.
    fn validate(&self) -> Result<(), Reject>;
    /// The event as JSON, for people.
    ///
    /// # Errors
    /// When a value has no JSON form.
    fn to_json(&self) -> Result<serde_json::Value, serde_json::Error>;
}

/// What is declared of an event type beside its fields.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Declared {
    /// [`Event::CHECKS`].
    pub checks: &'static [Check],
    /// [`Event::EXAMPLE`].
    pub example: &'static str,
}

/// Declares a set: an enum with one variant per event struct of the same name.
macro_rules! event_set {
    ($(#[$doc:meta])* $name:ident on $topic:literal { $($event:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        #[expect(missing_docs, reason = "a variant is documented at its struct")]
        pub enum $name { $($event($event)),+ }

        $(impl From<$event> for $name {
            fn from(event: $event) -> Self { Self::$event(event) }
        })+

        impl $name {
            /// Hands the event, with its own type, to `visitor`.
            pub fn visit<V: $crate::EventVisitor>(&self, visitor: V) -> V::Output {
                match self { $(Self::$event(event) => visitor.event(event),)+ }
            }
            /// The head of the record, to be completed by a producer.
            pub fn meta_mut(&mut self) -> &mut $crate::EventMeta {
                match self { $(Self::$event(event) => &mut event.meta,)+ }
            }
            /// What is declared of the event type called `name`; none if it is not in the set.
            #[must_use]
            pub fn declared(name: &str) -> Option<$crate::Declared> {
                match name {
                    $(<$event as $crate::Event>::NAME => Some($crate::Declared {
                        checks: <$event as $crate::Event>::CHECKS,
                        example: <$event as $crate::Event>::EXAMPLE,
                    }),)+
                    _ => None,
                }
            }
        }

        impl $crate::EventSet for $name {
            const TOPICS: &'static [&'static str] = &[$topic];
            const TYPES: &'static [$crate::EventType] =
                &[$($crate::EventType { name: <$event as $crate::Event>::NAME, topic: $topic }),+];

            fn decode<D: $crate::DecodeOne>(name: &str, decoder: D) -> Option<Result<Self, D::Error>> {
                match name {
                    $(<$event as $crate::Event>::NAME => Some(decoder.one::<$event>().map(Self::$event)),)+
                    _ => None,
                }
            }
            fn event_type(&self) -> $crate::EventType {
                match self {
                    $(Self::$event(_) => $crate::EventType { name: <$event as $crate::Event>::NAME, topic: $topic },)+
                }
            }
            fn meta(&self) -> &$crate::EventMeta {
                match self { $(Self::$event(event) => &event.meta,)+ }
            }
            fn entity(&self) -> $crate::EntityKey {
                match self { $(Self::$event(event) => $crate::Event::entity(event),)+ }
            }
            fn validate(&self) -> Result<(), $crate::Reject> {
                match self { $(Self::$event(event) => $crate::Event::validate(event),)+ }
            }
            fn to_json(&self) -> Result<serde_json::Value, serde_json::Error> {
                match self { $(Self::$event(event) => serde_json::to_value(event),)+ }
            }
        }
    };
}
pub(crate) use event_set;

/// Any event of the fleet: what history, tools and generic readers take.
#[derive(Clone, Debug, PartialEq)]
pub enum FleetEvent {
    /// Topic `robot`.
    Robot(RobotEvent),
    /// Topic `telemetry`.
    Telemetry(TelemetryEvent),
    /// Topic `task`.
    Task(TaskEvent),
    /// Topic `ops`.
    Ops(OpsEvent),
}

impl FleetEvent {
    /// Every event type that fleetlog knows.
    pub fn types() -> impl Iterator<Item = EventType> {
        Self::TYPES.iter().copied()
    }

    /// What is declared of the event type called `name`; none if there is no such event.
    #[must_use]
    pub fn declared(name: &str) -> Option<Declared> {
        let of = [RobotEvent::declared, TelemetryEvent::declared, TaskEvent::declared, OpsEvent::declared];
        of.into_iter().find_map(|declared| declared(name))
    }
}

macro_rules! dispatch {
    ($self:ident, $event:ident => $body:expr) => {
        match $self {
            FleetEvent::Robot($event) => $body,
            FleetEvent::Telemetry($event) => $body,
            FleetEvent::Task($event) => $body,
            FleetEvent::Ops($event) => $body,
        }
    };
}

impl FleetEvent {
    /// Hands the event, with its own type, to `visitor`.
    pub fn visit<V: EventVisitor>(&self, visitor: V) -> V::Output {
        dispatch!(self, event => event.visit(visitor))
    }

    /// The head of the record, to be completed by a producer.
    pub fn meta_mut(&mut self) -> &mut EventMeta {
        dispatch!(self, event => event.meta_mut())
    }
}

impl EventSet for FleetEvent {
    const TOPICS: &'static [&'static str] = &["robot", "telemetry", "task", "ops"];
    const TYPES: &'static [EventType] = &{
        let mut all = [EventType { name: "", topic: "" }; ALL_TYPES];
        let (mut n, mut set) = (0, 0);
        while set < SETS.len() {
            let mut i = 0;
            while i < SETS[set].len() {
                all[n] = SETS[set][i];
                (n, i) = (n + 1, i + 1);
            }
            set += 1;
        }
        all
    };

    fn decode<D: DecodeOne>(name: &str, decoder: D) -> Option<Result<Self, D::Error>> {
        let topic = Self::TYPES.iter().find(|event_type| event_type.name == name)?.topic;
        match topic {
            "robot" => RobotEvent::decode(name, decoder).map(|event| event.map(Self::Robot)),
            "telemetry" => TelemetryEvent::decode(name, decoder).map(|event| event.map(Self::Telemetry)),
            "task" => TaskEvent::decode(name, decoder).map(|event| event.map(Self::Task)),
            _ => OpsEvent::decode(name, decoder).map(|event| event.map(Self::Ops)),
        }
    }
    fn event_type(&self) -> EventType {
        dispatch!(self, event => event.event_type())
    }
    fn meta(&self) -> &EventMeta {
        dispatch!(self, event => event.meta())
    }
    fn entity(&self) -> EntityKey {
        dispatch!(self, event => event.entity())
    }
    fn validate(&self) -> Result<(), Reject> {
        dispatch!(self, event => event.validate())
    }
    fn to_json(&self) -> Result<serde_json::Value, serde_json::Error> {
        dispatch!(self, event => event.to_json())
    }
}

/// The types of each topic, in the order of [`FleetEvent::TOPICS`](EventSet::TOPICS).
const SETS: [&[EventType]; 4] = [RobotEvent::TYPES, TelemetryEvent::TYPES, TaskEvent::TYPES, OpsEvent::TYPES];

const ALL_TYPES: usize = SETS[0].len() + SETS[1].len() + SETS[2].len() + SETS[3].len();

//! The calls of librdkafka that crate rdkafka does not wrap; the only unsafe code that runs in production.
//!
//! A commit whose answer comes with what is polled; three admin requests (DescribeTopics, for topic ids; IncrementalAlterConfigs, which leaves alone what it does not
//! name; DescribeConsumerGroups, for the names of static members), headers whose names are no UTF-8, and the fault
//! injection for tests of fatal errors. All admin requests are *blocking*: each polls a queue of its own until its one answer
//! is there.
#![expect(unsafe_code, reason = "calls of librdkafka that crate rdkafka does not wrap")]

mod brokers;
mod commit;

use std::{
    ffi::{CStr, CString, c_char},
    ptr::NonNull,
    time::Duration,
};

use rdkafka::{
    ClientContext,
    client::Client,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::{BorrowedHeaders, OwnedHeaders},
};
use rdkafka_sys as sys;
use uuid::Uuid;

pub(crate) use brokers::{add_brokers, names_brokers};
pub use commit::commit_and_tell;

/// What DescribeTopics tells of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) name: String,
    /// The facts, or why there are none (such as `UnknownTopicOrPartition`).
    pub(crate) facts: Result<DescribedFacts, RDKafkaErrorCode>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DescribedFacts {
    /// The topic's id (KIP-516).
    pub(crate) id: Uuid,
    /// How many replicas each partition has, by partition.
    pub(crate) replicas: Vec<usize>,
}

/// Asks the cluster about topics by name. One entry per name, in any order.
pub(crate) fn describe_topics<C: ClientContext>(
    client: &Client<C>,
    names: &[&str],
    timeout: Duration,
) -> KafkaResult<Vec<Described>> {
    let names: Vec<CString> = names.iter().map(|name| CString::new(*name)).collect::<Result<_, _>>()?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let request = Request::new(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, timeout)?;
    // SAFETY: `pointers` holds `len` pointers to NUL-terminated strings that outlive the call, which copies them;
    // the collection is destroyed after the request has copied it, client, options and queue live in `request`.
    unsafe {
        let collection = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        sys::rd_kafka_DescribeTopics(client.native_ptr(), collection, request.options(), request.queue());
        sys::rd_kafka_TopicCollection_destroy(collection);
    }
    let answer = request.answer(timeout)?;
    let mut count = 0_usize;
    // SAFETY: the event is the answer to DescribeTopics (checked for null all the same) and outlives the pointers
    // taken from it, which are only read here.
    unsafe {
        let result = sys::rd_kafka_event_DescribeTopics_result(answer.event());
        if result.is_null() {
            return Err(KafkaError::AdminOp(RDKafkaErrorCode::Fail));
        }
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        Ok((0..count).map(|i| described(*topics.add(i))).collect())
    }
}

/// Copies one topic's description.
///
/// # Safety
/// `topic` is a valid description whose event is still alive.
unsafe fn described(topic: *const sys::rd_kafka_TopicDescription_t) -> Described {
    // SAFETY: by this function's contract; the accessors return pointers into the description, copied at once.
    unsafe {
        let name = CStr::from_ptr(sys::rd_kafka_TopicDescription_name(topic)).to_string_lossy().into_owned();
        let error = sys::rd_kafka_TopicDescription_error(topic);
        let code: RDKafkaErrorCode = sys::rd_kafka_error_code(error).into();
        if code != RDKafkaErrorCode::NoError {
            return Described { name, facts: Err(code) };
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(topic);
        let id = Uuid::from_u64_pair(
            sys::rd_kafka_Uuid_most_significant_bits(id).cast_unsigned(),
            sys::rd_kafka_Uuid_least_significant_bits(id).cast_unsigned(),
        );
        let mut partitions = 0_usize;
        let infos = sys::rd_kafka_TopicDescription_partitions(topic, &raw mut partitions);
        let replicas = (0..partitions).map(|i| {
            let mut replicas = 0_usize;
            sys::rd_kafka_TopicPartitionInfo_replicas(*infos.add(i), &raw mut replicas);
            replicas
        });
        Described { name, facts: Ok(DescribedFacts { id, replicas: replicas.collect() }) }
    }
}

/// A member of a consumer group, as its coordinator knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// Its id within the group, new with every join.
    pub id: String,
    /// Its name if it is a static member (`group.instance.id`, KIP-345).
    pub instance: Option<String>,
    /// What its process calls itself (`client.id`).
    pub client: String,
    /// Where it connects from, as the broker sees it.
    pub host: String,
    /// The partitions that it was given, by topic and number.
    pub assignment: Vec<(String, i32)>,
}

/// What a consumer group is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupState {
    /// There is no such group, or nothing is left of it.
    #[default]
    Dead,
    /// It has committed offsets and no members.
    Empty,
    /// Its members are joining, or wait for what the leader decides.
    Rebalancing,
    /// Everybody has what the leader decided.
    Stable,
    /// The coordinator says something that this version does not know.
    Unknown,
}

/// A consumer group, as its coordinator knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupFacts {
    /// No rebalance is under way: everybody has what the leader decided.
    pub is_stable: bool,
    /// What it is at.
    pub state: GroupState,
    /// Its members speak the newer protocol of KIP-848 (`group.protocol=consumer`).
    pub is_of_new_protocol: bool,
    /// How partitions are shared out, such as `cooperative-sticky`; empty without members.
    pub assignor: String,
    /// Who is in it.
    pub members: Vec<GroupMember>,
}

/// Asks the coordinator of `group` who is in it. A group that does not exist has no members.
pub(crate) fn describe_group<C: ClientContext>(
    client: &Client<C>,
    group: &str,
    timeout: Duration,
) -> KafkaResult<GroupFacts> {
    let name = CString::new(group)?;
    let mut names = [name.as_ptr()];
    let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
    let request = Request::new(client, operation, timeout)?;
    // SAFETY: `names` holds one pointer to a NUL-terminated string that outlives the call, which copies it; client,
    // options and queue live in `request`.
    unsafe {
        sys::rd_kafka_DescribeConsumerGroups(
            client.native_ptr(),
            names.as_mut_ptr(),
            names.len(),
            request.options(),
            request.queue(),
        );
    }
    let answer = request.answer(timeout)?;
    let mut count = 0_usize;
    // SAFETY: as in `describe_topics`; every string is copied before the event is destroyed.
    unsafe {
        let result = sys::rd_kafka_event_DescribeConsumerGroups_result(answer.event());
        if result.is_null() {
            return Err(KafkaError::AdminOp(RDKafkaErrorCode::Fail));
        }
        let groups = sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
        let mut facts = GroupFacts::default();
        for i in 0..count {
            let group = *groups.add(i);
            let error = sys::rd_kafka_ConsumerGroupDescription_error(group);
            let code: RDKafkaErrorCode = sys::rd_kafka_error_code(error).into();
            match code {
                RDKafkaErrorCode::NoError => {}
                // KIP-1043: newer brokers say so; older ones describe it as dead.
                RDKafkaErrorCode::GroupIdNotFound => continue,
                code => return Err(KafkaError::AdminOp(code)),
            }
            facts.state = group_state(sys::rd_kafka_ConsumerGroupDescription_state(group));
            facts.is_stable = facts.state == GroupState::Stable;
            let consumer = sys::rd_kafka_consumer_group_type_t::RD_KAFKA_CONSUMER_GROUP_TYPE_CONSUMER;
            facts.is_of_new_protocol = sys::rd_kafka_ConsumerGroupDescription_type(group) == consumer;
            let assignor = sys::rd_kafka_ConsumerGroupDescription_partition_assignor(group);
            facts.assignor = text(assignor).unwrap_or_default();
            let size = sys::rd_kafka_ConsumerGroupDescription_member_count(group);
            facts
                .members
                .extend((0..size).map(|at| member(sys::rd_kafka_ConsumerGroupDescription_member(group, at))));
        }
        Ok(facts)
    }
}

fn group_state(state: sys::rd_kafka_consumer_group_state_t) -> GroupState {
    use sys::rd_kafka_consumer_group_state_t as State;
    match state {
        State::RD_KAFKA_CONSUMER_GROUP_STATE_DEAD => GroupState::Dead,
        State::RD_KAFKA_CONSUMER_GROUP_STATE_EMPTY => GroupState::Empty,
        State::RD_KAFKA_CONSUMER_GROUP_STATE_STABLE => GroupState::Stable,
        State::RD_KAFKA_CONSUMER_GROUP_STATE_PREPARING_REBALANCE
        | State::RD_KAFKA_CONSUMER_GROUP_STATE_COMPLETING_REBALANCE => GroupState::Rebalancing,
        _ => GroupState::Unknown,
    }
}

/// Copies one member's description.
///
/// # Safety
/// `member` is a valid description whose event is still alive.
unsafe fn member(member: *const sys::rd_kafka_MemberDescription_t) -> GroupMember {
    // SAFETY: by this function's contract; the accessors return pointers into the description, copied at once. A list of
    // partitions has `cnt` elements with NUL-terminated topics.
    unsafe {
        let assignment = sys::rd_kafka_MemberDescription_assignment(member);
        let partitions = sys::rd_kafka_MemberAssignment_partitions(assignment);
        let assignment = if partitions.is_null() {
            Vec::new()
        } else {
            let count = usize::try_from((*partitions).cnt).unwrap_or_default();
            (0..count)
                .map(|at| {
                    let element = (*partitions).elems.add(at);
                    (text((*element).topic).unwrap_or_default(), (*element).partition)
                })
                .collect()
        };
        GroupMember {
            id: text(sys::rd_kafka_MemberDescription_consumer_id(member)).unwrap_or_default(),
            instance: text(sys::rd_kafka_MemberDescription_group_instance_id(member)),
            client: text(sys::rd_kafka_MemberDescription_client_id(member)).unwrap_or_default(),
            host: text(sys::rd_kafka_MemberDescription_host(member)).unwrap_or_default(),
            assignment,
        }
    }
}

/// Copies a text; none for a null pointer.
///
/// # Safety
/// `text` is null or NUL-terminated and valid during the call.
unsafe fn text(text: *const c_char) -> Option<String> {
    // SAFETY: by this function's contract.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// Sets topic configurations without touching those not named. The answer has one entry per topic.
pub(crate) fn set_topic_configs<C: ClientContext>(
    client: &Client<C>,
    changes: &[(&str, Vec<(&str, &str)>)],
    timeout: Duration,
) -> KafkaResult<Vec<(String, Result<(), String>)>> {
    let mut resources = Resources(Vec::with_capacity(changes.len()));
    for (topic, configs) in changes {
        resources.add(topic, configs)?;
    }
    let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_INCREMENTALALTERCONFIGS;
    let request = Request::new(client, operation, timeout)?;
    // SAFETY: `resources` holds valid resources, which the call copies; the rest lives in `request`.
    unsafe {
        sys::rd_kafka_IncrementalAlterConfigs(
            client.native_ptr(),
            resources.0.as_mut_ptr(),
            resources.0.len(),
            request.options(),
            request.queue(),
        );
    }
    let answer = request.answer(timeout)?;
    let mut count = 0_usize;
    // SAFETY: as in `describe_topics`; every string is copied before the event is destroyed.
    unsafe {
        let result = sys::rd_kafka_event_IncrementalAlterConfigs_result(answer.event());
        if result.is_null() {
            return Err(KafkaError::AdminOp(RDKafkaErrorCode::Fail));
        }
        let resources = sys::rd_kafka_IncrementalAlterConfigs_result_resources(result, &raw mut count);
        let outcome = |i| {
            let resource = *resources.add(i);
            let name =
                CStr::from_ptr(sys::rd_kafka_ConfigResource_name(resource)).to_string_lossy().into_owned();
            let code: RDKafkaErrorCode = sys::rd_kafka_ConfigResource_error(resource).into();
            let text = sys::rd_kafka_ConfigResource_error_string(resource);
            if code == RDKafkaErrorCode::NoError {
                (name, Ok(()))
            } else if text.is_null() {
                (name, Err(code.to_string()))
            } else {
                (name, Err(CStr::from_ptr(text).to_string_lossy().into_owned()))
            }
        };
        Ok((0..count).map(outcome).collect())
    }
}

/// Config resources of librdkafka, destroyed on drop.
struct Resources(Vec<*mut sys::rd_kafka_ConfigResource_t>);

impl Resources {
    fn add(&mut self, topic: &str, configs: &[(&str, &str)]) -> KafkaResult<()> {
        let topic = CString::new(topic)?;
        // SAFETY: the name is NUL-terminated and copied; the resource is destroyed by `drop`.
        let resource = unsafe {
            sys::rd_kafka_ConfigResource_new(
                sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC,
                topic.as_ptr(),
            )
        };
        self.0.push(resource);
        for (name, value) in configs {
            let (name, value) = (CString::new(*name)?, CString::new(*value)?);
            // SAFETY: the resource is valid, both strings are copied; the returned error is ours to destroy.
            unsafe {
                let error = sys::rd_kafka_ConfigResource_add_incremental_config(
                    resource,
                    name.as_ptr(),
                    sys::rd_kafka_AlterConfigOpType_t::RD_KAFKA_ALTER_CONFIG_OP_TYPE_SET,
                    value.as_ptr(),
                );
                if !error.is_null() {
                    let code: RDKafkaErrorCode = sys::rd_kafka_error_code(error).into();
                    sys::rd_kafka_error_destroy(error);
                    return Err(KafkaError::AdminOp(code));
                }
            }
        }
        Ok(())
    }
}

impl Drop for Resources {
    fn drop(&mut self) {
        // SAFETY: every element came from `rd_kafka_ConfigResource_new` and is destroyed once, here.
        unsafe { sys::rd_kafka_ConfigResource_destroy_array(self.0.as_mut_ptr(), self.0.len()) };
    }
}

/// An admin request under way: its options and the queue its answer comes on. The client outlives it.
struct Request<'c> {
    options: NonNull<sys::rd_kafka_AdminOptions_t>,
    queue: NonNull<sys::rd_kafka_queue_t>,
    _client: std::marker::PhantomData<&'c ()>,
}

impl<'c> Request<'c> {
    fn new<C: ClientContext>(
        client: &'c Client<C>,
        operation: sys::rd_kafka_admin_op_t,
        timeout: Duration,
    ) -> KafkaResult<Self> {
        let none = || KafkaError::AdminOpCreation("librdkafka returned null".into());
        // SAFETY: the client is alive; both results are checked for null and destroyed in `drop`.
        let request = unsafe {
            let options = sys::rd_kafka_AdminOptions_new(client.native_ptr(), operation);
            let options = NonNull::new(options).ok_or_else(none)?;
            let queue = NonNull::new(sys::rd_kafka_queue_new(client.native_ptr()));
            let Some(queue) = queue else {
                sys::rd_kafka_AdminOptions_destroy(options.as_ptr());
                return Err(none());
            };
            Self { options, queue, _client: std::marker::PhantomData }
        };
        let mut text: [c_char; 256] = [0; 256];
        // SAFETY: options are valid, the buffer's true length is given.
        let code: RDKafkaErrorCode = unsafe {
            sys::rd_kafka_AdminOptions_set_request_timeout(
                request.options(),
                millis(timeout),
                text.as_mut_ptr(),
                text.len(),
            )
        }
        .into();
        if code == RDKafkaErrorCode::NoError { Ok(request) } else { Err(KafkaError::AdminOp(code)) }
    }

    fn options(&self) -> *mut sys::rd_kafka_AdminOptions_t {
        self.options.as_ptr()
    }

    fn queue(&self) -> *mut sys::rd_kafka_queue_t {
        self.queue.as_ptr()
    }

    /// Waits for the one answer.
    fn answer(&self, timeout: Duration) -> KafkaResult<Answer> {
        // librdkafka answers within the request timeout, with an error at the latest; one second of grace.
        let grace = timeout + Duration::from_secs(1);
        // SAFETY: the queue is valid; the event is destroyed by `Answer`.
        let event = unsafe { sys::rd_kafka_queue_poll(self.queue(), millis(grace)) };
        let answer =
            Answer(NonNull::new(event).ok_or(KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut))?);
        // SAFETY: the event is valid.
        let code: RDKafkaErrorCode = unsafe { sys::rd_kafka_event_error(answer.event()) }.into();
        if code == RDKafkaErrorCode::NoError { Ok(answer) } else { Err(KafkaError::AdminOp(code)) }
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        // SAFETY: both were created by `new` and are destroyed once, here, before the client.
        unsafe {
            sys::rd_kafka_AdminOptions_destroy(self.options());
            sys::rd_kafka_queue_destroy(self.queue());
        }
    }
}

/// An event of librdkafka, destroyed on drop.
struct Answer(NonNull<sys::rd_kafka_event_t>);

impl Answer {
    fn event(&self) -> *mut sys::rd_kafka_event_t {
        self.0.as_ptr()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: the event came from a queue and is destroyed once, here.
        unsafe { sys::rd_kafka_event_destroy(self.event()) };
    }
}

fn millis(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)
}

/// Header number `index`: its name, whatever bytes that has, and its value. None beyond the last.
pub(crate) fn header_at(headers: &BorrowedHeaders, index: usize) -> Option<(&[u8], Option<&[u8]>)> {
    let (mut name, mut value, mut size) = (std::ptr::null(), std::ptr::null(), 0_usize);
    // SAFETY: rdkafka makes a `BorrowedHeaders` of librdkafka's pointer by a cast, and this is the way back; it is valid
    // as long as the borrow. The call only writes the three places.
    let code: RDKafkaErrorCode = unsafe {
        let native = std::ptr::from_ref(headers).cast::<sys::rd_kafka_headers_t>();
        sys::rd_kafka_header_get_all(native, index, &raw mut name, &raw mut value, &raw mut size)
    }
    .into();
    if code != RDKafkaErrorCode::NoError {
        return None;
    }
    // SAFETY: the name is NUL-terminated, the value has `size` bytes, and both live as long as the headers.
    unsafe {
        let name = CStr::from_ptr(name).to_bytes();
        let value = (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), size));
        Some((name, value))
    }
}

/// Adds a header whose name may be any bytes.
pub(crate) fn add_header(headers: &mut OwnedHeaders, name: &[u8], value: Option<&[u8]>) {
    let (start, size) = value.map_or((std::ptr::null(), 0), |value| (value.as_ptr(), value.len()));
    // SAFETY: as in `header_at`; the headers are owned and not shared, so they may be written. Name and value are copied
    // by the lengths given, which fit: no slice is longer than isize::MAX.
    let code: RDKafkaErrorCode = unsafe {
        let native = std::ptr::from_ref(headers.as_borrowed()).cast::<sys::rd_kafka_headers_t>().cast_mut();
        sys::rd_kafka_header_add(
            native,
            name.as_ptr().cast(),
            name.len().cast_signed(),
            start.cast(),
            size.cast_signed(),
        )
    }
    .into();
    // It only fails for headers that are read-only, as those of a received message are.
    assert_eq!(code, RDKafkaErrorCode::NoError, "headers that are owned can be written");
}

/// Puts a client into the state of a fatal error, as librdkafka's own tests do. For tests of recovery only.
///
/// Returns whether this was the first fatal error of the client.
pub fn fail_client_for_test<C: ClientContext>(client: &Client<C>) -> bool {
    let code = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    // SAFETY: the client is alive and the reason a NUL-terminated constant.
    let result =
        unsafe { sys::rd_kafka_test_fatal_error(client.native_ptr(), code, c"injected by a test".as_ptr()) };
    result == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}

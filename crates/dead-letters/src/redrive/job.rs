//! A redrive at work: leases, batches, answers, the audit trail.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fleetlog_event::{
    TimestampMs,
    ops::{OpsEvent, RedriveOutcome},
};
use fleetlog_producer::RawRecord;
use fleetlog_projection::{Act, Command, Fault};
use tokio::time::Instant;

use super::{
    Answered, Awaited, Candidate, Ended, InboxOffsets, LaneRef, Lanes, Message, Outcomes, Plan, RedriveError,
    RedriveRequest, Redriven, Road, Stop, Told, Trouble, Way,
    answers::{await_answers, outcome},
    audit::{Answer, Audit},
    dry::record,
    messages::await_also,
    plan::{Entries, Stays, entries_of, may_go},
};

/// Of the first so many letters of a group this share has to be taken, in percent.
const CANARY_PERCENT: u64 = 95;
/// Between two tries of what failed for a reason that passes: soon at first, more rarely later.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// What is sent gets at least so long to be acknowledged, however short the patience: a transaction that goes on well is not cut
/// off.
const ACKNOWLEDGED_MIN: Duration = Duration::from_secs(10);

/// Carries out a plan. What ends a job in the middle is told with what was done until then; run again, the same command goes
/// on from there.
///
/// # Errors
/// [`RedriveError::Held`], or a server does not answer before anything was sent.
pub async fn execute<L: Lanes, R: Road>(
    plan: &Plan,
    request: &RedriveRequest,
    lanes: &L,
    road: &mut R,
    stop: &Stop,
    tell: &mut (dyn FnMut(Told<'_>) + Send),
) -> Result<Redriven, RedriveError> {
    request.check()?;
    let groups = plan.groups();
    let done = Redriven { left: plan.go.len() as u64, ..Redriven::default() };
    let mut job = Job {
        request,
        lanes,
        road,
        stop,
        tell,
        audits: BTreeMap::new(),
        by_group: BTreeMap::new(),
        leased: Vec::new(),
        renewed_at: TimestampMs(0),
        next_at: None,
        done,
    };
    job.lease(plan, &groups).await?;
    job.done.ended = job.run(plan, &groups).await.unwrap_or_else(Ended::Failed);
    job.end().await;
    Ok(job.done)
}

pub(super) struct Job<'a, L, R> {
    pub(super) request: &'a RedriveRequest,
    pub(super) lanes: &'a L,
    pub(super) road: &'a mut R,
    pub(super) stop: &'a Stop,
    tell: &'a mut (dyn FnMut(Told<'_>) + Send),
    audits: BTreeMap<String, Audit<'a>>,
    pub(super) by_group: BTreeMap<String, Outcomes>,
    pub(super) leased: Vec<String>,
    pub(super) renewed_at: TimestampMs,
    /// When the rate allows the next command.
    next_at: Option<Instant>,
    pub(super) done: Redriven,
}

impl<'a, L: Lanes, R: Road> Job<'a, L, R> {
    async fn run(&mut self, plan: &Plan, groups: &[String]) -> Result<Ended, Trouble> {
        self.write_unwritten(&plan.unwritten).await?;
        let patience = self.request.patience;
        for group in groups {
            patiently(patience, async || self.road.take_over(group).await).await?;
            if patiently(patience, async || self.lanes.members(group).await).await? == 0 {
                (self.tell)(Told::NobodyRuns { group });
            }
        }
        if let Some(ended) = self.drain(&self.lanes_of(plan)).await? {
            return Ok(ended);
        }
        let in_place: Vec<&Candidate> = plan.go.iter().filter(|it| it.way == Way::InPlace).collect();
        for group in groups {
            let of_group: Vec<&Candidate> =
                in_place.iter().copied().filter(|candidate| candidate.lane.group == *group).collect();
            if let Some(ended) = self.group(group, &of_group).await? {
                return Ok(ended);
            }
        }
        let anew: Vec<&Candidate> = plan.go.iter().filter(|it| it.way == Way::Anew).collect();
        if let Some(ended) = self.emit_anew(&anew).await? {
            return Ok(ended);
        }
        let to_handlers: Vec<&Candidate> = plan.go.iter().filter(|it| it.way == Way::ToHandler).collect();
        Ok(self.send_to_handlers(&to_handlers).await?.unwrap_or(Ended::Done))
    }

    /// The lanes that will get commands.
    fn lanes_of(&self, plan: &Plan) -> BTreeSet<LaneRef> {
        let mut lanes = BTreeSet::new();
        for candidate in plan.go.iter().filter(|candidate| candidate.way != Way::ToHandler) {
            lanes.insert(candidate.lane.clone());
            if candidate.way == Way::Anew {
                lanes.extend(self.lanes_over(&candidate.lane));
            }
        }
        lanes
    }

    /// The lanes of all groups over the same partition.
    pub(super) fn lanes_over(&self, lane: &LaneRef) -> Vec<LaneRef> {
        let readers = self.lanes.readers().iter().filter(|reader| reader.topic == lane.topic);
        readers.map(|reader| LaneRef { group: reader.group.clone(), ..lane.clone() }).collect()
    }

    /// Waits until no command of an earlier job is left without an answer: an entry that looks open may be about to close.
    async fn drain(&mut self, lanes: &BTreeSet<LaneRef>) -> Result<Option<Ended>, Trouble> {
        let patience = self.request.patience;
        let (mut from, mut by_inbox) = (InboxOffsets::new(), BTreeMap::new());
        for lane in lanes {
            let progress = patiently(patience, async || self.lanes.progress(lane).await).await?;
            let at = (self.inbox_of(lane)?, lane.partition);
            from.insert(at.clone(), progress.map_or(0, |progress| progress.inbox));
            by_inbox.insert(at, lane);
        }
        let last = patiently(patience, async || self.road.last_commands(&from).await).await?;
        let mut awaited = BTreeMap::new();
        for (at, command) in last {
            if let Some(lane) = by_inbox.get(&at) {
                // What they name is not known; any progress may be towards it.
                await_also(&mut awaited, lane, command, Some(i64::MAX));
            }
        }
        if awaited.is_empty() {
            return Ok(None);
        }
        (self.tell)(Told::Waits { lanes: awaited.len() });
        self.answers(&awaited, true).await
    }

    /// The letters of one group, batch by batch.
    async fn group(&mut self, group: &str, candidates: &[&Candidate]) -> Result<Option<Ended>, Trouble> {
        let (mut rest, mut canary) = (candidates, self.request.canary);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(self.request.batch_now(canary).min(rest.len()));
            rest = later;
            if !self.paced(now.len()).await {
                return Ok(Some(Ended::Stopped));
            }
            if let Some(ended) = self.batch(group, now).await? {
                return Ok(Some(ended));
            }
            canary = canary.map(|left| left.saturating_sub(now.len()));
            if canary == Some(0) {
                canary = None;
                let outcomes = self.by_group.get(group).copied().unwrap_or_default();
                let (taken, of) = (outcomes.taken, outcomes.answered());
                if !rest.is_empty() && taken * 100 < of * CANARY_PERCENT {
                    return Ok(Some(Ended::Canary { group: group.to_owned(), taken, of }));
                }
            }
        }
        Ok(None)
    }

    /// Waits until the rate allows so many more; false if the job is to end instead.
    pub(super) async fn paced(&mut self, count: usize) -> bool {
        self.keep().await;
        if let Some(moment) = self.next_at {
            self.stop.or_at(moment).await;
        }
        if self.stop.is_asked() {
            return false;
        }
        if let Some(rate) = self.request.rate_per_s {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            let from = self.next_at.unwrap_or_else(Instant::now).max(Instant::now());
            self.next_at = Some(from + Duration::from_secs(1) * count / rate.max(1));
        }
        true
    }

    async fn batch(&mut self, group: &str, candidates: &[&Candidate]) -> Result<Option<Ended>, Trouble> {
        let patience = self.request.patience;
        let before = patiently(patience, async || entries_of(self.lanes, candidates).await).await?;
        let (open, mut answers) = self.still_open(candidates, &before);
        let places: Vec<_> = open.iter().map(|candidate| candidate.letter.place.clone()).collect();
        let letters = patiently(patience, async || self.road.fetch(&places).await).await?;
        let (mut sent, mut messages) = (Vec::new(), Vec::new());
        for candidate in open {
            match letters.get(&candidate.letter.place) {
                Some(letter) => {
                    let act = Act::Redrive {
                        record: record(candidate, letter),
                        replays_max: self.request.replays_max,
                    };
                    messages.push(self.message(&candidate.lane, candidate, act)?);
                    sent.push(candidate);
                }
                None => {
                    self.done.gone += 1;
                    self.done.left -= 1;
                }
            }
        }
        if let Some(ended) = self.send(group, Vec::new(), &messages).await? {
            return Ok(Some(ended));
        }
        let after = patiently(patience, async || entries_of(self.lanes, &sent).await).await?;
        answers.extend(sent.iter().map(|candidate| answer(candidate, &before, &after)));
        self.write_down(group, &answers).await?;
        Ok(None)
    }

    /// Those whose entries can still be changed, and what is known of the others: somebody else was quicker.
    pub(super) fn still_open<'c>(
        &self,
        candidates: &[&'c Candidate],
        entries: &Entries,
    ) -> (Vec<&'c Candidate>, Vec<Answer<'c>>) {
        let (mut open, mut closed) = (Vec::new(), Vec::new());
        for candidate in candidates {
            let outcome = match may_go(entries.get(&candidate.at()), self.request.parked) {
                None => {
                    open.push(*candidate);
                    continue;
                }
                Some(Stays::Redriven | Stays::EmittedAnew) => RedriveOutcome::Taken,
                Some(_) => RedriveOutcome::Nothing,
            };
            closed.push(Answer { candidate, outcome, reason: None });
        }
        (open, closed)
    }

    pub(super) fn message(
        &self,
        lane: &LaneRef,
        candidate: &Candidate,
        act: Act,
    ) -> Result<Message, Trouble> {
        let command = Command { job: self.request.action_id.clone(), log: candidate.log, act };
        Ok(Message { lane: lane.clone(), inbox: self.inbox_of(lane)?, command })
    }

    fn inbox_of(&self, lane: &LaneRef) -> Result<String, Trouble> {
        let readers = self.lanes.readers();
        let own = readers.iter().find(|reader| reader.group == lane.group && reader.topic == lane.topic);
        own.map(|reader| reader.inbox.clone()).ok_or_else(|| Trouble {
            fault: Fault::Permanent,
            what: format!("{lane} is no lane of this fleet"),
        })
    }

    /// Sends records and commands in one transaction, and waits for the answers to the commands.
    pub(super) async fn send(
        &mut self,
        group: &str,
        beside: Vec<RawRecord>,
        messages: &[Message],
    ) -> Result<Option<Ended>, Trouble> {
        if messages.is_empty() {
            return Ok(None);
        }
        let mut records = beside;
        records.extend(messages.iter().map(Message::record));
        let patience = self.request.patience;
        let send = async || self.road.send(group, records.clone()).await;
        let offsets = acknowledged(patience, "sending commands", send).await?;
        let mut awaited = BTreeMap::new();
        for message in messages {
            let at = (message.inbox.clone(), message.lane.partition);
            let command = *offsets.get(&at).ok_or_else(|| Trouble {
                fault: Fault::Permanent,
                what: format!("{}/{} has taken commands and does not say where", at.0, at.1),
            })?;
            await_also(&mut awaited, &message.lane, command, message.command.offset());
        }
        self.answers(&awaited, false).await
    }

    /// Waits for answers; how the job ends if they do not come.
    async fn answers(
        &mut self,
        awaited: &BTreeMap<LaneRef, Awaited>,
        is_earlier: bool,
    ) -> Result<Option<Ended>, Trouble> {
        let (lanes, patience) = (self.lanes, self.request.patience);
        let answered = await_answers(lanes, awaited, patience, async || {
            self.keep().await;
            Ok(())
        })
        .await?;
        let Answered::Stalled { lanes: silent, behind, mut trouble } = answered else { return Ok(None) };
        let groups: BTreeSet<&String> = silent.iter().map(|lane| &lane.group).collect();
        let mut unmanned = Vec::new();
        for group in groups {
            match lanes.members(group).await {
                Ok(0) => unmanned.push(group.clone()),
                Ok(_) => {}
                Err(error) => trouble = trouble.or(Some(error.what)),
            }
        }
        Ok(Some(Ended::Stalled { lanes: silent, behind, unmanned, is_earlier, trouble }))
    }

    /// Counts what came of letters, and writes it down.
    pub(super) async fn write_down(&mut self, group: &str, answers: &[Answer<'_>]) -> Result<(), Trouble> {
        let mut outcomes = Outcomes::default();
        for answer in answers {
            outcomes.add(answer.outcome);
            if let Some(reason) = &answer.reason {
                *self.done.rejected_for.entry(reason.clone()).or_default() += 1;
            }
        }
        self.done.left -= answers.len() as u64;
        self.done.outcomes = self.done.outcomes.and(outcomes);
        let of_group = self.by_group.entry(group.to_owned()).or_default();
        *of_group = of_group.and(outcomes);
        (self.tell)(Told::Batch { outcomes: self.done.outcomes });
        let now = self.road.now();
        let events = self.audit(group).redriven(answers, now);
        self.written(events).await
    }

    /// Writes down what an earlier job had no time for.
    async fn write_unwritten(&mut self, unwritten: &[Candidate]) -> Result<(), Trouble> {
        let mut by_group: BTreeMap<&str, Vec<Answer<'_>>> = BTreeMap::new();
        for candidate in unwritten {
            let answer = Answer { candidate, outcome: RedriveOutcome::Taken, reason: None };
            by_group.entry(&candidate.lane.group).or_default().push(answer);
        }
        for (group, answers) in by_group {
            let now = self.road.now();
            let events = self.audit(group).redriven(&answers, now);
            self.written(events).await?;
            self.done.written_down += answers.len() as u64;
        }
        Ok(())
    }

    async fn written(&mut self, events: Vec<OpsEvent>) -> Result<(), Trouble> {
        if events.is_empty() {
            return Ok(());
        }
        let write = async || self.road.write_down(events.clone()).await;
        acknowledged(self.request.patience, "writing down what came of letters", write).await
    }

    pub(super) fn audit(&mut self, group: &str) -> &mut Audit<'a> {
        let request = self.request;
        self.audits.entry(group.to_owned()).or_insert_with(|| Audit::new(request, group))
    }
}

pub(super) fn answer<'c>(candidate: &'c Candidate, before: &Entries, after: &Entries) -> Answer<'c> {
    let at = candidate.at();
    let (outcome, reason) =
        before.get(&at).map_or((RedriveOutcome::Nothing, None), |before| outcome(before, after.get(&at)));
    Answer { candidate, outcome, reason }
}

/// Tries again what failed for a reason that passes, for so long.
pub(super) async fn patiently<T>(
    patience: Duration,
    mut ask: impl AsyncFnMut() -> Result<T, Trouble>,
) -> Result<T, Trouble> {
    tried(patience, async |_| ask().await).await
}

/// As [`patiently`], for what is sent: by itself it would wait for brokers longer than one is ready to. What it was about is left
/// open: the next job waits for the commands that were sent after all, and writes down what was not.
pub(super) async fn acknowledged<T>(
    patience: Duration,
    what: &str,
    mut send: impl AsyncFnMut() -> Result<T, Trouble>,
) -> Result<T, Trouble> {
    let mut before = None;
    tried(patience, async |left| {
        let sent = in_time(left, what, before.as_deref(), send()).await;
        if let Err(trouble) = &sent {
            before = Some(trouble.what.clone());
        }
        sent
    })
    .await
}

/// One try of it; `before` is what the try before it said.
pub(crate) async fn in_time<T>(
    patience: Duration,
    what: &str,
    before: Option<&str>,
    sending: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    let in_time = tokio::time::timeout(patience.max(ACKNOWLEDGED_MIN), sending).await;
    in_time.unwrap_or_else(|_| {
        let before = before.map(|before| format!(" ({before})")).unwrap_or_default();
        let what = format!(
            "{what}: kafka does not acknowledge it{before}; what became of it is found out by running this again"
        );
        Err(Trouble { fault: Fault::Transient, what })
    })
}

/// Tries until it works, does not pass, or the time is up; each try is told how much of it is left.
async fn tried<T>(
    patience: Duration,
    mut ask: impl AsyncFnMut(Duration) -> Result<T, Trouble>,
) -> Result<T, Trouble> {
    let (begun, mut pause) = (Instant::now(), RETRY_MIN);
    loop {
        match ask(patience.saturating_sub(begun.elapsed())).await {
            Err(error) if error.fault == Fault::Transient && begun.elapsed() < patience => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
            answer => return answer,
        }
    }
}

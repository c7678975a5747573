//! What a unit does when nothing holds it: tasks and charging.

use fleetlog_event::{
    robot::{ActionRequested, Authenticated, DoorChanged, DoorState},
    task::StepStatus,
};

use super::{BATTERY_FULL_PERCENT, BATTERY_LOW_PERCENT, Unit};
use crate::{
    Out,
    task::{Phase, Task},
};

/// Where every site's charger stands.
const CHARGER: (i64, i64) = (0, 0);

impl Unit {
    /// Goes on with its task, or charges, or waits for the next task.
    pub(super) fn live(&mut self, out: &mut Out<'_>) {
        if let Some(task) = self.task.take() {
            self.task = self.work(task, out);
        } else if self.charging {
            self.charging = self.battery_percent < BATTERY_FULL_PERCENT;
        } else if self.battery_percent < BATTERY_LOW_PERCENT {
            self.charging = self.drive_to(CHARGER);
        } else if self.random.one_in(8) {
            self.tasks_made += 1;
            let id = format!("sim-{:08x}-{}-{}", out.run >> 32, self.unit_uid, self.tasks_made);
            let meta = self.meta(out);
            self.task = Some(Task::create(id, &mut self.random, meta, out));
        }
    }

    /// One second of work; none when the task is over.
    fn work(&mut self, mut task: Task, out: &mut Out<'_>) -> Option<Task> {
        if task.is_started() && self.random.one_in(400) {
            self.call_off(task, out);
            return None;
        }
        match task.phase {
            Phase::Offered => return self.answer(task, out),
            Phase::Accepted => {
                let meta = self.meta(out);
                task.started(meta, out);
            }
            Phase::ToPick if self.drive_to(task.pick_node) => {
                task.phase = self.begin("pick", Phase::Picking, &task, out);
            }
            Phase::ToDrop if self.drive_to(task.drop_node) => {
                task.phase = self.begin("drop", Phase::Dropping, &task, out);
            }
            Phase::ToPick | Phase::ToDrop => {}
            Phase::Picking(1) => {
                self.end("pick", true, &task, out);
                task.phase = Phase::ToDrop;
            }
            Phase::Dropping(1) => {
                self.end("drop", false, &task, out);
                let meta = self.meta(out);
                task.completed(meta, out);
                return None;
            }
            Phase::Picking(seconds) => task.phase = Phase::Picking(seconds - 1),
            Phase::Dropping(seconds) => task.phase = Phase::Dropping(seconds - 1),
        }
        Some(task)
    }

    /// Takes the offered task, most of the time.
    fn answer(&mut self, mut task: Task, out: &mut Out<'_>) -> Option<Task> {
        if self.random.one_in(40) {
            let meta = self.meta(out);
            task.rejected(meta, out);
            return None;
        }
        if self.random.one_in(50) {
            let from = out.meta(&self.site_uid, &self.neighbour_uid);
            let meta = self.meta(out);
            task.taken_over(from, meta, out);
        } else {
            let meta = self.meta(out);
            task.assigned(meta, out);
        }
        Some(task)
    }

    /// Cancelled on request, or failed.
    fn call_off(&mut self, task: Task, out: &mut Out<'_>) {
        if self.random.one_in(3) {
            let meta = self.meta(out);
            task.failed("timeout", meta, out);
        } else {
            let meta = self.meta(out);
            out.robot(ActionRequested {
                meta,
                action_id: format!("cancel-{}", task.id),
                action_type: "cancelOrder".to_owned(),
                parameters: [("task_id".to_owned(), task.id.clone())].into(),
            });
            let meta = self.meta(out);
            task.cancelled(meta, out);
        }
        if self.loaded {
            self.load(false, out);
        }
    }

    fn begin(&mut self, step: &str, phase: fn(i64) -> Phase, task: &Task, out: &mut Out<'_>) -> Phase {
        let meta = self.meta(out);
        task.step(step, StepStatus::Running, meta, out);
        self.door(DoorState::Open, out);
        phase(self.random.within(3..9))
    }

    fn end(&mut self, step: &str, loaded: bool, task: &Task, out: &mut Out<'_>) {
        self.load(loaded, out);
        self.door(DoorState::Closed, out);
        if !loaded && self.random.one_in(4) {
            let meta = self.meta(out);
            let subject = format!("person-{}", self.random.within(1..100));
            out.robot(Authenticated { meta, subject, method: Some("badge".to_owned()), accepted: true });
        }
        let meta = self.meta(out);
        task.step(step, StepStatus::Finished, meta, out);
    }

    fn door(&self, state: DoorState, out: &mut Out<'_>) {
        let meta = self.meta(out);
        out.robot(DoorChanged { meta, door: "hatch".to_owned(), state });
    }
}

//! The order saga as a state machine (SHOP-501 to SHOP-507): what to do next, and what an outcome changes.
//!
//! Nothing here reads a clock, draws chance, stores or calls. The conductor asks [`Saga::todo`], does it, tells the
//! outcome, and keeps the saga before and after. A step that was begun and has no outcome is in doubt: before it is
//! repeated, its owner is asked; and when the saga turns back, it is undone like one that succeeded.

mod failure;
mod record;
mod recovery;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use failure::Failure;
pub use record::{
    Asked, Compensation, Data, Recovery, STEPS, Saga, State, Step, StepRecord, StepStatus, Undo,
    UndoStatus,
};
pub use recovery::{Action, recover};

use crate::kit::time;

/// How often what is tried.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Retries of a step after its first try, when the failure is temporary.
    pub retries: u32,
    /// The same for the last step, after which only compensation is left.
    pub confirm_retries: u32,
    /// Tries of one compensation (SHOP-506).
    pub undo_tries: u32,
    /// The pause before the first retry; it doubles.
    pub base: Duration,
    /// The longest pause.
    pub most: Duration,
    /// How long an order may wait for payments that are away (SHOP-511); zero: not at all.
    pub queue: Duration,
}

impl Policy {
    /// The pause before retry `number` (from 1): up to a half less by `chance`, which is between 0 and 1.
    fn pause(&self, number: u32, chance: f64) -> i64 {
        let doubled = self
            .base
            .saturating_mul(1 << number.saturating_sub(1).min(16));
        let pause = doubled.min(self.most).as_millis() as f64;
        (pause * (1.0 - chance.clamp(0.0, 1.0) / 2.0)) as i64
    }
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Todo {
    /// This step; `ask` its owner first whether it took effect.
    Forward {
        /// Which.
        step: Step,
        /// It was begun before.
        ask: bool,
    },
    /// Take this step back.
    Back(Step),
    /// Nothing until then.
    Wait(i64),
    /// Nothing until payments is back, or the order has waited for too long.
    Queued,
    /// Nothing any more.
    Nothing,
}

impl Saga {
    /// What is to be done now.
    pub fn todo(&self, now: i64) -> Todo {
        match self.state {
            State::Completed | State::Failed => Todo::Nothing,
            _ if self.queued => Todo::Queued,
            _ if self.is_turned() => self.todo_back(now),
            _ => match self
                .steps
                .iter()
                .find(|step| step.status != StepStatus::Completed)
            {
                Some(step) if step.retry_at > now => Todo::Wait(step.retry_at),
                Some(step) => Todo::Forward {
                    step: step.step,
                    ask: step.in_doubt,
                },
                None => Todo::Nothing,
            },
        }
    }

    fn todo_back(&self, now: i64) -> Todo {
        let pending = || {
            self.compensation
                .undo
                .iter()
                .filter(|undo| undo.status == UndoStatus::Pending)
        };
        // One that has to wait holds up none of the others (SHOP-506).
        match pending().find(|undo| undo.retry_at <= now) {
            Some(undo) => Todo::Back(undo.step),
            None => pending()
                .map(|undo| undo.retry_at)
                .min()
                .map_or(Todo::Nothing, Todo::Wait),
        }
    }

    /// Whether it goes back.
    pub fn is_turned(&self) -> bool {
        self.compensation.started_at.is_some()
    }

    /// Whether nothing is left to do.
    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Completed | State::Failed)
    }

    /// The next step is about to be made. To be kept before it is.
    pub fn begin(&mut self, now: i64) {
        if self.is_turned() || self.is_ended() || self.queued {
            return;
        }
        if let Some(step) = self
            .steps
            .iter_mut()
            .find(|step| step.status != StepStatus::Completed)
            && step.status == StepStatus::Pending
        {
            step.status = StepStatus::InProgress;
            step.started_at = Some(now);
        }
        self.updated_at = now;
    }

    /// Read from the store by somebody who did not see how the last step went.
    pub fn resumed(&mut self, now: i64) {
        for step in &mut self.steps {
            if step.status == StepStatus::InProgress {
                step.in_doubt = true;
                step.retry_at = step.retry_at.min(now);
            }
        }
        self.recovery.attempts += 1;
        self.recovery.last = Some(now);
    }

    /// A step took effect. An outcome that comes when the saga has turned, or again, changes nothing: what the step did
    /// is undone as that of one in doubt.
    pub fn done(&mut self, which: Step, now: i64) {
        if self.is_turned() || self.is_ended() {
            return;
        }
        let step = self.step_mut(which);
        if step.status != StepStatus::InProgress {
            return;
        }
        step.status = StepStatus::Completed;
        step.completed_at = Some(now);
        step.in_doubt = false;
        step.error = None;
        self.stack.push(which);
        self.state = match which {
            Step::ValidateUser => State::UserValidated,
            Step::ReserveInventory => State::InventoryReserved,
            Step::CreateOrder => State::OrderCreated,
            Step::ProcessPayment => State::PaymentProcessed,
            // What follows `order_confirmed` is nothing that could fail, so it is left in the same breath.
            Step::ConfirmOrder => State::Completed,
        };
        self.updated_at = now;
    }

    /// A step failed: it is tried again, or the saga turns back (SHOP-505).
    pub fn failed(
        &mut self,
        which: Step,
        failure: Failure,
        now: i64,
        policy: &Policy,
        chance: f64,
    ) {
        if self.is_turned() || self.is_ended() {
            return;
        }
        let step = self.step_mut(which);
        if step.status != StepStatus::InProgress {
            return;
        }
        step.tries += 1;
        step.error = Some(failure.clone());
        // Once in doubt, always: an earlier call may still arrive when a later one was refused.
        step.in_doubt |= failure.temporary && !failure.not_asked || failure.effective;
        let most = match which {
            Step::ConfirmOrder => policy.confirm_retries,
            _ => policy.retries,
        };
        if failure.temporary && !failure.not_asked && step.tries <= most {
            step.retry_at = now + policy.pause(step.tries, chance);
            self.updated_at = now;
            return;
        }
        if which == Step::ProcessPayment && failure.temporary && self.queue(now, policy.queue) {
            return;
        }
        let step = self.step_mut(which);
        step.status = StepStatus::Failed;
        step.completed_at = Some(now);
        self.turn(failure, now);
    }

    /// The order waits for payments, if it may. What it waited before counts.
    fn queue(&mut self, now: i64, longest: Duration) -> bool {
        if longest.is_zero() {
            return false;
        }
        let until = *self.queued_until.get_or_insert(time::after(now, longest));
        if until <= now {
            return false;
        }
        self.queued = true;
        self.updated_at = now;
        let step = self.step_mut(Step::ProcessPayment);
        (step.tries, step.retry_at) = (0, 0);
        if !step.in_doubt {
            // Nothing can be on its way, so that nothing need be taken back if it waits in vain.
            step.status = StepStatus::Pending;
        }
        true
    }

    /// Payments is back: the step that waited is next. To be kept before it is made.
    pub fn dequeued(&mut self, now: i64) {
        self.queued = false;
        self.begin(now);
    }

    /// Goes back from here, because of this. Says nothing to one that goes back already, or has failed.
    pub fn turn(&mut self, why: Failure, now: i64) {
        if self.is_turned() || self.state == State::Failed {
            return;
        }
        let undo = self
            .steps
            .iter()
            .rev()
            .filter(|step| step.step.can_be_undone())
            .filter(|step| {
                step.status == StepStatus::Completed
                    || (step.in_doubt && step.status != StepStatus::Pending)
                    // Begun, and given up before the outcome was known.
                    || step.status == StepStatus::InProgress
            })
            .map(|step| Undo::new(step.step))
            .collect();
        // The last step's effect is that of the stock, which goes back with its reservation.
        for step in &mut self.steps {
            if step.status == StepStatus::InProgress {
                step.status = StepStatus::Failed;
                step.completed_at = Some(now);
            }
        }
        self.queued = false;
        self.compensation.started_at = Some(now);
        self.compensation.undo = undo;
        self.why = Some(why);
        self.updated_at = now;
        self.settle(now);
    }

    /// A step was taken back.
    pub fn undone(&mut self, which: Step, now: i64) {
        let Some(undo) = self.pending_undo(which) else {
            return;
        };
        undo.status = UndoStatus::Done;
        undo.error = None;
        self.compensation.attempts += 1;
        self.step_mut(which).status = StepStatus::Compensated;
        self.stack.retain(|step| *step != which);
        self.updated_at = now;
        self.settle(now);
    }

    /// A step could not be taken back: again later, or somebody has to look at it (SHOP-506).
    pub fn undo_failed(
        &mut self,
        which: Step,
        failure: Failure,
        now: i64,
        policy: &Policy,
        chance: f64,
    ) {
        let Some(undo) = self.pending_undo(which) else {
            return;
        };
        undo.tries += 1;
        if failure.temporary && undo.tries < policy.undo_tries {
            undo.retry_at = now + policy.pause(undo.tries, chance);
        } else {
            undo.status = UndoStatus::Failed;
        }
        undo.error = Some(failure);
        self.compensation.attempts += 1;
        self.updated_at = now;
        self.settle(now);
    }

    /// Tries again what could not be undone; all of it, or only what failed for the time being. Tells whether there is
    /// something.
    pub fn undo_again(&mut self, all: bool, now: i64) -> bool {
        let mut any = false;
        for undo in &mut self.compensation.undo {
            let worth = all || undo.error.as_ref().is_none_or(|error| error.temporary);
            if undo.status == UndoStatus::Failed && worth {
                *undo = Undo::new(undo.step);
                any = true;
            }
        }
        if any {
            self.updated_at = now;
            self.settle(now);
        }
        any
    }

    /// Undoes a step once more whose effect is there although it was undone: something arrived late.
    pub fn undo_late(&mut self, which: Step, now: i64) {
        self.compensation.started_at.get_or_insert(now);
        self.compensation.undo.retain(|undo| undo.step != which);
        self.compensation.undo.push(Undo::new(which));
        self.updated_at = now;
        self.settle(now);
    }

    /// Steps that could not be undone for good: somebody has to look at them.
    pub fn stuck(&self) -> Vec<Step> {
        let undo = self.compensation.undo.iter();
        let stuck = undo.filter(|undo| undo.status == UndoStatus::Failed);
        stuck.map(|undo| undo.step).collect()
    }

    fn pending_undo(&mut self, which: Step) -> Option<&mut Undo> {
        self.compensation
            .undo
            .iter_mut()
            .find(|undo| undo.step == which && undo.status == UndoStatus::Pending)
    }

    /// The state of one that goes back, by what comes next.
    fn settle(&mut self, now: i64) {
        let undo = &self.compensation.undo;
        let next = undo.iter().find(|undo| undo.status == UndoStatus::Pending);
        self.state = match next.map(|undo| undo.step) {
            Some(Step::ProcessPayment | Step::ConfirmOrder) => State::CompensatePayment,
            Some(Step::CreateOrder) => State::CompensateOrder,
            Some(Step::ReserveInventory) => State::CompensateInventory,
            Some(Step::ValidateUser) => State::CompensateUser,
            None => State::Failed,
        };
        self.compensation.manual = undo.iter().any(|undo| undo.status == UndoStatus::Failed);
        self.compensation.ended_at = (self.state == State::Failed).then_some(now);
    }

    /// The record of one step.
    pub fn step(&self, which: Step) -> &StepRecord {
        &self.steps[which as usize]
    }

    fn step_mut(&mut self, which: Step) -> &mut StepRecord {
        &mut self.steps[which as usize]
    }
}

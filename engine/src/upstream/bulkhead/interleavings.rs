//! Every order in which the steps of several threads can fall, tried one by one: nobody waits for ever, the limit is
//! never exceeded. The steps are those of `mod.rs`, each change of `state` and each taking or letting go of the lock
//! being one; a step that was forgotten there would show here as a thread that waits for ever, and the last tests forget
//! one on purpose. (Loom would do this with the code itself, but cannot be had beside a runtime that speaks to sockets.)

use std::collections::HashSet;

/// Where a thread is. What stands in brackets is where it goes on after the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Enter,
    /// Takes the lock, to stand in line or to leave it.
    Lock(After),
    Change(After),
    Grant(After),
    Unlock(After),
    LookAgain(After),
    TryLock(After),
    /// Waits for its permit, or gives up if it is of that kind.
    Waiting,
    Inside,
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum After {
    LinedUp,
    GaveUp,
    Left,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    limit: u8,
    in_flight: u8,
    waiting: u8,
    locked: bool,
    queue: Vec<usize>,
    granted: Vec<bool>,
    threads: Vec<Step>,
}

/// Which step is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Forgotten {
    Nothing,
    /// Who lets go of the lock does not look again.
    LookingAgain,
    /// Who lines up does not look whether a permit came free meanwhile.
    Granting,
    /// Who gives up does not pass on a permit that was on its way.
    PassingOn,
}

impl World {
    fn new(limit: u8, threads: usize) -> Self {
        World {
            limit,
            in_flight: 0,
            waiting: 0,
            locked: false,
            queue: Vec::new(),
            granted: vec![false; threads],
            threads: vec![Step::Enter; threads],
        }
    }

    fn is_left(&self) -> bool {
        self.waiting > 0 && self.in_flight < self.limit
    }

    fn gives_up(&self, thread: usize) -> bool {
        thread + 1 == self.threads.len()
    }

    /// After leaving the lock.
    fn go_on(&self, thread: usize, after: After, forgotten: Forgotten) -> Step {
        match after {
            After::LinedUp => Step::Waiting,
            After::GaveUp if self.granted[thread] && forgotten != Forgotten::PassingOn => {
                Step::Inside
            }
            After::GaveUp | After::Left => Step::Done,
        }
    }

    /// All that can happen when this thread takes its next step.
    fn next(&self, thread: usize, forgotten: Forgotten) -> Vec<World> {
        let mut world = self.clone();
        let step = match self.threads[thread] {
            Step::Enter if self.waiting == 0 && self.in_flight < self.limit => {
                world.in_flight += 1;
                Step::Inside
            }
            Step::Enter => Step::Lock(After::LinedUp),
            Step::Lock(_) if self.locked => return Vec::new(),
            Step::Lock(after) => {
                world.locked = true;
                Step::Change(after)
            }
            Step::Change(after) => {
                if after == After::LinedUp {
                    world.queue.push(thread);
                    world.waiting += 1;
                } else if let Some(at) = world.queue.iter().position(|&other| other == thread) {
                    world.queue.remove(at);
                    world.waiting -= 1;
                }
                match forgotten {
                    Forgotten::Granting => Step::Unlock(after),
                    _ => Step::Grant(after),
                }
            }
            Step::Grant(after) if self.is_left() => {
                world.in_flight += 1;
                world.waiting -= 1;
                let first = world.queue.remove(0);
                world.granted[first] = true;
                Step::Grant(after)
            }
            Step::Grant(after) => Step::Unlock(after),
            Step::Unlock(after) => {
                world.locked = false;
                match forgotten {
                    Forgotten::LookingAgain | Forgotten::Granting => {
                        world.go_on(thread, after, forgotten)
                    }
                    _ => Step::LookAgain(after),
                }
            }
            Step::LookAgain(after) if self.is_left() => Step::TryLock(after),
            Step::LookAgain(after) => world.go_on(thread, after, forgotten),
            Step::TryLock(after) if self.locked => world.go_on(thread, after, forgotten),
            Step::TryLock(after) => {
                world.locked = true;
                Step::Grant(after)
            }
            Step::Waiting => {
                let mut worlds = Vec::new();
                if self.granted[thread] {
                    let mut served = world.clone();
                    served.threads[thread] = Step::Inside;
                    worlds.push(served);
                }
                if self.gives_up(thread) {
                    world.threads[thread] = Step::Lock(After::GaveUp);
                    worlds.push(world);
                }
                return worlds;
            }
            Step::Inside => {
                world.in_flight -= 1;
                if world.waiting > 0 {
                    Step::TryLock(After::Left)
                } else {
                    Step::Done
                }
            }
            Step::Done => return Vec::new(),
        };
        world.threads[thread] = step;
        vec![world]
    }
}

/// How many worlds there are, or one in which somebody waits for ever.
fn explore(limit: u8, threads: usize, forgotten: Forgotten) -> Result<usize, World> {
    let mut seen = HashSet::new();
    let mut ahead = vec![World::new(limit, threads)];
    while let Some(world) = ahead.pop() {
        if !seen.insert(world.clone()) {
            continue;
        }
        assert!(world.in_flight <= limit, "{world:?}");
        assert!(
            world.locked || usize::from(world.waiting) == world.queue.len(),
            "{world:?}"
        );
        let next: Vec<_> = (0..threads)
            .flat_map(|thread| world.next(thread, forgotten))
            .collect();
        let over = world.threads.iter().all(|step| *step == Step::Done);
        let clean = world.in_flight == 0 && world.waiting == 0;
        if next.is_empty() && !(over && clean) {
            return Err(world);
        }
        ahead.extend(next);
    }
    Ok(seen.len())
}

#[test]
fn in_no_order_of_steps_does_anybody_wait_for_ever() {
    for (limit, threads) in [(1, 1), (1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)] {
        let worlds = explore(limit, threads, Forgotten::Nothing);
        assert!(
            worlds.is_ok(),
            "{threads} threads, {limit} at once: {worlds:?}"
        );
    }
}

#[test]
fn none_of_the_steps_can_be_left_out() {
    for forgotten in [
        Forgotten::LookingAgain,
        Forgotten::Granting,
        Forgotten::PassingOn,
    ] {
        assert!(explore(1, 3, forgotten).is_err(), "{forgotten:?}");
    }
}

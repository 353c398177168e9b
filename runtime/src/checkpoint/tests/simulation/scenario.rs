//! A life of the job: processes that come and go, disasters, and the calm at the end.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::ObjectStore;
use tokio::time::{sleep, timeout};

use super::life::{Blow, Process};
use super::process::{Goal, judge, run};
use super::world::{CHAOS, LEASE, Report, World};
use super::*;

/// Lives the life of `seed` to its end, or to the first violation.
pub(super) fn live(seed: u64) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let world = Arc::new(World::new(seed));
        tokio::select! {
            biased;
            () = world.violated.notified() => {}
            () = life(&world) => {}
        }
        world.report()
    })
}

async fn life(world: &Arc<World>) {
    let processes = 0..world.knobs.processes;
    let slots = processes
        .clone()
        .map(|p| tokio::spawn(slot(Arc::clone(world), p)));
    let slots: Vec<_> = slots.collect();
    let disasters = tokio::spawn(disasters(Arc::clone(world)));
    sleep(CHAOS).await;
    disasters.abort();
    world.calm_down();
    processes.clone().for_each(|process| world.tell(process));
    sleep(10 * LEASE).await;
    processes.for_each(|process| world.life(process).strike(0, Blow::Kill));
    for slot in slots {
        slot.await.expect("a slot does not panic");
    }
    catch_up(world).await;
}

/// Runs the job in one place, again and again.
async fn slot(world: Arc<World>, process: usize) {
    while !world.calm() {
        sleep(world.time_in(Duration::ZERO..LEASE / 4)).await;
        if world.calm() {
            return;
        }
        let (life, told) = world.born(process);
        let run = run(Arc::clone(&world), process, told, Goal::UntilTold);
        match Process::new(life, run).await {
            Some(Ok(())) => world.count("ended in order"),
            Some(Err(error)) => judge(&world, &error),
            None => world.count("killed"),
        }
    }
}

async fn disasters(world: Arc<World>) {
    loop {
        sleep(world.time_in(Duration::ZERO..2 * world.knobs.pause)).await;
        let process = world.dice(0..world.knobs.processes as u64) as usize;
        let time = match world.dice(0..3) {
            0 => world.time_in(Duration::ZERO..LEASE / 4),
            1 => world.time_in(Duration::ZERO..LEASE),
            _ => world.time_in(LEASE..3 * LEASE),
        };
        let polls = world.dice(0..40) as u32;
        let life = world.life(process);
        let what = match world.dice(0..14) {
            0..4 => {
                life.strike(polls, Blow::Kill);
                "kill"
            }
            4..8 => {
                life.strike(polls, Blow::Freeze(time));
                "frozen"
            }
            8 => {
                world.cut_store(process, time);
                "cut off from the store"
            }
            9 => {
                world.cut_sink(process, time);
                "cut off from the sink"
            }
            10 => {
                world.store_away(time);
                "the store is away"
            }
            _ => {
                world.tell(process);
                "told to end"
            }
        };
        world.count(what);
        world.trace(format!("p{process} {what} {polls} {time:?}"));
    }
}

/// One run without faults, then a look at what is left.
async fn catch_up(world: &Arc<World>) {
    // Requests of the dead are still under way.
    sleep(4 * LEASE).await;
    for _ in 0..2 {
        let (_, told) = world.born(0);
        let run = run(Arc::clone(world), 0, told, Goal::CaughtUp);
        match timeout(40 * LEASE, run).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => world.violation(format!("no end: {}", error.report())),
            Err(_) => world.violation("the last run does not catch up".to_owned()),
        }
        world.ask(|oracle, feed| oracle.complete(feed));
    }
    check_size(world).await;
}

/// Of the past only what the kept commits need may be left.
async fn check_size(world: &World) {
    let objects: Vec<_> = world
        .objects
        .list(None)
        .try_collect()
        .await
        .expect("in memory");
    let names: Vec<String> = objects.iter().map(|o| o.location.to_string()).collect();
    // As many seals as one base has objects are not worth another base.
    let bound = 2 * usize::from(BUCKETS) + world.knobs.retain_commits + 12;
    if names.len() > bound {
        world.violation(format!("{} objects are left: {names:?}", names.len()));
    }
}

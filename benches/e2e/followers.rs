//! Followers: how late an event is for many readers of one flight, and what each of them costs.

use std::time::Duration;

use crate::client::{Client, age, request};
use crate::process::{Stage, Target};
use crate::{Outcome, quantile};

/// A stream of four seconds.
const EVENTS: u32 = 400;
const PAUSE_MICROS: u64 = 10_000;
/// When they come who find most of it there already.
const LATE: Duration = Duration::from_millis(3_200);
const CROWDS: [usize; 3] = [1, 64, 1_000];

/// Followers of one stream of 100 events per second, from its start and late. Late ones read what is there as fast as they can: what a
/// stored answer costs when it is replayed.
pub async fn run(stage: &Stage) -> Outcome<()> {
    let Some(arriero) = stage.targets.iter().find(|target| target.name == "Arriero") else { return Ok(()) };
    println!("\n### Followers of one stream (100 events/s, stub's write to client's read)\n");
    println!("| followers | come | p50 | p99 | of the leader p50 | CPU per follower and event |");
    println!("|---|---|---|---|---|---|");
    let mut seed = 0;
    for (come, pause) in [("at the start", Duration::from_millis(5)), ("late", LATE)] {
        for followers in CROWDS {
            seed += 1;
            let (leader, mut delays, cpu) = follow(arriero, seed, followers, pause).await?;
            delays.sort_unstable();
            // What was there before they came is old.
            let live = if pause == LATE { &delays[..0] } else { &delays[..] };
            let micros = |part| quantile(live, part) as f64 / 1e3;
            println!(
                "| {followers} | {come} | {:.0} us | {:.0} us | {:.0} us | {:.2} us |",
                micros(0.5),
                micros(0.99),
                leader as f64 / 1e3,
                cpu as f64 / 1e3 / delays.len() as f64,
            );
        }
    }
    Ok(())
}

/// A leader, and followers that come after `pause`: the leader's median delay, those of the followers, and the CPU from when they come.
async fn follow(
    target: &Target,
    seed: u32,
    followers: usize,
    pause: Duration,
) -> Outcome<(u64, Vec<u64>, u64)> {
    let ask = format!(
        "{{\"model\":\"stub\",\"prompt\":\"@{EVENTS},{PAUSE_MICROS}@\",\"options\":{{\"seed\":{seed}}}}}"
    );
    let ask = &request(target.path, &ask);
    let leader = watch(target, ask);
    let crowd = async {
        tokio::time::sleep(pause).await;
        let before = target.cpu();
        let delays = futures::future::try_join_all((0..followers).map(|_| watch(target, ask))).await?;
        Outcome::Ok((delays.concat(), target.cpu() - before))
    };
    let (mut leader, (delays, cpu)) = futures::future::try_join(leader, crowd).await?;
    leader.sort_unstable();
    Ok((quantile(&leader, 0.5), delays, cpu))
}

async fn watch(target: &Target, ask: &[u8]) -> Outcome<Vec<u64>> {
    let mut delays = Vec::with_capacity(EVENTS as usize);
    Client::connect(target.address).await?.exchange(ask, |stamp| delays.push(age(stamp))).await?;
    Ok(delays)
}

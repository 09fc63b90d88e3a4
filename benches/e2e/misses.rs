//! What coalescing costs requests that share with nobody: requests per second with it against without, in turns.

use std::time::{Duration, Instant};

use crate::client::{Client, request};
use crate::process::{Stage, Target};
use crate::{Outcome, quantile};

const CROWD: usize = 64;
const ROUNDS: usize = 7;
const TIME: Duration = Duration::from_secs(1);

/// 64 connections, each with a question of its own, that is asked again and again.
pub async fn run(stage: &Stage) -> Outcome<()> {
    let Some(arriero) = stage.targets.iter().find(|target| target.name == "Arriero") else { return Ok(()) };
    println!("\n### Requests that share with nobody ({CROWD} connections, medians of {ROUNDS} rounds)\n");
    println!("| body | requests/s, coalescing | off | ratio |");
    println!("|---|---|---|---|");
    for bytes in [500, 8 << 10] {
        let (mut on, mut off) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            on.push(crowd(arriero, bytes, "always").await?);
            off.push(crowd(arriero, bytes, "off").await?);
        }
        on.sort_unstable();
        off.sort_unstable();
        let (on, off) = (quantile(&on, 0.5) as f64, quantile(&off, 0.5) as f64);
        let per_second = |done: f64| done / TIME.as_secs_f64();
        println!("| {bytes} bytes | {:.0} | {:.0} | {:.3} |", per_second(on), per_second(off), on / off);
    }
    Ok(())
}

/// Requests done.
async fn crowd(target: &Target, bytes: usize, mode: &str) -> Outcome<u64> {
    let deadline = Instant::now() + TIME;
    let clients = (0..CROWD).map(|number| async move {
        let prompt = format!("@1,0@ {number} {}", "why is the sky blue? ".repeat(bytes / 21));
        let body = format!("{{\"model\":\"stub\",\"prompt\":\"{prompt}\",\"stream\":false}}");
        let ask = String::from_utf8(request(target.path, &body))?;
        let ask = ask.replacen("\r\n", &format!("\r\nX-Arriero-Coalesce: {mode}\r\n"), 1).into_bytes();
        let mut client = Client::connect(target.address).await?;
        let mut done = 0;
        while Instant::now() < deadline {
            client.time(&ask).await?;
            done += 1;
        }
        Outcome::Ok(done)
    });
    let done = futures::future::try_join_all(clients).await?;
    Ok(done.into_iter().sum())
}

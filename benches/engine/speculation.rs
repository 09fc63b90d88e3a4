//! What guessing ahead brings where a text repeats itself, and what it costs where it does not.

use crate::contender::Contender;
use crate::{Figures, Outcome, bandwidth, note, words};

/// Long enough for the shares of a loop and of what it takes to notice it to be those of a long answer.
const TOKENS: usize = 256;

/// Makes the fixture choose among its forty likeliest tokens as by dice. At usual temperatures it repeats itself, as models with
/// random weights do.
pub const DICE: f64 = 100.0;

/// One stream that falls into a loop soon, for it is greedy, and one that never does.
pub async fn measure(
    contender: &Contender,
    weights: u64,
    round: usize,
    figures: &mut Figures,
) -> Outcome<()> {
    let (_process, address, _) = contender.start().await?;
    let prompt = words(20, 700 + round as u64);
    for (text, temperature) in [("repetitive", 0.0), ("other", DICE)] {
        let answer = contender.ask(address, &prompt, TOKENS, temperature).await?;
        note(figures, &format!("{text} text, tokens/s"), answer.rate());
        if temperature > 0.0 {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let part = answer.rate() * weights as f64 / bandwidth::measure(cores);
            note(figures, "of the memory's bandwidth that takes", part);
        }
    }
    Ok(())
}

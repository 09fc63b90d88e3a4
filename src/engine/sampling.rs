//! [`Sampler`]: from logits to a token, with Ollama's options and defaults and llama.cpp's order: bias, penalties, DRY,
//! top_n_sigma, top_k, typical_p, top_p, min_p, XTC, temperature, draw. Pure: it sees slices of logits, never llama.cpp.

pub mod dry;
mod settings;

use std::collections::HashMap;

pub use settings::Settings;

use super::draw::{second_uniform, uniform};

/// Token id.
pub type Token = u32;

/// Sets the logits of tokens that are not allowed to negative infinity.
pub type Restrict<'a> = &'a mut dyn FnMut(&mut [f32]);

/// Scratch space for sampling; one serves any number of sequences.
#[derive(Debug, Default)]
pub struct Sampler {
    changed: Vec<f32>,
    candidates: Vec<Candidate>,
}

/// A token still in the running.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    token: Token,
    logit: f32,
    /// Set by [`softmax`].
    probability: f32,
}

impl Sampler {
    /// Chooses the token at `position` (tokens before it, prompt included). `history` is what came before, newest last. `None`:
    /// nothing is allowed.
    pub fn sample(
        &mut self,
        settings: &Settings,
        logits: &[f32],
        history: &[Token],
        position: u64,
        restrict: Option<Restrict>,
    ) -> Option<Token> {
        // Most requests ask for nothing that changes them, and a large vocabulary takes a while to copy.
        let logits = match settings.leaves_logits() && restrict.is_none() {
            true => logits,
            false => change(&mut self.changed, settings, logits, history, restrict),
        };
        if settings.temperature <= 0.0 {
            return argmax(logits);
        }
        select(&mut self.candidates, logits, settings.top_k);
        if settings.typical_p < 1.0 {
            typical(&mut self.candidates, settings.typical_p);
        }
        if settings.top_p < 1.0 {
            top_p(&mut self.candidates, settings.top_p);
        }
        if settings.min_p > 0.0 {
            min_p(&mut self.candidates, settings.min_p);
        }
        if let Some(xtc) = &settings.xtc
            && second_uniform(settings.seed, position) < f64::from(xtc.probability)
        {
            exclude_top(&mut self.candidates, xtc.threshold);
        }
        heat(&mut self.candidates, settings.temperature);
        pick(&mut self.candidates, uniform(settings.seed, position))
    }
}

/// Writes to `changed` the logits as the settings and the constraint will have them.
fn change<'a>(
    changed: &'a mut Vec<f32>,
    settings: &Settings,
    logits: &[f32],
    history: &[Token],
    restrict: Option<Restrict>,
) -> &'a [f32] {
    changed.clear();
    changed.extend_from_slice(logits);
    for &(token, bias) in &settings.logit_bias {
        if let Some(logit) = changed.get_mut(token as usize) {
            *logit += bias;
        }
    }
    if settings.penalises() {
        penalise(changed, settings, history);
    }
    if let Some(dry) = &settings.dry {
        dry.penalise(changed, history);
    }
    if let Some(restrict) = restrict {
        restrict(changed);
    }
    if settings.temperature > 0.0 && settings.top_n_sigma > 0.0 {
        top_n_sigma(changed, settings.top_n_sigma);
    }
    changed
}

/// Fills `candidates` with the `k` likeliest tokens (0: with all that are possible), without sorting the vocabulary.
fn select(candidates: &mut Vec<Candidate>, logits: &[f32], k: usize) {
    candidates.clear();
    let is_possible = |logit: f32| logit > f32::NEG_INFINITY;
    if k == 0 {
        let possible = (0..).zip(logits).filter(|(_, logit)| is_possible(**logit));
        candidates.extend(possible.map(|(token, &logit)| Candidate::new(token, logit)));
        return;
    }
    // Gather whatever beats the k-th best so far, and cut back to k whenever the heap has grown to a few times that. Most of
    // a large vocabulary fails that one comparison, so it is made for many tokens at once.
    let mut threshold = f32::NEG_INFINITY;
    for (first, block) in (0..).step_by(BLOCK).zip(logits.chunks(BLOCK)) {
        if candidates.len() >= k && !any_of(block, |logit| logit > threshold) {
            continue;
        }
        for (token, &logit) in (first..).zip(block) {
            if logit > threshold || (candidates.len() < k && is_possible(logit)) {
                candidates.push(Candidate::new(token, logit));
            }
        }
        if candidates.len() >= 4 * k + BLOCK {
            threshold = keep_best(candidates, k);
        }
    }
    keep_best(candidates, k);
}

impl Candidate {
    fn new(token: Token, logit: f32) -> Self {
        Self { token, logit, probability: 0.0 }
    }

    /// Best first; the lower id breaks ties, so that the outcome does not depend on how candidates were gathered.
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        other.logit.total_cmp(&self.logit).then(self.token.cmp(&other.token))
    }
}

/// Cuts to the `k` best, in no order; the logit of the worst of them.
fn keep_best(candidates: &mut Vec<Candidate>, k: usize) -> f32 {
    if candidates.len() > k {
        candidates.select_nth_unstable_by(k - 1, Candidate::order);
        candidates.truncate(k);
        return candidates[k - 1].logit;
    }
    f32::NEG_INFINITY
}

/// The likeliest token, the first of equals.
fn argmax(logits: &[f32]) -> Option<Token> {
    let best = highest(logits);
    let blocks = (0..).step_by(BLOCK).zip(logits.chunks(BLOCK));
    let (first, block) = blocks.into_iter().find(|(_, block)| any_of(block, |logit| logit == best))?;
    let within = (first..).zip(block).find(|&(_, &logit)| logit == best);
    within.map(|(token, _)| token).filter(|_| best > f32::NEG_INFINITY)
}

/// Logits that are looked at together: a loop over so many without a way out of it becomes vector instructions.
const BLOCK: usize = 64;

/// Whether `test` holds for any of a block.
fn any_of(block: &[f32], test: impl Fn(f32) -> bool) -> bool {
    block.iter().fold(false, |any, &logit| any | test(logit))
}

/// The highest that is a number; negative infinity if none is.
fn highest(logits: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; BLOCK];
    for block in logits.chunks(BLOCK) {
        for (lane, &logit) in lanes.iter_mut().zip(block) {
            *lane = if logit > *lane { logit } else { *lane };
        }
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

/// llama.cpp's penalties over the last `repeat_last_n` tokens.
fn penalise(logits: &mut [f32], settings: &Settings, history: &[Token]) {
    let window = &history[history.len().saturating_sub(settings.repeat_last_n)..];
    let mut counts: HashMap<Token, f32> = HashMap::new();
    for &token in window {
        *counts.entry(token).or_default() += 1.0;
    }
    for (token, count) in counts {
        if let Some(logit) = logits.get_mut(token as usize) {
            if *logit <= 0.0 {
                *logit *= settings.repeat_penalty;
            } else {
                *logit /= settings.repeat_penalty;
            }
            *logit -= count * settings.frequency_penalty + settings.presence_penalty;
        }
    }
}

/// Divides by the temperature, as distances from the best: with those no temperature, however small, gives two infinities that
/// cannot be told apart.
fn heat(candidates: &mut [Candidate], temperature: f32) {
    let best = best(candidates);
    for candidate in candidates {
        candidate.logit = (candidate.logit - best) / temperature;
    }
}

fn best(candidates: &[Candidate]) -> f32 {
    candidates.iter().map(|candidate| candidate.logit).fold(f32::NEG_INFINITY, f32::max)
}

/// Sets the probabilities among the candidates.
fn softmax(candidates: &mut [Candidate]) {
    let best = best(candidates);
    let mut sum = 0.0;
    for candidate in candidates.iter_mut() {
        candidate.probability = (candidate.logit - best).exp();
        sum += candidate.probability;
    }
    for candidate in candidates {
        candidate.probability /= sum;
    }
}

/// Locally typical sampling (Meister et al., 2022): keeps the tokens whose surprise is nearest to the entropy, until their
/// probability reaches `p`.
fn typical(candidates: &mut Vec<Candidate>, p: f32) {
    softmax(candidates);
    let surprise = |candidate: &Candidate| -candidate.probability.max(f32::MIN_POSITIVE).ln();
    let entropy: f32 = candidates.iter().map(|c| c.probability * surprise(c)).sum();
    let distance = |candidate: &Candidate| (surprise(candidate) - entropy).abs();
    candidates.sort_unstable_by(|a, b| distance(a).total_cmp(&distance(b)).then(a.order(b)));
    truncate_at(candidates, p);
}

/// Nucleus sampling (Holtzman et al., 2020): the smallest set of likeliest tokens whose probability reaches `p`.
fn top_p(candidates: &mut Vec<Candidate>, p: f32) {
    softmax(candidates);
    // The nucleus is small as a rule: sort a front part, and a larger one only if that was not enough.
    let mut front = 128;
    while front < candidates.len() {
        candidates.select_nth_unstable_by(front, Candidate::order);
        if candidates[..front].iter().map(|candidate| candidate.probability).sum::<f32>() >= p {
            candidates.truncate(front);
            break;
        }
        front *= 8;
    }
    candidates.sort_unstable_by(Candidate::order);
    truncate_at(candidates, p);
}

/// Keeps candidates from the front until their probability reaches `p`, and at least one.
fn truncate_at(candidates: &mut Vec<Candidate>, p: f32) {
    let mut sum = 0.0;
    let enough = candidates.iter().position(|candidate| {
        sum += candidate.probability;
        sum >= p
    });
    candidates.truncate(enough.map_or(candidates.len(), |last| last + 1));
}

/// Keeps what is at least `p` times as likely as the best.
fn min_p(candidates: &mut Vec<Candidate>, p: f32) {
    let best = best(candidates);
    // At most the best itself: a `p` over 1 must not empty the list.
    let least = best + p.min(1.0).ln();
    candidates.retain(|candidate| candidate.logit >= least);
}

/// Top-nσ (Tang et al., 2024, <https://arxiv.org/abs/2411.07641>): what is more than `n` standard deviations of all logits below
/// the best is impossible.
fn top_n_sigma(logits: &mut [f32], n: f32) {
    let possible = || logits.iter().map(|&logit| f64::from(logit)).filter(|logit| logit.is_finite());
    let count = possible().count().max(1) as f64;
    let best = possible().fold(f64::NEG_INFINITY, f64::max);
    let mean = possible().sum::<f64>() / count;
    let variance = possible().map(|logit| (logit - mean).powi(2)).sum::<f64>() / count;
    let least = best - f64::from(n) * variance.sqrt();
    for logit in logits {
        if f64::from(*logit) < least {
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// XTC's cut: where several are at least `threshold` likely, the least likely of those and what is below it stay.
fn exclude_top(candidates: &mut Vec<Candidate>, threshold: f32) {
    softmax(candidates);
    let is_top = |candidate: &Candidate| candidate.probability >= threshold;
    if let Some(last) = candidates.iter().copied().filter(is_top).max_by(Candidate::order) {
        candidates.retain(|candidate| candidate.order(&last).is_ge());
    }
}

/// Draws one: `point` in [0, 1) is a place in their cumulated probability, best first.
fn pick(candidates: &mut [Candidate], point: f64) -> Option<Token> {
    softmax(candidates);
    // The same order whatever the candidates went through, so that the same point means the same token.
    candidates.sort_unstable_by(Candidate::order);
    let mut sum = 0.0;
    for candidate in candidates.iter() {
        sum += f64::from(candidate.probability);
        if point < sum {
            return Some(candidate.token);
        }
    }
    // Rounding left the sum below the point.
    candidates.iter().rfind(|candidate| candidate.probability > 0.0).map(|candidate| candidate.token)
}

/// Natural logarithms of the probabilities that `logits` stand for.
pub struct Distribution<'a> {
    logits: &'a [f32],
    /// Logarithm of the sum of the exponentials.
    total: f32,
}

impl<'a> Distribution<'a> {
    /// Reads the logits once.
    pub fn new(logits: &'a [f32]) -> Self {
        let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = logits.iter().map(|logit| (logit - best).exp()).sum();
        Self { logits, total: best + sum.ln() }
    }

    /// That of one token. Never below -9999, which stands for impossible: JSON has no infinity.
    pub fn logprob(&self, token: Token) -> f32 {
        let logit = self.logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
        (logit - self.total).max(-9999.0)
    }

    /// The `n` likeliest tokens, best first.
    pub fn best(&self, n: usize) -> Vec<Token> {
        if n == 0 {
            return Vec::new();
        }
        let mut candidates = Vec::new();
        select(&mut candidates, self.logits, n);
        candidates.sort_unstable_by(Candidate::order);
        candidates.iter().map(|candidate| candidate.token).collect()
    }
}

#[cfg(test)]
mod tests;

//! [`Embedder`]: the one thread that computes vectors, and the scores of a model that ranks. Inputs of all waiting requests share llama.cpp batches.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, TryRecvError};

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::llama_batch::LlamaBatch;
use tokio::sync::oneshot;

use super::command::Command;
use super::health::Status;
use super::model::{Model, llama_token};
use super::rank;
use super::sampling::Token;
use crate::generation::seam::Saved;
use crate::generation::{Embedding, Embeddings, Failure, FailureCode, Ranking};

/// An [`Embedding`] made ready: tokenised, cut to fit.
pub struct EmbedJob {
    inputs: Vec<Vec<Token>>,
    dimensions: Option<usize>,
    /// Vectors are scores and stay as they are.
    ranks: bool,
}

impl EmbedJob {
    /// Prepares a request.
    pub fn new(model: &Model, request: &Embedding) -> Result<Self, Failure> {
        if !model.facts.embeds {
            return Err(failure(FailureCode::Unsupported, "this model does not support embeddings"));
        }
        let most = model.facts.context as usize;
        let limit = match request.num_ctx.or(model.spec.options.num_ctx) {
            Some(asked) => usize::try_from(asked).unwrap_or(0).min(most),
            None => most,
        };
        let special = model.tokenize("", true, true).len();
        let fit = |input: &String| {
            let is_special = |token| model.is_control(token);
            fit(model.tokenize(input, true, true), limit, special, request.truncate, is_special)
        };
        let inputs = request.inputs.iter().map(fit).collect::<Result<_, _>>()?;
        Ok(Self { inputs, dimensions: request.dimensions, ranks: false })
    }

    /// Prepares a request for scores; each is the only number of a vector.
    pub fn ranking(model: &Model, request: &Ranking) -> Result<Self, Failure> {
        if !model.facts.ranks {
            return Err(failure(FailureCode::Unsupported, "this model does not support rerank"));
        }
        Ok(Self { inputs: rank::inputs(model, request)?, dimensions: None, ranks: true })
    }
}

/// Cuts an input of `tokens`, of which `special` are there for every input, to `limit`. A special token that ends it stays.
fn fit(
    mut tokens: Vec<Token>,
    limit: usize,
    special: usize,
    truncate: bool,
    is_special: impl Fn(Token) -> bool,
) -> Result<Vec<Token>, Failure> {
    if tokens.len() > limit {
        if !truncate {
            return Err(failure(FailureCode::ContextLength, "the input length exceeds the context length"));
        }
        if limit <= special {
            let message = "input after truncation exceeds maximum context length";
            return Err(failure(FailureCode::InvalidRequest, message));
        }
        let end = tokens.last().copied().filter(|&token| is_special(token));
        tokens.truncate(limit - usize::from(end.is_some()));
        tokens.extend(end);
    }
    if tokens.is_empty() {
        return Err(failure(FailureCode::InvalidRequest, "an input has no tokens"));
    }
    Ok(tokens)
}

/// A job on its way: vectors come in the order of the inputs.
struct Running {
    job: EmbedJob,
    done: Embeddings,
    reply: oneshot::Sender<Result<Embeddings, Failure>>,
    /// Inputs that are in the current batch.
    in_batch: usize,
}

impl Running {
    fn next(&self) -> Option<&[Token]> {
        self.job.inputs.get(self.done.vectors.len() + self.in_batch).map(Vec::as_slice)
    }
}

/// Owner of an embedding context.
pub struct Embedder<'a> {
    status: &'a Status,
    context: LlamaContext<'a>,
    batch: LlamaBatch<'static>,
    /// Tokens that several inputs may share a batch up to; a longer input has one for itself.
    shared: usize,
    /// Inputs in one batch, at most.
    sequences: usize,
    jobs: VecDeque<Running>,
}

impl<'a> Embedder<'a> {
    /// Allocates the context. The error says in words why that failed.
    pub fn new(model: &'a Model, status: &'a Status) -> Result<Self, String> {
        Ok(Self {
            status,
            context: model.context(model.threads())?,
            batch: LlamaBatch::new(model.batch() as usize, 1),
            shared: model.spec.batch as usize,
            sequences: model.sequences() as usize,
            jobs: VecDeque::new(),
        })
    }

    /// Serves until told to stop. An error means that the context is of no use any more.
    pub fn run(&mut self, commands: &Receiver<Command>) -> Result<(), String> {
        while self.receive(commands) {
            self.jobs.retain(|job| !job.reply.is_closed());
            self.report();
            self.step()?;
            self.report();
        }
        Ok(())
    }

    /// Takes the commands there are, and waits for one if there is nothing to do. False: stop.
    fn receive(&mut self, commands: &Receiver<Command>) -> bool {
        loop {
            let next = match self.jobs.is_empty() {
                true => commands.recv().map_err(TryRecvError::from),
                false => commands.try_recv(),
            };
            match next {
                Ok(Command::Embed(job, reply)) => {
                    self.jobs.push_back(Running { job, done: Embeddings::default(), reply, in_batch: 0 });
                }
                // Refused where it was prepared: this model does not generate. Dropping it tells whoever waits.
                Ok(Command::Generate(..)) => {}
                Ok(Command::Set(_, reply)) => {
                    let message = "a model that embeds has no settings to change";
                    reply.send(Err(failure(FailureCode::Unsupported, message))).ok();
                }
                Ok(Command::Save(reply)) => {
                    // An embedder keeps nothing between two inputs.
                    reply.send(Ok(Saved::default())).ok();
                }
                Ok(Command::Kept(_) | Command::Seen(_)) => {}
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    /// Fills a batch with inputs, oldest request first, and computes it.
    fn step(&mut self) -> Result<(), String> {
        self.batch.clear();
        self.context.clear_kv_cache();
        let mut sequence = 0;
        for job in &mut self.jobs {
            while let Some(input) = job.next() {
                let used = self.batch.n_tokens().unsigned_abs() as usize;
                let fits = used == 0 || used + input.len() <= self.shared;
                if sequence == self.sequences || !fits {
                    break;
                }
                put(&mut self.batch, input, sequence)?;
                sequence += 1;
                job.in_batch += 1;
            }
        }
        if sequence > 0 {
            self.context
                .decode(&mut self.batch)
                .map_err(|error| format!("llama.cpp cannot decode any more: {error}"))?;
            self.status.decoded();
        }
        self.collect()
    }

    /// Hands the vectors of the batch to their jobs, and answers those that are complete.
    fn collect(&mut self) -> Result<(), String> {
        let mut sequence = 0;
        for mut job in std::mem::take(&mut self.jobs) {
            let mut broken = false;
            for _ in 0..std::mem::take(&mut job.in_batch) {
                let vector = self.context.embeddings_seq_ith(sequence).map_err(|error| error.to_string())?;
                job.done.prompt_tokens += job.next().map_or(0, <[Token]>::len) as u64;
                let vector = match job.job.ranks {
                    true => vector.first().filter(|score| score.is_finite()).map(|&score| vec![score]),
                    false => normalised(vector, job.job.dimensions),
                };
                broken |= vector.is_none();
                job.done.vectors.push(vector.unwrap_or_default());
                sequence += 1;
            }
            if broken {
                let message = "the model's output is not a number";
                job.reply.send(Err(failure(FailureCode::Internal, message))).ok();
            } else if job.next().is_none() {
                job.reply.send(Ok(job.done)).ok();
            } else {
                self.jobs.push_back(job);
            }
        }
        Ok(())
    }

    fn report(&self) {
        self.status.occupied(self.jobs.len().min(self.sequences), 0, 0);
    }
}

fn put(batch: &mut LlamaBatch, input: &[Token], sequence: usize) -> Result<(), String> {
    let sequence = i32::try_from(sequence).map_err(|error| error.to_string())?;
    for (position, &token) in (0..).zip(input) {
        batch.add(llama_token(token), position, &[sequence], true).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The vector cut to `dimensions` numbers where that is fewer, with length 1. `None` where it has no direction.
fn normalised(vector: &[f32], dimensions: Option<usize>) -> Option<Vec<f32>> {
    let cut = &vector
        [..dimensions.filter(|&count| count > 0).map_or(vector.len(), |count| count.min(vector.len()))];
    let length = cut.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if !length.is_finite() {
        return None;
    }
    let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
    Some(cut.iter().map(|&x| (f64::from(x) * scale) as f32).collect())
}

fn failure(code: FailureCode, message: &str) -> Failure {
    Failure { code, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_have_length_one_also_after_a_cut() {
        assert_eq!(normalised(&[3.0, 4.0], None), Some(vec![0.6, 0.8]));
        assert_eq!(normalised(&[3.0, 4.0, 12.0], Some(2)), Some(vec![0.6, 0.8]));
        assert_eq!(normalised(&[3.0, 4.0], Some(5)), Some(vec![0.6, 0.8]));
        assert_eq!(normalised(&[0.0, 0.0], None), Some(vec![0.0, 0.0]));
        assert_eq!(normalised(&[1.0, f32::NAN], None), None);
        assert_eq!(normalised(&[f32::INFINITY], None), None);
    }

    #[test]
    fn a_long_input_is_cut_before_its_end_token_or_refused() {
        let special = |token| token >= 100;
        let fit = |limit, truncate| fit(vec![100, 1, 2, 3, 4, 101], limit, 2, truncate, special);
        assert_eq!(fit(6, false), Ok(vec![100, 1, 2, 3, 4, 101]));
        assert_eq!(fit(4, true), Ok(vec![100, 1, 2, 101]));
        assert_eq!(fit(4, false).unwrap_err().code, FailureCode::ContextLength);
        assert_eq!(fit(2, true).unwrap_err().code, FailureCode::InvalidRequest);
    }
}

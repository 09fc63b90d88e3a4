//! [`Job`]: a request made ready for the scheduler. Everything slow (rendering, tokenising, compiling a grammar) happens here,
//! outside the thread that computes.

use super::adapters::Adapter;
use super::answer::Answer;
use super::grammar::Constraint;
use super::model::Model;
use super::prompt::{self, Prompt};
use super::sampling::{Settings, Token};
use super::speech::Reading;
use super::vision::Sight;
use crate::generation::{Failure, FailureCode, Generation, Input, Options, Priority, Resume};

/// Without a limit of its own an answer ends at this many times its context, as in Ollama.
const CONTEXTS_PER_ANSWER: usize = 10;

/// One generation, ready to run.
pub struct Job {
    /// What is continued.
    pub prompt: Prompt,
    /// Most tokens to generate.
    pub limit: usize,
    /// How tokens are chosen.
    pub settings: Settings,
    /// What the model is changed by.
    pub adapter: Option<Adapter>,
    /// What may be chosen.
    pub constraint: Option<Constraint>,
    /// Text and stop sequences.
    pub answer: Answer,
    /// `Some(n)`: report log probabilities and those of the `n` best.
    pub logprobs: Option<usize>,
    /// When the context is full: move it on, or end.
    pub shift: bool,
    /// Report the tokens of prompt and answer at the end.
    pub reports_context: bool,
    /// What was sent before.
    pub resume: Resume,
    /// Tokens that end it although the vocabulary does not say so.
    pub ends: Vec<Token>,
    /// Its place among those that wait.
    pub priority: Priority,
}

impl Job {
    /// Prepares a request.
    pub fn new(model: &Model, mut generation: Generation) -> Result<Self, Failure> {
        if !model.facts.completes {
            return Err(unsupported("the model does not support generate: it only embeds"));
        }
        let options = std::mem::take(&mut generation.options).or(&model.spec.options);
        let sight = Sight::take(model, &mut generation)?;
        let prompt = prompt::build(model, &generation, &options, &sight)?;
        let sees = !prompt.pictures.is_empty();
        let settings = settings(model, &options, prompt.context)?;
        let Reading { parser, shown, constraint } =
            Reading::of(model, &generation, &prompt, settings.seed ^ prompt.tokens.len() as u64)?;
        Ok(Self {
            limit: options
                .num_predict
                .and_then(|limit| usize::try_from(limit).ok())
                .unwrap_or(CONTEXTS_PER_ANSWER * prompt.context),
            settings,
            adapter: model.adapters.wanted(&generation.adaptation)?,
            constraint,
            answer: Answer::new(options.stop.as_deref().unwrap_or_default()).read_by(parser, shown),
            logprobs: generation.logprobs.map(usize::from),
            // A picture cannot be cut, and where it stands in a plane not be moved.
            shift: generation.shift && !sees,
            resume: resume(model, generation.resume.take().unwrap_or_default())?,
            // Nobody could send pictures back as numbers.
            reports_context: matches!(generation.input, Input::Prompt { .. }) && !sees,
            ends: match generation.input {
                Input::Infill { .. } => model.infill_ends(),
                _ => Vec::new(),
            },
            priority: generation.priority,
            prompt,
        })
    }
}

#[cfg(test)]
impl Job {
    /// One that continues `tokens`, by one.
    pub fn of(tokens: &[Token]) -> Self {
        Self {
            prompt: Prompt { tokens: tokens.to_vec(), context: 4096, keep: 0, pictures: Vec::new() },
            limit: 1,
            settings: Settings::new(&Options::default(), 4096),
            adapter: None,
            constraint: None,
            answer: Answer::new(&[]),
            logprobs: None,
            shift: false,
            reports_context: false,
            resume: Resume::default(),
            ends: Vec::new(),
            priority: Priority::NORMAL,
        }
    }
}

fn resume(model: &Model, resume: Resume) -> Result<Resume, Failure> {
    match resume.tokens.iter().find(|&&token| !model.knows(token)) {
        Some(unknown) => {
            let message = format!("resume holds {unknown}, which is no token of this model");
            Err(Failure { code: FailureCode::InvalidRequest, message })
        }
        None => Ok(resume),
    }
}

/// How tokens are chosen, as far as this vocabulary allows it.
fn settings(model: &Model, options: &Options, context: usize) -> Result<Settings, Failure> {
    let mut settings = Settings::new(options, context);
    if let Some((unknown, _)) = settings.logit_bias.iter().find(|(token, _)| !model.knows(*token)) {
        let message = format!("logit_bias holds {unknown}, which is no token of this model");
        return Err(Failure { code: FailureCode::InvalidRequest, message });
    }
    if let Some(dry) = &mut settings.dry {
        dry.breakers = model.dry_breakers(options.dry_sequence_breakers.as_deref())?;
    }
    Ok(settings)
}

fn unsupported(message: &str) -> Failure {
    Failure { code: FailureCode::Unsupported, message: message.to_owned() }
}

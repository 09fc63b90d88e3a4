//! From a [`Generation`] to the tokens of its prompt: rendering, tokenising, cutting to the context.

use std::sync::Arc;

use super::infill;
use super::model::Model;
use super::sampling::Token;
use super::template::{GoTemplate, PromptData};
use super::vision::{Picture, Sight, is_part};
use crate::generation::{Failure, FailureCode, Generation, Input, Message, Options, Role, Think};

/// The least context a request can ask for, as in Ollama.
const LEAST_CONTEXT: usize = 4;

/// Tokens and text of a request that fit its context.
pub struct Prompt {
    /// Fewer than `context`.
    pub tokens: Vec<Token>,
    /// Tokens of this request's sequence, prompt and answer.
    pub context: usize,
    /// Tokens at the front that stay when the context shifts.
    pub keep: usize,
    /// What some of its tokens stand for.
    pub pictures: Vec<Arc<Picture>>,
}

/// The prompt of a request, cut to fit its context where it allows that. `sight`: what the marks in its texts are.
pub fn build(
    model: &Model,
    generation: &Generation,
    options: &Options,
    sight: &Sight,
) -> Result<Prompt, Failure> {
    let pictures = sight.pictures();
    // Its cells are as many as its context says, and a picture may take more of them than positions.
    let context = context(model, options).saturating_sub(sight.excess());
    let mut tokens = match &generation.input {
        Input::Chat { messages, .. } if generation.truncate => {
            fitting_chat(model, generation, messages, context, sight)?
        }
        _ => tokens(model, generation, context, sight)?,
    };
    match tokens.last() {
        None => return Err(invalid("the prompt has no tokens")),
        Some(&last) if is_part(last) => {
            return Err(invalid("the prompt ends with an image: a text has to follow"));
        }
        Some(_) => {}
    }
    let keep = keep(model, options, tokens.len(), context);
    if tokens.len() >= context {
        let cuttable = !matches!(generation.input, Input::Chat { .. } | Input::Infill { .. });
        if !(cuttable && generation.truncate && generation.shift && pictures.is_empty()) {
            return Err(too_long(tokens.len(), context));
        }
        tokens = cut(tokens, keep, context);
    }
    Ok(Prompt { tokens, context, keep, pictures })
}

/// The text the model's template makes of a request; for a fill-in-the-middle prompt, of its tokens.
pub fn render(model: &Model, generation: &Generation) -> Result<String, Failure> {
    match &generation.input {
        Input::Chat { messages, .. } => render_chat(model, generation, messages),
        Input::Prompt { prompt, system, template, .. } => {
            render_prompt(model, generation, prompt, system.as_ref(), template.as_deref())
        }
        Input::Raw { prompt, .. } => Ok(prompt.clone()),
        Input::Infill { .. } => {
            let context = context(model, &generation.options);
            Ok(model.detokenize(&tokens(model, generation, context, &Sight::default())?))
        }
    }
}

fn tokens(
    model: &Model,
    generation: &Generation,
    context: usize,
    sight: &Sight,
) -> Result<Vec<Token>, Failure> {
    let whole = |starts| {
        let text = render(model, generation)?;
        sight.check(&text)?;
        Ok(sight.tokenize(model, &text, starts))
    };
    match &generation.input {
        Input::Prompt { context, .. } => {
            if let Some(unknown) = context.iter().find(|&&token| !model.knows(token)) {
                return Err(invalid(&format!("context holds {unknown}, which is no token of this model")));
            }
            let mut tokens = context.clone();
            tokens.extend(whole(context.is_empty())?);
            Ok(tokens)
        }
        Input::Infill { prefix, suffix, extra } => infill::tokens(model, prefix, suffix, extra, context),
        Input::Chat { .. } | Input::Raw { .. } => whole(true),
    }
}

/// The conversation without its oldest messages: as many as it takes to fit are dropped, system messages and the last one
/// never are.
fn fitting_chat(
    model: &Model,
    generation: &Generation,
    messages: &[Message],
    context: usize,
    sight: &Sight,
) -> Result<Vec<Token>, Failure> {
    let render = |dropped: usize| {
        let left = without_oldest(messages, dropped);
        let text = render_chat(model, generation, &left)?;
        if dropped == 0 {
            sight.check(&text)?;
        }
        Ok(sight.tokenize(model, &text, true))
    };
    let all: Vec<Token> = render(0)?;
    if all.len() < context {
        return Ok(all);
    }
    longest_fitting(droppable(messages), context, render)?.ok_or_else(|| too_long(all.len(), context))
}

/// What `render` makes of a conversation without as few of its oldest messages as will do, at least 1 and at most `most`: fewer
/// than `context` tokens. Many templates want roles to alternate and refuse every other number; such a number is passed over.
/// The error is the template's where it refuses them all.
fn longest_fitting(
    most: usize,
    context: usize,
    render: impl Fn(usize) -> Result<Vec<Token>, Failure>,
) -> Result<Option<Vec<Token>>, Failure> {
    let (mut fitting, mut refusal, mut renders) = (None, None, false);
    // Fewer messages make a shorter prompt: halve the range in which the fewest that must go lies.
    let (mut low, mut high) = (1, most + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let accepted = (middle..high).find_map(|dropped| match render(dropped) {
            Ok(tokens) => Some((dropped, tokens)),
            Err(error) => {
                refusal = Some(error);
                None
            }
        });
        renders |= accepted.is_some();
        match accepted {
            Some((dropped, tokens)) if tokens.len() >= context => low = dropped + 1,
            Some((_, tokens)) => (high, fitting) = (middle, Some(tokens)),
            None => high = middle,
        }
    }
    match refusal {
        Some(error) if !renders => Err(error),
        _ => Ok(fitting),
    }
}

fn droppable(messages: &[Message]) -> usize {
    let before_last = &messages[..messages.len().saturating_sub(1)];
    before_last.iter().filter(|message| message.role != Role::System).count()
}

fn without_oldest(messages: &[Message], dropped: usize) -> Vec<Message> {
    let mut to_drop = dropped.min(droppable(messages));
    let keeps = |message: &&Message| {
        let drops = to_drop > 0 && message.role != Role::System;
        to_drop -= usize::from(drops);
        !drops
    };
    messages.iter().filter(keeps).cloned().collect()
}

fn render_chat(model: &Model, generation: &Generation, messages: &[Message]) -> Result<String, Failure> {
    let tools = match &generation.input {
        Input::Chat { tools, .. } => tools.as_slice(),
        _ => &[],
    };
    let mut messages = messages.to_vec();
    let brings_system = messages.first().is_some_and(|message| message.role == Role::System);
    if let Some(system) = model.spec.system.as_ref().filter(|_| !brings_system) {
        messages.insert(0, system_message(system));
    }
    conversation(model, &messages, tools, model.speech.think(generation).as_ref())
}

fn render_prompt(
    model: &Model,
    generation: &Generation,
    prompt: &str,
    system: Option<&String>,
    template: Option<&str>,
) -> Result<String, Failure> {
    let system = system.or(model.spec.system.as_ref()).filter(|system| !system.is_empty());
    if let Some(template) = template {
        let system = system.map_or("", String::as_str);
        let think = model.speech.think(generation);
        let data = PromptData { system, prompt, think: think.as_ref(), ..PromptData::default() };
        return GoTemplate::parse(template)
            .and_then(|template| template.render_prompt(&data))
            .map_err(|error| invalid(&error.to_string()));
    }
    let mut messages: Vec<Message> = system.into_iter().map(|system| system_message(system)).collect();
    messages.push(Message { content: prompt.to_owned(), ..Message::default() });
    conversation(model, &messages, &[], model.speech.think(generation).as_ref())
}

fn system_message(text: &str) -> Message {
    Message { role: Role::System, content: text.to_owned(), ..Message::default() }
}

/// A conversation by the model's template; by none, as Ollama's `{{ .Prompt }}` has it: the texts, nothing else.
fn conversation(
    model: &Model,
    messages: &[Message],
    tools: &[serde_json::Value],
    think: Option<&Think>,
) -> Result<String, Failure> {
    match &model.template {
        Some(Ok(template)) => {
            template.render_chat(messages, tools, think, true).map_err(|error| invalid(&error.to_string()))
        }
        Some(Err(reason)) => Err(Failure {
            code: FailureCode::Unsupported,
            message: format!("the model's chat template cannot be used: {reason}"),
        }),
        None => {
            let texts: Vec<&str> = messages.iter().map(|message| message.content.as_str()).collect();
            Ok(texts.join("\n\n"))
        }
    }
}

/// What this request's sequence may hold.
fn context(model: &Model, options: &Options) -> usize {
    let most = model.facts.context as usize;
    let asked = options.num_ctx.map(|asked| usize::try_from(asked).unwrap_or(0).max(LEAST_CONTEXT));
    asked.map_or(most, |asked| asked.min(most))
}

/// Tokens kept at the front: `num_keep` and the start token. However many were asked for, a few can always move.
fn keep(model: &Model, options: &Options, prompt: usize, context: usize) -> usize {
    kept(options.num_keep.unwrap_or(4), model.start().is_some(), prompt, context)
}

fn kept(num_keep: i64, has_start: bool, prompt: usize, context: usize) -> usize {
    let asked = usize::try_from(num_keep).map_or(prompt, |keep| keep + usize::from(has_start));
    asked.min(prompt).min(context.saturating_sub(LEAST_CONTEXT))
}

/// Cuts a prompt as llama-server does with its context shift: the front `keep` tokens stay, and so do the newest, in blocks of
/// half of what is left of the context, so that some of it is free for the answer.
fn cut(tokens: Vec<Token>, keep: usize, context: usize) -> Vec<Token> {
    let block = ((context - keep) / 2).max(1);
    let erased = (tokens.len() - keep - block) / block * block;
    let mut left = tokens;
    left.drain(keep..keep + erased);
    left
}

fn invalid(message: &str) -> Failure {
    Failure { code: FailureCode::InvalidRequest, message: message.to_owned() }
}

fn too_long(length: usize, context: usize) -> Failure {
    let message =
        format!("the prompt of {length} tokens is too long: the context length is {context} tokens");
    Failure { code: FailureCode::ContextLength, message }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn conversation(roles: &str) -> Vec<Message> {
        let role = |letter| match letter {
            's' => Role::System,
            'u' => Role::User,
            _ => Role::Assistant,
        };
        let message = |(i, letter): (usize, char)| Message {
            role: role(letter),
            content: i.to_string(),
            ..Message::default()
        };
        roles.chars().enumerate().map(message).collect()
    }

    fn left(roles: &str, dropped: usize) -> String {
        without_oldest(&conversation(roles), dropped).into_iter().map(|message| message.content).collect()
    }

    #[test]
    fn the_oldest_messages_go_first_and_system_messages_and_the_last_stay() {
        assert_eq!(left("suausu", 0), "012345");
        assert_eq!(left("suausu", 1), "02345");
        assert_eq!(left("suausu", 3), "045");
        assert_eq!(left("suausu", 99), "045");
        assert_eq!(left("u", 5), "0");
        assert_eq!(droppable(&conversation("suausu")), 3);
        assert_eq!(droppable(&[]), 0);
    }

    #[test]
    fn a_cut_prompt_keeps_its_front_and_its_newest_part() {
        let tokens: Vec<Token> = (0..100).collect();
        // 40 left beside the four kept: blocks of 18, of which all but the last go.
        let cut = cut(tokens, 4, 40);
        assert_eq!(cut[..4], [0, 1, 2, 3]);
        assert_eq!(cut.len(), 4 + 18 + (100 - 4 - 18) % 18);
        assert_eq!(cut[cut.len() - 1], 99);
    }

    #[test]
    fn the_start_token_counts_as_kept_and_a_few_tokens_can_always_move() {
        assert_eq!(kept(4, true, 100, 64), 5);
        assert_eq!(kept(4, false, 3, 64), 3);
        assert_eq!(kept(-1, true, 50, 64), 50);
        assert_eq!(kept(-1, true, 500, 64), 60);
        assert_eq!(kept(1000, false, 500, 4), 0);
    }

    /// As many tokens as messages are left; refused unless their number is one more than a multiple of `rhythm`.
    fn strict(messages: usize, rhythm: usize) -> impl Fn(usize) -> Result<Vec<Token>, Failure> {
        move |dropped| match (messages - dropped) % rhythm == 1 % rhythm {
            true => Ok(vec![0; messages - dropped]),
            false => Err(invalid("roles must alternate")),
        }
    }

    #[test]
    fn a_template_that_refuses_some_numbers_of_messages_gets_the_next_that_it_takes() {
        let length = |messages, context| {
            let fitting = longest_fitting(messages - 1, context, strict(messages, 2));
            fitting.unwrap().map(|tokens| tokens.len())
        };
        assert_eq!(length(9, 9), Some(7));
        assert_eq!(length(9, 7), Some(5));
        assert_eq!(length(9, 1), None);
        let refused = longest_fitting(4, 9, |_| Err(invalid("roles must alternate")));
        assert_eq!(refused, Err(invalid("roles must alternate")));
    }

    proptest! {
        #[test]
        fn the_search_finds_what_trying_all_would(messages in 1usize..40, context in 1usize..40, rhythm in 1usize..5) {
            let render = strict(messages, rhythm);
            let all = (1..messages).filter_map(|dropped| render(dropped).ok());
            let expected = all.into_iter().find(|tokens| tokens.len() < context);
            let found = longest_fitting(messages - 1, context, &render);
            prop_assert_eq!(found.unwrap_or(None), expected);
        }

        #[test]
        fn a_cut_prompt_fits_and_leaves_room_for_an_answer(
            context in 4usize..200, extra in 0usize..500, num_keep in -1i64..300, has_start in any::<bool>()
        ) {
            let tokens: Vec<Token> = (0..(context + extra) as Token).collect();
            let keep = kept(num_keep, has_start, tokens.len(), context);
            let cut = cut(tokens.clone(), keep, context);
            prop_assert!(cut.len() < context && cut.len() > keep);
            prop_assert_eq!(&cut[..keep], &tokens[..keep]);
            prop_assert_eq!(&cut[keep..], &tokens[tokens.len() - (cut.len() - keep)..]);
        }
    }
}

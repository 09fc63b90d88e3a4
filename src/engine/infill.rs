//! Prompts that have a gap: the model's own tokens around what stands before and after it, and in front of them what other files
//! hold, as llama-server puts it (`format_prompt_infill`).

use super::model::Model;
use super::sampling::Token;
use crate::generation::{Failure, FailureCode, Snippet};

/// Other files may take what is left of the context but for one part in so many, which is for the answer.
const ANSWER: usize = 4;

/// The tokens of the prompt. Of other files the last are taken, as many as fit `context`.
pub fn tokens(
    model: &Model,
    prefix: &str,
    suffix: &str,
    extra: &[Snippet],
    context: usize,
) -> Result<Vec<Token>, Failure> {
    let [before, after, gap] = model.infill().ok_or_else(|| Failure {
        code: FailureCode::Unsupported,
        message: "the model does not support insert: it has no fill-in-the-middle tokens".to_owned(),
    })?;
    let mut framed = vec![before];
    framed.extend(model.tokenize(prefix, false, false));
    framed.push(after);
    framed.extend(model.tokenize(suffix, false, false));
    framed.push(gap);
    let mut others = if extra.is_empty() { Vec::new() } else { files(model, extra) };
    let room = (context - context / ANSWER).saturating_sub(framed.len());
    others.drain(..others.len().saturating_sub(room));
    Ok(model.start().into_iter().chain(others).chain(framed).collect())
}

/// Other files, and the mark of the one with the gap, whose name nobody tells.
fn files(model: &Model, extra: &[Snippet]) -> Vec<Token> {
    let (repository, file) = model.infill_files();
    let tokenize = |text: &str| model.tokenize(text, false, false);
    let mut tokens = Vec::new();
    if let Some(repository) = repository {
        tokens.push(repository);
        tokens.extend(tokenize("myproject\n"));
    }
    for snippet in extra {
        match file {
            Some(file) => {
                tokens.push(file);
                tokens.extend(tokenize(&format!("{}\n", snippet.file)));
            }
            None => tokens.extend(tokenize("\n\n--- snippet ---\n\n")),
        }
        tokens.extend(tokenize(&snippet.text));
    }
    if let Some(file) = file {
        tokens.push(file);
        tokens.extend(tokenize("filename\n"));
    }
    tokens
}

//! [`DraftModel`] and [`Drafter`]: a second, smaller model that guesses what the first will say, with a context of its own whose
//! sequences follow those of the first.

use std::num::NonZeroU32;

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;

use crate::engine::check;
use crate::engine::model::{llama_token, why};
use crate::engine::sampling::Token;
use crate::generation::seam::Draft;

/// Vocabularies of one family are padded to different sizes; more is another vocabulary (llama.cpp's
/// `SPEC_VOCAB_MAX_SIZE_DIFFERENCE`).
const MOST_PADDING: u32 = 128;

/// Tokens that a drafter reads in a step to catch up with its sequence, so that no stream waits long for another's drafts.
const CATCH_UP: usize = 64;

/// A model that guesses.
pub struct DraftModel {
    llama: LlamaModel,
    /// Tokens that both models know.
    common: u32,
}

/// The tokens of one sequence, and what is guessed to follow them.
pub struct Wanted {
    /// The sequence's number.
    pub sequence: usize,
    /// What its cells will hold, the token that is to be decoded next included.
    pub text: Vec<Token>,
    /// How many tokens to guess, at least 1; fewer where an end is guessed.
    pub most: usize,
    /// What comes next; empty until [`Drafter::draft`], and after it where its sequence has to catch up first.
    pub guess: Vec<Token>,
}

/// What drafts for all sequences.
pub struct Drafter<'a> {
    llama: &'a LlamaModel,
    context: LlamaContext<'a>,
    batch: LlamaBatch<'static>,
    common: u32,
    /// What the cells of each sequence hold.
    cells: Vec<Vec<Token>>,
}

impl DraftModel {
    /// Loads the file; an error in words if it is none, or if its tokens are not those of `target`.
    pub fn load(
        backend: &LlamaBackend,
        draft: &Draft,
        mmap: bool,
        target: &LlamaModel,
    ) -> Result<Self, String> {
        let bad = |reason: String| format!("draft model: {reason}");
        check::check(&draft.path).map_err(bad)?;
        let mut params = LlamaModelParams::default().with_use_mmap(mmap);
        // llama.cpp's own default is every layer.
        if let Ok(layers) = u32::try_from(draft.gpu_layers) {
            params = params.with_n_gpu_layers(layers);
        }
        let llama = LlamaModel::load_from_file(backend, &draft.path, &params)
            .map_err(|error| bad(why(&format!("bad file {}", draft.path.display()), &error)))?;
        if llama.is_recurrent() || llama.is_hybrid() {
            return Err(bad("it is recurrent: it cannot take guesses back".to_owned()));
        }
        let common = common_tokens(&llama, target).map_err(bad)?;
        Ok(Self { llama, common })
    }

    /// A context with as many sequences and cells as the first model's, and its numbers of threads.
    pub fn drafter(
        &self,
        backend: &LlamaBackend,
        sequences: u32,
        context: u32,
        threads: (u32, u32),
    ) -> Result<Drafter<'_>, String> {
        let count = |threads| i32::try_from(threads).unwrap_or(i32::MAX);
        let batch = CATCH_UP.max(sequences as usize);
        let params = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(context.saturating_mul(sequences)))
            .with_n_seq_max(sequences)
            .with_n_batch(batch as u32)
            .with_n_ubatch(batch as u32)
            .with_n_threads(count(threads.0))
            .with_n_threads_batch(count(threads.1))
            .with_kv_unified(false);
        let context = self.llama.new_context(backend, params);
        let context =
            context.map_err(|error| format!("draft model: {}", why("cannot start the model", &error)))?;
        let cells = vec![Vec::new(); sequences as usize];
        let batch = LlamaBatch::new(batch, 1);
        Ok(Drafter { llama: &self.llama, context, batch, common: self.common, cells })
    }
}

/// How many tokens both models know, if they mean the same by them.
fn common_tokens(draft: &LlamaModel, target: &LlamaModel) -> Result<u32, String> {
    let [ours, theirs] = [draft, target].map(|model| model.vocab().n_tokens().cast_unsigned());
    if ours.abs_diff(theirs) > MOST_PADDING {
        return Err(format!(
            "its vocabulary has {ours} tokens, the model's {theirs}: they have to be the same"
        ));
    }
    let common = ours.min(theirs);
    let piece = |model: &LlamaModel, token| model.vocab().token_to_piece(llama_token(token), true, None);
    match (0..common).find(|&token| piece(draft, token) != piece(target, token)) {
        Some(token) => {
            let text = |model| String::from_utf8_lossy(&piece(model, token)).into_owned();
            let (ours, theirs) = (text(draft), text(target));
            Err(format!(
                "token {token} is {ours:?}, the model's {theirs:?}: they have to have the same vocabulary"
            ))
        }
        None => Ok(common),
    }
}

impl Drafter<'_> {
    /// Guesses what is wanted; nothing where a sequence has much to read first. Whether nothing was read but what came since the
    /// last guess.
    pub fn draft(&mut self, wanted: &mut [Wanted]) -> Result<bool, String> {
        self.batch.clear();
        let mut room = self.context.n_batch() as usize;
        let mut keeps_up = true;
        // Those that guess, and where in the batch the logits for their next token are.
        let mut guessing = Vec::new();
        for (index, want) in wanted.iter().enumerate() {
            if want.text.iter().any(|&token| token >= self.common) {
                // It cannot read what it lacks.
                continue;
            }
            let unread = want.text.split_at(self.cut(want)?).1;
            let now = unread.len().min(room);
            room -= now;
            keeps_up &= unread.len() <= want.most + 1;
            self.put(want.sequence, &unread[..now])?;
            if now == unread.len() {
                guessing.push((index, self.batch.n_tokens() - 1));
            }
        }
        while self.batch.n_tokens() > 0 {
            self.context.decode(&mut self.batch).map_err(|error| format!("draft model: {error}"))?;
            self.batch.clear();
            for (index, row) in &mut guessing {
                let want = &mut wanted[*index];
                let token = likeliest(&self.context.get_logits_ith(*row)[..self.common as usize]);
                if self.llama.vocab().is_eog(llama_token(token)) {
                    // Nothing comes after it.
                    want.most = want.guess.len();
                    continue;
                }
                want.guess.push(token);
                *row = self.batch.n_tokens();
                if want.guess.len() < want.most {
                    self.put(want.sequence, &[token])?;
                }
            }
            guessing.retain(|(index, _)| wanted[*index].guess.len() < wanted[*index].most);
        }
        Ok(keeps_up)
    }

    /// Frees the cells that the wanted text does not begin with; how many remain. At least the text's last token has to be decoded,
    /// for the logits.
    fn cut(&mut self, want: &Wanted) -> Result<usize, String> {
        let cells = &mut self.cells[want.sequence];
        let common = cells.iter().zip(&want.text).take_while(|(cell, token)| cell == token).count();
        let kept = common.min(want.text.len().saturating_sub(1));
        if kept < cells.len() {
            let id = i32::try_from(want.sequence).map_err(|error| error.to_string())?;
            let removed = self.context.kv_cache_seq_rm(id, u32::try_from(kept).ok(), None);
            removed.map_err(|error| format!("draft model: {error}"))?;
            cells.truncate(kept);
        }
        Ok(kept)
    }

    /// Adds tokens behind the cells of a sequence to the batch; the last of them with logits.
    fn put(&mut self, sequence: usize, tokens: &[Token]) -> Result<(), String> {
        let cells = &mut self.cells[sequence];
        let id = i32::try_from(sequence).map_err(|error| error.to_string())?;
        for (offset, &token) in tokens.iter().enumerate() {
            let position = i32::try_from(cells.len()).map_err(|error| error.to_string())?;
            let is_last = offset + 1 == tokens.len();
            self.batch
                .add(llama_token(token), position, &[id], is_last)
                .map_err(|error| error.to_string())?;
            cells.push(token);
        }
        Ok(())
    }
}

fn likeliest(logits: &[f32]) -> Token {
    let best = (0..).zip(logits).max_by(|(_, one), (_, other)| one.total_cmp(other));
    best.map_or(0, |(token, _)| token)
}

//! The words of a model: text to tokens and back, its special tokens, and what is made of all of them.

use std::sync::{Arc, PoisonError};

use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;

use super::Model;
use crate::engine::grammar::Grammars;
use crate::engine::rank::Frame;
use crate::engine::sampling::Token;
use crate::engine::sampling::dry::{self, Breakers};
use crate::generation::{Failure, FailureCode};

/// The most texts a request can name as DRY's sequence breakers: each is looked for in the whole vocabulary.
const MOST_BREAKERS: usize = 64;

impl Model {
    /// The special token that `text` is, if it is one.
    pub(super) fn special(&self, text: &str) -> Option<Token> {
        match self.tokenize(text, false, true)[..] {
            [token] if self.is_control(token) => Some(token),
            _ => None,
        }
    }

    /// The tokens of `text`. `add_special` adds those that start (and end) a sequence where the model wants them;
    /// `parse_special` recognises special tokens written in the text.
    pub fn tokenize(&self, text: &str, add_special: bool, parse_special: bool) -> Vec<Token> {
        let tokens = self.llama.vocab().tokenize(text.as_bytes(), add_special, parse_special);
        tokens.into_iter().map(|token| token.0.cast_unsigned()).collect()
    }

    /// The tokens of a prompt with its special tokens; a start token that the text brings along is not doubled.
    pub fn tokenize_prompt(&self, text: &str, starts: bool) -> Vec<Token> {
        let bos = token_text(&self.llama, self.llama.vocab().bos());
        let doubled = !bos.is_empty() && text.starts_with(&bos);
        self.tokenize(text, starts && !doubled, true)
    }

    /// The text of `tokens`, special ones included; bytes that are no text are replaced.
    pub fn detokenize(&self, tokens: &[Token]) -> String {
        String::from_utf8_lossy(&self.pieces(tokens).concat()).into_owned()
    }

    /// The bytes of each of `tokens`, special ones included; of a token that there is not, none.
    pub fn pieces(&self, tokens: &[Token]) -> Vec<Vec<u8>> {
        let piece = |token| self.llama.vocab().token_to_piece(llama_token(token), true, None);
        tokens.iter().map(|&token| if self.knows(token) { piece(token) } else { Vec::new() }).collect()
    }

    /// The bytes a token stands for in text; none for special tokens.
    pub fn piece(&self, token: Token) -> Vec<u8> {
        self.llama.vocab().token_to_piece(llama_token(token), false, None)
    }

    /// The bytes a token stands for, a special one's name included.
    pub fn mark(&self, token: Token) -> Vec<u8> {
        self.llama.vocab().token_to_piece(llama_token(token), true, None)
    }

    /// Whether the token ends a generation.
    pub fn is_end(&self, token: Token) -> bool {
        self.llama.vocab().is_eog(llama_token(token))
    }

    /// Whether there is such a token.
    pub fn knows(&self, token: Token) -> bool {
        token < self.llama.vocab().n_tokens().cast_unsigned()
    }

    /// Whether the token is a special one.
    pub fn is_control(&self, token: Token) -> bool {
        self.llama.vocab().is_control(llama_token(token))
    }

    /// The start token, where the model wants it in front.
    pub fn start(&self) -> Option<Token> {
        let vocabulary = self.llama.vocab();
        if vocabulary.should_add_bos() { known(vocabulary.bos()) } else { None }
    }

    /// How a model that ranks wants query and document put together, where its file says so.
    pub fn rank_template(&self) -> Option<String> {
        self.llama.chat_template(Some("rerank")).ok()?.to_string().ok()
    }

    /// The special tokens around query and document where it does not.
    pub fn frame(&self) -> Frame {
        let vocabulary = self.llama.vocab();
        let end = known(vocabulary.eos()).or_else(|| known(vocabulary.sep()));
        Frame {
            start: self.start(),
            end: end.filter(|_| vocabulary.should_add_eos()),
            separator: known(vocabulary.sep()).filter(|_| vocabulary.should_add_sep()),
        }
    }

    /// The tokens before prefix, suffix and gap of a fill-in-the-middle prompt.
    pub fn infill(&self) -> Option<[Token; 3]> {
        infill(&self.llama)
    }

    /// The tokens before a repository's name and before a file's.
    pub fn infill_files(&self) -> (Option<Token>, Option<Token>) {
        let vocabulary = self.llama.vocab();
        (known(vocabulary.fim_rep()), known(vocabulary.fim_sep()))
    }

    /// Tokens that end what is filled in: those that would begin another file.
    pub fn infill_ends(&self) -> Vec<Token> {
        let vocabulary = self.llama.vocab();
        let ends = [vocabulary.fim_pad(), vocabulary.fim_rep(), vocabulary.fim_sep()];
        ends.into_iter().filter_map(known).collect()
    }

    /// The grammars of its vocabulary, built when first used.
    pub fn grammars(&self) -> Result<&Grammars, Failure> {
        let grammars = self.grammars.get_or_init(|| {
            let (words, ends) = self.words();
            Grammars::new(&words, &ends)
        });
        grammars
            .as_ref()
            .map_err(|reason| Failure { code: FailureCode::Unsupported, message: reason.clone() })
    }

    /// What breaks a repetition for DRY; the usual texts if `texts` says nothing.
    pub fn dry_breakers(&self, texts: Option<&[String]>) -> Result<Arc<Breakers>, Failure> {
        let texts = texts.map_or_else(|| dry::BREAKERS.map(str::to_owned).to_vec(), <[String]>::to_vec);
        if texts.len() > MOST_BREAKERS {
            let message = format!("dry_sequence_breakers holds more than {MOST_BREAKERS} texts");
            return Err(Failure { code: FailureCode::InvalidRequest, message });
        }
        let mut last = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, breakers)) = &*last
            && *known == texts
        {
            return Ok(breakers.clone());
        }
        let vocabulary = self.llama.vocab();
        let words: Vec<_> =
            vocabulary.tokens().map(|token| vocabulary.token_to_piece(token, true, None)).collect();
        let tokenize = |text: &[u8]| {
            let tokens = vocabulary.tokenize(text, false, false);
            tokens.into_iter().filter_map(known).collect()
        };
        let breakers = Arc::new(Breakers::new(&texts, &words, tokenize));
        *last = Some((texts, breakers.clone()));
        Ok(breakers)
    }

    /// The bytes of all tokens as [`Grammars::new`] wants them, and the end tokens, the one of a turn first.
    fn words(&self) -> (Vec<Vec<u8>>, Vec<Token>) {
        let vocabulary = self.llama.vocab();
        let words = vocabulary.tokens().map(|token| {
            let mut word = vocabulary.token_to_piece(token, false, None);
            if word.is_empty() {
                word = vocabulary.token_to_piece(token, true, None);
                if !word.is_empty() {
                    word.insert(0, toktrie::TokTrie::SPECIAL_TOKEN_MARKER);
                }
            }
            word
        });
        let words = words.collect();
        let first = known(vocabulary.eot()).or_else(|| known(vocabulary.eos()));
        let mut ends: Vec<Token> = first.into_iter().collect();
        let all = vocabulary.tokens().filter(|&token| vocabulary.is_eog(token)).filter_map(known);
        ends.extend(all.filter(|&token| Some(token) != first));
        (words, ends)
    }
}

/// llama.cpp's own type for a token.
pub fn llama_token(token: Token) -> LlamaToken {
    LlamaToken(token.cast_signed())
}

/// llama.cpp writes -1 for a token that the vocabulary lacks.
fn known(token: LlamaToken) -> Option<Token> {
    Token::try_from(token.0).ok()
}

pub(super) fn token_text(llama: &LlamaModel, token: LlamaToken) -> String {
    let bytes = known(token).map(|_| llama.vocab().token_to_piece(token, true, None));
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}

pub(super) fn infill(llama: &LlamaModel) -> Option<[Token; 3]> {
    let vocabulary = llama.vocab();
    Some([known(vocabulary.fim_pre())?, known(vocabulary.fim_suf())?, known(vocabulary.fim_mid())?])
}

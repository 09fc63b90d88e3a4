//! The projector of a build without llama.cpp's multimodal library: there is none, and no value of these types.

use std::ops::Range;
use std::path::Path;

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::model::LlamaModel;

use super::Undecoded;
use crate::engine::sampling::Token;

/// See the build with it.
pub enum Projector {}

/// See the build with it.
pub enum Chunk {}

/// See the build with it.
#[expect(dead_code, reason = "without a projector nothing is divided")]
pub enum Piece {
    /// Tokens.
    Text(Vec<Token>),
    /// What is encoded.
    Chunk(Chunk),
}

/// There is no log.
pub fn capture_log() {}

impl Projector {
    /// Refused.
    pub fn load(_: &Path, _: &LlamaModel, _: u32, _: bool) -> Result<Self, String> {
        Err("this build of Arriero has no vision".to_owned())
    }

    /// Never called.
    pub fn divide(&self, _: &[u8]) -> Result<Vec<Piece>, String> {
        match *self {}
    }

    /// Never called.
    pub fn encode(&self, _: &Chunk) -> Result<Vec<f32>, String> {
        match *self {}
    }

    /// Never called.
    pub fn check(&self, _: &mut LlamaContext, _: &LlamaModel) -> Result<(), String> {
        match *self {}
    }

    /// Never called.
    pub fn is_causal(&self) -> bool {
        match *self {}
    }

    /// Never called.
    pub fn is_plane(&self) -> bool {
        match *self {}
    }

    /// Never called.
    pub fn decode(
        &self,
        _: &mut LlamaContext,
        _: i32,
        _: usize,
        _: &Chunk,
        _: &[f32],
        _: Range<usize>,
    ) -> Result<(), Undecoded> {
        match *self {}
    }
}

impl Chunk {
    /// Never called.
    pub fn rows(&self) -> usize {
        match *self {}
    }

    /// Never called.
    pub fn positions(&self) -> usize {
        match *self {}
    }
}

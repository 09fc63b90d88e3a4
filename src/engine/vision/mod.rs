//! Images: what a model with a projector can read besides text.
//!
//! ```text
//! request ─► Sight (marks in the text, one per image) ─► tokens, of which some stand for parts of a Picture
//!                 └ Vision ─ projector (llama.cpp's mtmd): an image file becomes pictures                     on blocking threads
//! scheduler ─► Eye, a thread: a picture becomes vectors ─► Command::Seen ─► scheduler: vectors into the context
//! ```
//!
//! To everything else a picture is a run of tokens that no vocabulary has, made of a hash of its image: what begins alike shares and
//! reuses cells, snapshots find them, and two images are never taken for one another. Only the scheduler, which decodes, looks for
//! such tokens and puts vectors in their place. Encoding an image takes as long as reading hundreds of tokens, in one piece, so it is
//! not done by the thread that computes.

mod eye;
mod file;
mod picture;
#[cfg(feature = "vision")]
mod projector;
#[cfg(not(feature = "vision"))]
#[path = "blind.rs"]
mod projector;
mod sight;

use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::model::LlamaModel;
use sha2::{Digest, Sha256};

pub use eye::{Eye, Seen};
pub use picture::{Picture, is_part};
pub use projector::capture_log;
pub use sight::{Sight, mark};

use super::check;
use projector::{Piece, Projector};
use sight::Part;

/// What makes pictures of images, for one model.
pub struct Vision {
    projector: Projector,
    /// Held while an image is unpacked: it may take hundreds of megabytes for a moment, so never several at once.
    unpacking: Mutex<()>,
}

impl Vision {
    /// Loads the projector at `path`, for `llama` alone. The error says in words what is wrong.
    pub fn load(path: &Path, llama: &LlamaModel, threads: u32, on_gpu: bool) -> Result<Self, String> {
        check::projector::check(path)?;
        let projector = Projector::load(path, llama, threads, on_gpu)?;
        Ok(Self { projector, unpacking: Mutex::default() })
    }

    /// Checks that pictures can be put into a context of `llama`. The error says in words what is wrong.
    pub fn check(&self, context: &mut LlamaContext, llama: &LlamaModel) -> Result<(), String> {
        self.projector.check(context, llama)
    }

    /// What the model reads for the image in `file`: pictures, and text between and around them. The error says in words what is
    /// wrong with the image.
    fn look(&self, file: &[u8]) -> Result<Vec<Part>, String> {
        file::check(file)?;
        let pieces = {
            let _one_at_a_time = self.unpacking.lock().unwrap_or_else(PoisonError::into_inner);
            self.projector.divide(file)?
        };
        let image = Sha256::digest(file);
        let part = |(place, piece): (usize, Piece)| match piece {
            Piece::Text(tokens) => Part::Text(tokens),
            Piece::Chunk(chunk) => {
                let identity = Sha256::new_with_prefix(image).chain_update(place.to_le_bytes()).finalize();
                Part::Picture(Picture::new(identity.into(), chunk).into())
            }
        };
        Ok(pieces.into_iter().enumerate().map(part).collect())
    }

    /// Whether a picture must be computed in one piece: its parts see those that come after them, or stand in a plane.
    pub fn is_whole(&self) -> bool {
        !self.projector.is_causal() || self.projector.is_plane()
    }

    /// The most vectors of a picture that a context with batches of so many tokens can compute.
    fn most(&self, batch: u32) -> usize {
        if self.projector.is_causal() { usize::MAX } else { batch as usize }
    }

    /// Computes the `rows` of a picture in the cells of `sequence`, the first of all its rows at `position`.
    pub fn decode(
        &self,
        context: &mut LlamaContext,
        sequence: i32,
        position: usize,
        picture: &Picture,
        rows: Range<usize>,
    ) -> Result<(), Undecoded> {
        let Some(vectors) = picture.vectors() else {
            return Err(Undecoded::Refused("the image was not encoded".to_owned()));
        };
        self.projector.decode(context, sequence, position, picture.chunk(), vectors, rows)
    }
}

/// Why vectors are not in the context.
pub enum Undecoded {
    /// It does not take them, and of other sequences it holds what it did. In words.
    Refused(String),
    /// It is of no use any more. In words.
    #[cfg_attr(not(feature = "vision"), expect(dead_code, reason = "nothing is put there"))]
    Broken(String),
}

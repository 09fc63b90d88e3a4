//! [`Purpose`]: what a model is for, by its architecture and how it pools.

use llama_cpp_2::context::params::LlamaPoolingType;

use crate::generation::seam::Pooling;

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Purpose {
    /// It goes on with a text.
    Generate,
    /// It makes one vector of an input.
    Embed,
    /// It makes one score of an input.
    Rank,
}

impl Purpose {
    /// That of a model of this architecture and `pooling_type`. An embedder's file names how it pools by mean, first or last token;
    /// an encoder of the BERT family is one even where its file leaves that out. The error says in words why it is for nothing.
    pub fn of(architecture: &str, pooling: Option<LlamaPoolingType>) -> Result<Self, String> {
        let is_encoder = architecture.contains("bert");
        if architecture == "t5" {
            return Err("unsupported architecture: t5 (an encoder and a decoder)".to_owned());
        }
        match pooling {
            Some(LlamaPoolingType::Mean | LlamaPoolingType::Cls | LlamaPoolingType::Last) => Ok(Self::Embed),
            Some(LlamaPoolingType::Rank) => Ok(Self::Rank),
            Some(LlamaPoolingType::None) if is_encoder => {
                Err("unsupported model: an encoder without pooling (pooling_type 0)".to_owned())
            }
            None | Some(LlamaPoolingType::None | LlamaPoolingType::Unspecified) => {
                Ok(if is_encoder { Self::Embed } else { Self::Generate })
            }
        }
    }
}

/// llama.cpp's own name for a pooling.
pub fn llama_pooling(pooling: Pooling) -> LlamaPoolingType {
    match pooling {
        Pooling::Mean => LlamaPoolingType::Mean,
        Pooling::Cls => LlamaPoolingType::Cls,
        Pooling::Last => LlamaPoolingType::Last,
        Pooling::Rank => LlamaPoolingType::Rank,
        Pooling::None => LlamaPoolingType::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_generates_embeds_or_ranks_or_is_refused_in_words() {
        let of = |architecture, pooling: Option<i32>| {
            Purpose::of(architecture, pooling.map(LlamaPoolingType::from))
        };
        for pooled in [1, 2, 3] {
            assert_eq!(of("llama", Some(pooled)), Ok(Purpose::Embed));
        }
        assert_eq!(of("nomic-bert", None), Ok(Purpose::Embed));
        assert_eq!((of("llama", None), of("llama", Some(0))), (Ok(Purpose::Generate), Ok(Purpose::Generate)));
        assert_eq!(of("qwen3", Some(4)), Ok(Purpose::Rank));
        assert!(of("bert", Some(0)).unwrap_err().contains("an encoder without pooling"));
        assert!(of("t5", None).unwrap_err().contains("t5"));
    }
}

//! The fixtures are what llama.cpp takes for real models: each loads through the bindings, and computes.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::{LazyLock, Mutex, PoisonError};

use llama_cpp_2::context::params::{LlamaContextParams, LlamaPoolingType};
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::token::LlamaToken;

use crate::fixture::Fixture;

/// llama.cpp is started once per process, and one model at a time keeps the big fixture's memory from piling up.
static BACKEND: LazyLock<Mutex<LlamaBackend>> =
    LazyLock::new(|| Mutex::new(LlamaBackend::init().expect("llama.cpp starts")));

fn with_model<T>(fixture: Fixture, test: impl FnOnce(&LlamaBackend, &LlamaModel) -> T) -> T {
    let mut backend = BACKEND.lock().unwrap_or_else(PoisonError::into_inner);
    backend.void_logs();
    let path = fixture.file_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("the fixture can be written");
    let model =
        LlamaModel::load_from_file(&backend, path, &LlamaModelParams::default()).expect("the fixture loads");
    test(&backend, &model)
}

/// Greedy decoding; panics on an end of text.
fn generate(backend: &LlamaBackend, model: &LlamaModel, prompt: &str, count: usize) -> String {
    let parameters = LlamaContextParams::default().with_n_ctx(NonZeroU32::new(512));
    let mut context = model.new_context(backend, parameters).expect("a context");
    let mut tokens = model.vocab().tokenize(prompt.as_bytes(), false, true);
    let mut batch = LlamaBatch::new(512, 1);
    let mut text = Vec::new();
    let mut position = 0;
    for _ in 0..count {
        batch.clear();
        let last = tokens.len() - 1;
        for (place, token) in tokens.iter().enumerate() {
            batch.add(*token, position, &[0], place == last).expect("room in the batch");
            position += 1;
        }
        context.decode(&mut batch).expect("decoding works");
        let logits = context.get_logits_ith(batch.n_tokens() - 1);
        assert!(logits.iter().all(|logit| logit.is_finite()), "activations explode");
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).expect("a vocabulary");
        let token = LlamaToken(best as i32);
        assert!(!model.vocab().is_eog(token), "the model ends its text");
        text.extend(model.vocab().token_to_piece(token, false, None));
        tokens = vec![token];
    }
    String::from_utf8(text).expect("printable text")
}

#[test]
fn the_tiny_llama_spells_any_text_and_generates_printable_text() {
    with_model(Fixture::TinyLlama, |backend, model| {
        let text = "Grüße, the 山 and 🦙!\n";
        let tokens = model.vocab().tokenize(text.as_bytes(), false, true);
        let pieces = tokens.iter().flat_map(|t| model.vocab().token_to_piece(*t, false, None));
        assert_eq!(String::from_utf8_lossy(&pieces.collect::<Vec<u8>>()), text);
        assert!(model.chat_template(None).is_ok(), "it has a chat template");
        let one = generate(backend, model, "the llama", 200);
        let other = generate(backend, model, "a mule", 200);
        assert_ne!(one, other, "its answer depends on the prompt");
    });
}

#[test]
fn the_tiny_bert_embeds_texts_differently() {
    with_model(Fixture::TinyBert, |backend, model| {
        let embed = |text: &str| {
            let parameters = LlamaContextParams::default()
                .with_n_ctx(NonZeroU32::new(512))
                .with_embeddings(true)
                .with_pooling_type(LlamaPoolingType::Unspecified);
            let mut context = model.new_context(backend, parameters).expect("a context");
            let tokens = model.vocab().tokenize(text.as_bytes(), true, true);
            let mut batch = LlamaBatch::new(512, 1);
            batch.add_sequence(&tokens, 0, true).expect("room in the batch");
            context.encode(&mut batch).expect("encoding works");
            context.embeddings_seq_ith(0).expect("a pooled vector").to_vec()
        };
        let (llama, mule) = (embed("the llama carries a pack"), embed("mule, mountain: 42"));
        assert_eq!(llama.len(), 64);
        assert!(llama.iter().chain(&mule).all(|number| number.is_finite()));
        assert_ne!(llama, mule);
        assert_eq!(llama, embed("the llama carries a pack"));
    });
}

#[test]
fn the_bench_llama_has_half_a_billion_parameters_and_goes_on_generating() {
    with_model(Fixture::BenchLlama, |backend, model| {
        assert!((450_000_000..550_000_000).contains(&model.n_params()), "{} parameters", model.n_params());
        let english = "The arriero drives a string of pack llamas over the mountain and swaps a tired one on the trail.";
        let tokens = model.vocab().tokenize(english.as_bytes(), false, true).len();
        assert!((20..50).contains(&tokens), "{tokens} tokens for {} characters", english.len());
        generate(backend, model, english, 16);
    });
}

use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::data::LlamaTokenData;
use llama_cpp_2::token::data_array::LlamaTokenDataArray;

use super::nature::context_length;
use super::*;
use crate::engine::draw::uniform;
use crate::engine::sampling::Token;
use crate::engine::sampling::dry::Dry;
use crate::generation::Options;

/// The built-in model.
fn demo() -> Model {
    let spec = serde_json::json!({
        "name": "demo", "path": concat!(env!("CARGO_MANIFEST_DIR"), "/src/library/demo/demo.gguf"), "socket": "",
        "context": 0, "parallel": 1, "threads": 1, "batch": 64, "kv_type": "f16", "gpu_layers": 0, "mmap": true
    });
    log::capture();
    let backend = crate::engine::backend::initialise().unwrap();
    Model::load(backend, serde_json::from_value(spec).unwrap(), |_| true).unwrap()
}

#[test]
fn dry_penalties_are_those_of_llama_cpp() {
    let model = demo();
    let texts = ["\n", "the m", ":"].map(str::to_owned);
    let words = model.tokenize("the llama: a mule\nthe llama said the mule is the llama", false, false);
    let mut penalised = 0;
    for seed in 0..300 {
        // Made of few words, so much of it is a repetition.
        let draw = |i| words[(uniform(seed, i) * words.len() as f64) as usize % 7];
        let history: Vec<Token> = (0..50).map(draw).collect();
        let allowed = i32::try_from(seed % 4).unwrap();
        let options = Options {
            dry_multiplier: Some(0.75),
            dry_base: Some(1.5),
            dry_allowed_length: Some(allowed),
            dry_penalty_last_n: Some(40),
            ..Options::default()
        };
        let mut dry = Dry::new(&options, 64).unwrap();
        dry.breakers = model.dry_breakers(Some(&texts)).unwrap();
        let mut ours = vec![0.0; model.llama.vocab().n_tokens() as usize];
        dry.penalise(&mut ours, &history);

        let mut theirs = LlamaTokenDataArray::from_iter(
            (0..ours.len() as Token).map(|token| LlamaTokenData::new(llama_token(token), 0.0, 0.0)),
            false,
        );
        LlamaSampler::dry(&model.llama, 0.75, 1.5, allowed, 40, &texts)
            .with_tokens(history.iter().map(|&token| llama_token(token)))
            .apply(&mut theirs);
        for data in &theirs.data {
            let logit = ours[data.id().0 as usize];
            let near = (logit - data.logit()).abs() <= data.logit().abs() * 1e-5;
            assert!(near, "{history:?} {:?}: {logit} {}", data.id(), data.logit());
            penalised += usize::from(logit < 0.0);
        }
    }
    assert!(penalised > 100, "only {penalised}");
}

#[test]
fn the_context_is_what_was_asked_for_but_never_more_than_trained() {
    assert_eq!(context_length(0, 4096, 131_072), 4096);
    assert_eq!(context_length(0, 4096, 2048), 2048);
    assert_eq!(context_length(8192, 4096, 131_072), 8192);
    assert_eq!(context_length(8192, 4096, 2048), 2048);
    assert_eq!(context_length(512, 4096, 0), 512);
}

#[test]
fn llama_cpps_words_come_under_the_right_heading() {
    let explain = |line| explain("bad file", line);
    let unknown = "llama_model_load: error loading model: unknown model architecture: 'foo'";
    assert_eq!(explain(unknown), "unsupported architecture: foo");
    let memory = "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 7";
    assert_eq!(explain(memory), "not enough memory: failed to allocate buffer of size 7");
    let broken = "llama_model_load: error loading model: tensor 'x': data is missing";
    assert_eq!(explain(broken), "bad file: tensor 'x': data is missing");
}

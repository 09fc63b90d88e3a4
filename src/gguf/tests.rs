use proptest::prelude::*;
use serde_json::json;

use super::writer::Writer;
use super::*;

fn parse(bytes: &[u8]) -> Result<Header, Error> {
    read(bytes, bytes.len() as u64, Detail::Brief)
}

/// Why `bytes` are refused.
fn refusal(bytes: &[u8]) -> String {
    parse(bytes).unwrap_err().to_string()
}

/// Bytes of data in the sample.
const DATA: usize = 960;

fn sample() -> Vec<u8> {
    Writer::default()
        .string("general.architecture", "llama")
        .u32("llama.context_length", 2048)
        .pair("llama.rms_eps", kind::F32, &1e-5_f32.to_le_bytes())
        .pair("llama.causal", kind::BOOL, &[1])
        .pair("llama.offset", kind::I64, &(-7_i64).to_le_bytes())
        .strings("general.tags", &["a", "b"])
        .strings("tokenizer.ggml.tokens", &["x", "y", "<fim_prefix>", "<fim_suffix>", "<fim_middle>", "z"])
        .tensor("token_embd.weight", 8, &[64, 10])
        .tensor("norm", 0, &[64])
        .finish()
}

/// An array of `count` elements of type `of`, of which only `bytes` are there.
fn array(of: u32, count: u64, bytes: usize) -> Vec<u8> {
    let mut array = [of.to_le_bytes().as_slice(), &count.to_le_bytes()].concat();
    array.resize(array.len() + bytes, 1);
    array
}

#[test]
fn key_values_and_tensors_come_back_as_written() {
    let file = sample();
    let header = parse(&file).unwrap();
    assert_eq!(
        Value::Object(header.metadata),
        json!({
            "general.architecture": "llama", "llama.context_length": 2048, "llama.rms_eps": 1e-5, "llama.causal": true,
            "llama.offset": -7, "general.tags": ["a", "b"], "tokenizer.ggml.tokens": null,
        })
    );
    let end = file.len() as u64;
    // 10 rows of two blocks of 34 bytes; the next multiple of 32; 64 floats.
    let place = end - 256 - 704..end - 256 - 704 + 680;
    let embedding = Tensor { name: "token_embd.weight".into(), kind: 8, shape: vec![64, 10], place };
    assert_eq!(header.tensors[0], embedding);
    assert_eq!((header.tensors[1].elements(), header.tensors[1].place.clone()), (64, end - 256..end));
    assert_eq!(header.fill, HashSet::from(["<fim_prefix>", "<fim_suffix>", "<fim_middle>"]));
}

#[test]
fn in_full_detail_long_arrays_are_kept_and_nothing_else_differs() {
    let file = sample();
    let full = read(file.as_slice(), file.len() as u64, Detail::Full).unwrap();
    assert_eq!(
        full.metadata["tokenizer.ggml.tokens"],
        json!(["x", "y", "<fim_prefix>", "<fim_suffix>", "<fim_middle>", "z"])
    );
    let brief = parse(&file).unwrap();
    assert_eq!((full.fill, full.fingerprint), (brief.fill, brief.fingerprint));
}

#[test]
fn arrays_beyond_what_memory_allows_are_not_kept_in_full_detail_either() {
    let count = pairs::MAX_ELEMENTS / 2 + 1;
    let array = array(kind::U8, count, count as usize);
    let file = Writer::default().pair("a", kind::ARRAY, &array).pair("b", kind::ARRAY, &array).finish();
    let full = read(file.as_slice(), file.len() as u64, Detail::Full).unwrap();
    assert_eq!(full.metadata["a"].as_array().unwrap().len() as u64, count);
    assert_eq!(full.metadata["b"], Value::Null);
}

#[test]
fn a_file_cut_at_any_byte_is_an_error_in_words() {
    let file = sample();
    for cut in 0..file.len() {
        let error = refusal(&file[..cut]);
        assert!(error == "not a GGUF file" || error.starts_with("truncated: "), "at {cut}: {error}");
    }
    assert_eq!(refusal(&file[..20]), "truncated: the file ends inside the counts, at byte 16");
    let (all, short) = (file.len(), file.len() - 1);
    let expected = format!("truncated: the data of tensor norm ends at byte {all}, the file at byte {short}");
    assert_eq!(refusal(&file[..short]), expected);
}

#[test]
fn a_file_that_shrinks_while_being_read_is_truncated() {
    let file = sample();
    assert!(matches!(
        read(&file[..100], file.len() as u64, Detail::Brief),
        Err(Error::Truncated { at: ..100, .. })
    ));
}

#[test]
fn other_files_and_versions_are_named() {
    assert_eq!(refusal(b"<html>nothing here</html>"), "not a GGUF file");
    let mut file = sample();
    file[4] = 7;
    assert_eq!(refusal(&file), "unsupported GGUF version 7");
}

#[test]
fn impossible_counts_and_lengths_are_refused_before_anything_is_reserved() {
    for place in [8..16, 16..24] {
        let mut file = sample();
        file[place].fill(0xff);
        assert!(matches!(parse(&file), Err(Error::Truncated { .. })));
    }
    for length in [1_u64 << 63, u64::MAX, 1 << 40] {
        let text = length.to_le_bytes();
        let file = Writer::default().pair("a", kind::STRING, &text).finish();
        assert!(matches!(parse(&file), Err(Error::Truncated { what: "a value", .. })));
        for of in [kind::STRING, kind::U8, kind::U64] {
            let file = Writer::default().pair("a", kind::ARRAY, &array(of, length, 100)).finish();
            assert!(matches!(parse(&file), Err(Error::Truncated { what: "an array", .. })));
        }
        let mut file = sample();
        file[24..32].copy_from_slice(&text);
        assert_eq!(refusal(&file), "truncated: the file ends inside a key, at byte 32");
    }
}

#[test]
fn unknown_types_and_repeated_keys_are_refused() {
    let value = Writer::default().pair("a", 13, &[0; 8]).finish();
    assert_eq!(refusal(&value), "corrupt GGUF at byte 37: a value of type 13");
    let nested = Writer::default().pair("a", kind::ARRAY, &array(kind::ARRAY, 1, 20)).finish();
    assert_eq!(refusal(&nested), "corrupt GGUF at byte 37: a is an array of type 9");
    let twice = Writer::default().u32("a", 1).u32("a", 2).finish();
    assert_eq!(refusal(&twice), "corrupt GGUF at byte 41: key a for the second time");
    let vocabulary = ["", "x", "", "y", "z", "x"];
    let repeated = Writer::default().strings("tokenizer.ggml.tokens", &vocabulary).finish();
    assert!(refusal(&repeated).ends_with("token \"x\" for the second time"));
    assert!(parse(&Writer::default().strings("tokenizer.ggml.tokens", &vocabulary[..5]).finish()).is_ok());
    let lines = Writer::default().described("a\nb", 4, &[1], 0);
    assert!(refusal(&lines.finish()).contains("tensor a\\nb has"), "one line");
    let nameless = Writer::default().u32("", 1).u32("b", 1).finish();
    assert!(refusal(&nameless).starts_with("corrupt GGUF at byte 24: a key that is empty"));
}

#[test]
fn tensors_have_sizes_that_exist() {
    for (kind, shape, expected) in [
        (0, &[u64::MAX, 2][..], "impossible size"),
        (0, &[1 << 31, 1 << 31, 1 << 31, 1 << 31], "impossible size"),
        (0, &[1 << 62], "impossible size"),
        (0, &[64, 0], "impossible size"),
        (8, &[33, 32], "impossible size"),
        (4, &[64], "unknown type 4"),
        (u32::MAX, &[64], "unknown type 4294967295"),
        (0, &[1, 1, 1, 1, 1], "has 5 dimensions"),
    ] {
        let file = Writer::default().described("t", kind, shape, 0).finish();
        let error = refusal(&file);
        assert!(
            error.starts_with("corrupt GGUF at byte 24: tensor t ") && error.contains(expected),
            "{error}"
        );
    }
    let long = "n".repeat(64);
    let file = Writer::default().tensor(&long, 0, &[1]).finish();
    assert!(refusal(&file).contains("a tensor's name of 64 bytes"));
}

#[test]
fn tensors_lie_one_behind_the_other_at_aligned_places_inside_the_file() {
    let two = |offset| {
        Writer::default().tensor("a", 0, &[9]).described("b", 0, &[8], offset).tensor("c", 0, &[8]).finish()
    };
    for offset in [0, 32, 36, 63, 96, 1 << 40, u64::MAX] {
        let expected = format!("tensor b begins at byte {offset} of the data instead of 64");
        assert!(refusal(&two(offset)).ends_with(&expected));
    }
    let twice = Writer::default().tensor("a", 0, &[8]).tensor("a", 0, &[8]).finish();
    assert!(refusal(&twice).contains("tensor a for the second time"));
    let beyond = Writer::default().described("a", 0, &[1 << 40], 0).finish();
    assert!(refusal(&beyond).starts_with("truncated: the data of tensor a ends at byte "));
}

#[test]
fn an_alignment_is_a_power_of_two_that_llama_cpp_can_map() {
    for (alignment, is_good) in [(0, false), (8, false), (48, false), (32, true), (64, true)] {
        let file = Writer::default().u32("general.alignment", alignment).finish();
        assert_eq!(parse(&file).is_ok(), is_good, "{alignment}");
    }
    let text = Writer::default().string("general.alignment", "32").finish();
    assert!(refusal(&text).contains("alignment \"32\""));
    let wide = Writer::default().u32("general.alignment", 4096).tensor("a", 0, &[8]).finish();
    assert!(refusal(&wide).starts_with("truncated: the data of tensor a ends at byte 4128"));
}

#[test]
fn a_vocabulary_of_150_000_tokens_is_checked_in_a_moment_and_not_kept() {
    let words: Vec<String> = (0..150_000).map(|number| format!("token {number}")).collect();
    let pairs: Vec<String> = (0..150_000).map(|number| format!("t oken{number}")).collect();
    let file = Writer::default()
        .strings("tokenizer.ggml.tokens", &words)
        .pair("tokenizer.ggml.scores", kind::ARRAY, &array(kind::F32, 150_000, 600_000))
        .strings("tokenizer.ggml.merges", &pairs)
        .finish();
    let begun = std::time::Instant::now();
    let header = parse(&file).unwrap();
    // It takes some 10 ms; more only where the machine is busy with other tests.
    assert!(begun.elapsed() < std::time::Duration::from_secs(1));
    assert!(header.metadata.values().all(Value::is_null));
}

/// What an accepted header promises, whatever bytes it was read from: `length` of them.
fn check(header: &Header, length: u64) {
    let mut end = 0;
    for tensor in &header.tensors {
        assert!(tensor.place.start >= end && tensor.place.start % 32 == 0, "{tensor:?} overlaps");
        assert!(tensor.place.end <= length && tensor.elements() > 0, "{tensor:?} is not in the file");
        end = tensor.place.end;
    }
    let kept: usize = header.metadata.iter().map(|(key, value)| key.len() + weight(value)).sum();
    assert!(kept as u64 <= 64 * length, "{kept} bytes kept of {length}");
}

/// Bytes of memory, roughly.
fn weight(value: &Value) -> usize {
    let own = match value {
        Value::String(text) => text.capacity(),
        Value::Array(values) => values.iter().map(weight).sum(),
        _ => 0,
    };
    own + size_of::<Value>()
}

/// Bytes changed and inserted, all in the header, and cut off, in this order.
fn damaged(
    mut file: Vec<u8>,
    changes: &[(prop::sample::Index, u8)],
    inserted: &[u8],
    cut: Option<usize>,
) -> Vec<u8> {
    for (at, byte) in changes {
        let at = at.index(file.len() - DATA);
        file[at] = *byte;
    }
    if let Some((at, _)) = changes.first() {
        let at = at.index(file.len() - DATA);
        file.splice(at..at, inserted.iter().copied());
    }
    file.truncate(cut.unwrap_or(file.len()));
    file
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&tail);
        let _ = parse(&[b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0".as_slice(), &tail].concat());
    }

    #[test]
    fn a_damaged_file_is_refused_or_everything_in_it_is_where_it_says(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        inserted in prop::collection::vec(any::<u8>(), 0..9),
        cut in prop::option::of(0_usize..2000),
        is_full in any::<bool>(),
    ) {
        let file = damaged(sample(), &changes, &inserted, cut);
        let detail = if is_full { Detail::Full } else { Detail::Brief };
        if let Ok(header) = read(file.as_slice(), file.len() as u64, detail) {
            check(&header, file.len() as u64);
        }
    }
}

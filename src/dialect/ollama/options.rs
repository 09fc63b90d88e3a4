//! Ollama's `options`, and llama.cpp's samplers that Ollama lacks: what is known is type-checked, what is not is for
//! nodes that may know it, `null` is skipped.

use serde_json::{Map, Value};

use crate::error::Error;
use crate::generation::Options;

/// Most options that are passed on though nobody here knows them.
const MOST_UNKNOWN: usize = 32;
/// Longest text of one, in bytes.
const LONGEST_UNKNOWN: usize = 1024;

/// The canonical form, and what is not known. The first value of a wrong type is an error with Ollama's text.
pub(super) fn parse(fields: Option<Map<String, Value>>) -> Result<(Options, Map<String, Value>), Error> {
    let (mut options, mut unknown) = (Options::default(), Map::new());
    for (key, value) in fields.unwrap_or_default() {
        if value.is_null() {
            continue;
        }
        if let Some(value) = set(&mut options, &key, value)?
            && unknown.len() < MOST_UNKNOWN
            && is_small(&value)
        {
            unknown.insert(key, value);
        }
    }
    Ok((options, unknown))
}

/// As options are, but for lists of texts.
fn is_small(value: &Value) -> bool {
    match value {
        Value::String(text) => text.len() <= LONGEST_UNKNOWN,
        value => value.is_number() || value.is_boolean(),
    }
}

/// Sets what is known; gives back what is not.
fn set(options: &mut Options, key: &str, value: Value) -> Result<Option<Value>, Error> {
    match key {
        "num_predict" => options.num_predict = Some(integer(key, &value)?),
        "temperature" => options.temperature = Some(float(key, &value)?),
        "top_k" => options.top_k = Some(small(key, &value)?),
        "top_p" => options.top_p = Some(float(key, &value)?),
        "min_p" => options.min_p = Some(float(key, &value)?),
        "typical_p" => options.typical_p = Some(float(key, &value)?),
        "repeat_last_n" => options.repeat_last_n = Some(small(key, &value)?),
        "repeat_penalty" => options.repeat_penalty = Some(float(key, &value)?),
        "presence_penalty" => options.presence_penalty = Some(float(key, &value)?),
        "frequency_penalty" => options.frequency_penalty = Some(float(key, &value)?),
        "top_n_sigma" => options.top_n_sigma = Some(float(key, &value)?),
        "dry_multiplier" => options.dry_multiplier = Some(float(key, &value)?),
        "dry_base" => options.dry_base = Some(float(key, &value)?),
        "dry_allowed_length" => options.dry_allowed_length = Some(small(key, &value)?),
        "dry_penalty_last_n" => options.dry_penalty_last_n = Some(small(key, &value)?),
        "dry_sequence_breakers" => options.dry_sequence_breakers = Some(strings(key, value)?),
        "xtc_probability" => options.xtc_probability = Some(float(key, &value)?),
        "xtc_threshold" => options.xtc_threshold = Some(float(key, &value)?),
        "seed" => options.seed = Some(integer(key, &value)?),
        "stop" => options.stop = Some(strings(key, value)?),
        "num_ctx" => options.num_ctx = Some(integer(key, &value)?),
        "num_keep" => options.num_keep = Some(integer(key, &value)?),
        // How a model is loaded is the operator's decision, not a request's: checked, as Ollama would, and then ignored.
        "num_batch" | "num_gpu" | "main_gpu" | "num_thread" | "draft_num_predict" => {
            integer(key, &value)?;
        }
        "use_mmap" => {
            value.as_bool().ok_or_else(|| wrong(key, "boolean"))?;
        }
        _ => return Ok(Some(value)),
    }
    Ok(None)
}

/// A number without its fraction, as Go converts it.
fn integer(key: &str, value: &Value) -> Result<i64, Error> {
    value.as_i64().or_else(|| value.as_f64().map(|float| float as i64)).ok_or_else(|| wrong(key, "integer"))
}

/// The same for what is 32 bits wide here; beyond that there is no difference that matters.
fn small(key: &str, value: &Value) -> Result<i32, Error> {
    let clamped = integer(key, value)?.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
    i32::try_from(clamped).map_err(|_| wrong(key, "integer"))
}

fn float(key: &str, value: &Value) -> Result<f32, Error> {
    let float = value.as_f64().map(|float| float as f32);
    float.filter(|float| float.is_finite()).ok_or_else(|| wrong(key, "float32"))
}

/// Empty strings are dropped: they would match at once.
fn strings(key: &str, value: Value) -> Result<Vec<String>, Error> {
    let Value::Array(items) = value else {
        return Err(wrong(key, "array"));
    };
    let text = |item| match item {
        Value::String(text) => Ok(text),
        _ => Err(Error::invalid_param("options", format!("option \"{key}\" must be of an array of strings"))),
    };
    items.into_iter().map(text).filter(|text| text.as_deref() != Ok("")).collect()
}

fn wrong(key: &str, expected: &str) -> Error {
    Error::invalid_param("options", format!("option \"{key}\" must be of type {expected}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<Options, String> {
        parse(value.as_object().cloned()).map(|(options, _)| options).map_err(|error| error.to_string())
    }

    #[test]
    fn every_option_of_a_request_is_kept() {
        let all = json!({
            "num_predict": 1, "temperature": 0.5, "top_k": 2, "top_p": 0.25, "min_p": 0.125, "typical_p": 0.75,
            "repeat_last_n": 3, "repeat_penalty": 1.5, "presence_penalty": 1.0, "frequency_penalty": 2.0, "seed": 4,
            "stop": ["a"], "num_ctx": 5, "num_keep": 6, "top_n_sigma": 1.5, "dry_multiplier": 0.5, "dry_base": 1.25,
            "dry_allowed_length": 7, "dry_penalty_last_n": 8, "dry_sequence_breakers": ["b"], "xtc_probability": 0.5,
            "xtc_threshold": 0.25
        });
        assert_eq!(serde_json::to_value(read(all.clone()).unwrap()).unwrap(), all);
    }

    #[test]
    fn unknown_options_never_fail_but_wrong_types_do() {
        assert_eq!(read(json!({"mirostat": "x", "numa": 3, "Num_Ctx": "x"})), Ok(Options::default()));
        for (value, message) in [
            (json!({"num_ctx": "4096"}), r#"option "num_ctx" must be of type integer"#),
            (json!({"temperature": "hot"}), r#"option "temperature" must be of type float32"#),
            (json!({"temperature": 1e300}), r#"option "temperature" must be of type float32"#),
            (json!({"stop": "end"}), r#"option "stop" must be of type array"#),
            (json!({"stop": [1]}), r#"option "stop" must be of an array of strings"#),
            (json!({"use_mmap": 1}), r#"option "use_mmap" must be of type boolean"#),
            (json!({"num_gpu": true}), r#"option "num_gpu" must be of type integer"#),
        ] {
            assert_eq!(read(value), Err(message.to_owned()));
        }
    }

    #[test]
    fn unknown_options_are_kept_for_who_knows_them_if_they_are_small() {
        let fields = json!({"mirostat": 2, "numa": true, "top_k": 1, "tree": [1], "text": "x".repeat(LONGEST_UNKNOWN + 1),
            "num_gpu": 1, "none": null});
        let (_, unknown) = parse(fields.as_object().cloned()).unwrap();
        assert_eq!(Value::Object(unknown), json!({"mirostat": 2, "numa": true}));
    }

    #[test]
    fn load_time_options_are_accepted_and_ignored() {
        let value = json!({"num_gpu": 0, "num_batch": 8, "main_gpu": 0, "num_thread": 2, "use_mmap": false});
        assert_eq!(read(value), Ok(Options::default()));
    }

    #[test]
    fn nulls_are_skipped_and_whole_floats_are_integers() {
        let options = read(json!({"seed": null, "num_ctx": 10.0, "top_k": 1e18, "temperature": 1})).unwrap();
        assert_eq!(options.seed, None);
        assert_eq!(options.num_ctx, Some(10));
        assert_eq!(options.top_k, Some(i32::MAX));
        assert_eq!(options.temperature, Some(1.0));
    }

    #[test]
    fn empty_stop_strings_are_dropped() {
        assert_eq!(read(json!({"stop": ["", "x"]})).unwrap().stop, Some(vec!["x".to_owned()]));
    }
}

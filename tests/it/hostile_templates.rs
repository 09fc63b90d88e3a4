//! Chat templates that explode: the model is refused in words before the machine is out of memory, and the others are served.

use serde_json::json;

use crate::fixture::Fixture;
use crate::harness::{Server, model};

/// Each would take all memory or all stack there is.
const EXPLODING: [(&str, &str); 5] = [
    (
        "doubles",
        "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    ),
    (
        "collects",
        "{% set n = namespace(x=[]) %}{% for i in range(9999) %}{% set n.x = n.x + [('a' * 9999999) ~ i] %}{% endfor %}",
    ),
    (
        "nests",
        "{% set n = namespace(x=1) %}{% for i in range(99) %}{% for j in range(99999) %}{% set n.x = [n.x] %}{% endfor %}\
         {% endfor %}{{ n.x }}",
    ),
    (
        "captures",
        "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set y %}{{ n.x }}{{ n.x }}{% endset %}\
         {% set n.x = y %}{% endfor %}",
    ),
    (
        "replaces",
        "{% set n = namespace(x='aa') %}{% for i in range(9) %}{% set n.x = n.x|replace('a', n.x) %}{% endfor %}",
    ),
];

#[test]
fn a_template_that_explodes_is_refused_in_words_and_the_other_models_are_served() {
    let mut models = "models: { demo: { path: \"builtin:demo\" }".to_owned();
    for (name, template) in EXPLODING {
        models +=
            &format!(", {name}: {}", model(Fixture::TinyLlama, &format!("template: {}", json!(template))));
    }
    let server = Server::start(&format!("{models} }}\nworkers: {{ max_loaded: 9 }}"));
    let ask = |name| json!({ "model": name, "prompt": "hello", "options": { "num_predict": 4 } });
    for (name, _) in EXPLODING {
        let response = server.post("/api/generate", &ask(name));
        assert_eq!(response.status, 500, "{name}");
        let error = response.json().expect("JSON")["error"].as_str().expect("a text").to_owned();
        assert!(error.contains("the chat template takes more memory"), "{name}: {error}");
    }
    assert!(!server.generate(&ask("demo")).is_empty());
}

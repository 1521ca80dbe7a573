//! How to call a function, as a line for a shell. Pure.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::{
    cli::output::plain,
    runner::{Function, Parameter},
};

/// A line that calls the function with an example of each argument that it needs.
pub fn curl(function: &Function, url: &str) -> String {
    let needed = function.parameters.iter().filter(|parameter| parameter.required);
    let arguments: Map<String, Value> = needed
        .map(|parameter| (parameter.name.clone(), example(parameter)))
        .collect();
    let address = format!("{url}/functions/{}", encoded(&function.name));
    let body = quoted(&Value::Object(arguments).to_string());
    plain(&format!("curl --json {body} {}", quoted(&address))).into_owned()
}

/// A value of the type that the source says, or else a text that says what is meant.
fn example(parameter: &Parameter) -> Value {
    let annotation = parameter.annotation.as_deref().unwrap_or_default();
    let kind = annotation.split(['[', '|', ' ']).next().unwrap_or_default();
    match kind.to_ascii_lowercase().as_str() {
        "int" => json!(1),
        "float" | "number" => json!(1.5),
        "bool" | "boolean" => json!(true),
        "list" | "tuple" | "set" | "sequence" | "array" => json!([]),
        "dict" | "mapping" | "object" => json!({}),
        _ => json!(parameter.name),
    }
}

/// A name as a part of a path.
fn encoded(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes().fold(String::new(), |mut text, byte| {
        if plain(byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

/// A word that a shell takes as it is.
fn quoted(word: &str) -> String {
    let needs_none = |c: char| c.is_ascii_alphanumeric() || "-._~/:%".contains(c);
    if word.chars().all(needs_none) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(value: Value) -> Function {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_line_can_be_pasted_as_it_is() {
        let check = function(json!({"name": "check", "doc": "", "parameters": [
            {"name": "account", "required": true},
            {"name": "days", "required": true, "annotation": "int"},
            {"name": "tags", "required": true, "annotation": "list[str]"},
            {"name": "limit", "required": false, "default": 3},
        ]}));
        assert_eq!(
            curl(&check, "http://127.0.0.1:4781"),
            r#"curl --json '{"account":"account","days":1,"tags":[]}' http://127.0.0.1:4781/functions/check"#
        );
        let odd = function(json!({"name": "it's ü\u{1b}", "doc": "", "parameters": [
            {"name": "o'", "required": true}]}));
        assert_eq!(
            curl(&odd, "http://127.0.0.1:1"),
            r#"curl --json '{"o'\''":"o'\''"}' http://127.0.0.1:1/functions/it%27s%20%C3%BC%1B"#
        );
    }
}

//! The functions of a script, and whether a call fits one.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

use super::{json_text, refusal::Refusal};

/// A function that can be called.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Its named parameters.
    pub parameters: Vec<Parameter>,
    /// Whether it takes arguments of any other name (`**kwargs`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accepts_any_argument: bool,
    /// Its documentation; may be empty.
    pub doc: String,
}

/// A parameter of a function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Whether a call must name it.
    pub required: bool,
    /// What it is otherwise: JSON, or the text of what has no JSON.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub default: Option<Value>,
    /// Its type, as the source says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotation: Option<String>,
}

/// Keeps a default of `null` apart from no default.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// The arguments of a call: a JSON object on one line, checked against the function.
#[derive(Debug)]
pub struct Arguments(pub Box<RawValue>);

impl Function {
    /// Reads the body of a call. An empty one is a call without arguments.
    pub fn arguments(&self, body: &[u8]) -> Result<Arguments, Refusal> {
        let body = std::str::from_utf8(body)
            .map_err(|e| Refusal::not_json(&e.to_string()))?
            .trim();
        let body = if body.is_empty() { "{}" } else { body };
        let raw: &RawValue = serde_json::from_str(body).map_err(|e| Refusal::not_json(&e.to_string()))?;
        if !raw.get().starts_with('{') {
            return Err(Refusal::not_an_object());
        }
        let json = json_text::compact(raw.get()).map_err(|e| Refusal::not_json(&e.to_string()))?;
        let names: Names = serde_json::from_str(&json).map_err(|e| Refusal::not_json(&e.to_string()))?;
        self.check(&names.0)?;
        let json = RawValue::from_string(json).map_err(|e| Refusal::not_json(&e.to_string()))?;
        Ok(Arguments(json))
    }

    fn check(&self, names: &[String]) -> Result<(), Refusal> {
        let known = |name: &String| self.parameters.iter().any(|p| p.name == *name);
        if let Some(name) = names
            .iter()
            .find(|name| !self.accepts_any_argument && !known(name))
        {
            return Err(Refusal::unknown_argument(name, &self.signature()));
        }
        let missing = self
            .parameters
            .iter()
            .find(|p| p.required && !names.contains(&p.name));
        missing.map_or(Ok(()), |p| {
            Err(Refusal::missing_argument(&p.name, &self.signature()))
        })
    }

    /// The function as people write it: `check(account, limit=10)`.
    pub fn signature(&self) -> String {
        let mut parameters: Vec<_> = self.parameters.iter().map(Parameter::signature).collect();
        if self.accepts_any_argument {
            parameters.push("**".into());
        }
        format!("{}({})", self.name, parameters.join(", "))
    }
}

impl Parameter {
    fn signature(&self) -> String {
        match &self.default {
            Some(default) => format!("{}={default}", self.name),
            None => self.name.clone(),
        }
    }
}

/// The names of an object's members, their values unread.
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Names;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some((name, _)) = map.next_entry::<String, serde::de::IgnoredAny>()? {
                    names.push(name);
                }
                Ok(Names(names))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// The list of functions as `GET /functions` shows it.
pub fn listing(functions: &[Function]) -> Value {
    let mut map = Map::new();
    map.insert("functions".into(), serde_json::json!(functions));
    Value::Object(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function() -> Function {
        serde_json::from_value(serde_json::json!({
            "name": "check", "doc": "",
            "parameters": [
                {"name": "account", "required": true, "annotation": "str"},
                {"name": "limit", "required": false, "default": null},
            ],
        }))
        .unwrap()
    }

    fn refused(function: &Function, body: &str) -> (String, Option<String>, String) {
        let refusal = function.arguments(body.as_bytes()).unwrap_err();
        (refusal.code.into(), refusal.field, refusal.message)
    }

    #[test]
    fn arguments_are_passed_on_as_one_line() {
        let arguments = function()
            .arguments(b"{\n \"account\": \"a b\",\n \"limit\": 1.50 }")
            .unwrap();
        assert_eq!(arguments.0.get(), r#"{"account":"a b","limit":1.50}"#);
    }

    #[test]
    fn an_empty_body_is_a_call_without_arguments() {
        let mut function = function();
        function.parameters.remove(0);
        assert_eq!(function.arguments(b" \n").unwrap().0.get(), "{}");
    }

    #[test]
    fn a_wrong_call_is_told_what_is_wrong() {
        let function = function();
        assert_eq!(function.signature(), "check(account, limit=null)");
        for (body, code) in [
            ("{", "NotJson"),
            ("[1]", "NotAnObject"),
            ("\"\\ud800\"", "NotAnObject"),
        ] {
            assert_eq!(refused(&function, body).0, code, "{body}");
        }
        let (code, field, message) = refused(&function, r#"{"account":1,"acount":2}"#);
        assert_eq!(
            (code.as_str(), field.as_deref()),
            ("UnknownArgument", Some("acount"))
        );
        assert!(message.contains("check(account, limit=null)"), "{message}");
        let (code, field, _) = refused(&function, r#"{"limit":2}"#);
        assert_eq!(
            (code.as_str(), field.as_deref()),
            ("MissingArgument", Some("account"))
        );
        let deep = format!("{{\"account\":{}1{}}}", "[".repeat(300), "]".repeat(300));
        let (code, _, message) = refused(&function, &deep);
        assert_eq!(code, "NotJson");
        assert!(message.contains("200 levels"), "{message}");
    }

    #[test]
    fn keyword_functions_take_any_argument() {
        let mut function = function();
        function.accepts_any_argument = true;
        assert!(function.arguments(br#"{"account":1,"anything":2}"#).is_ok());
    }
}

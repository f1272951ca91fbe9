//! `GET /openapi.json`: the API in OpenAPI 3.1, written by hand in `openapi.json` beside this
//! file. A test holds its paths and methods against the routes, both ways;
//! the tests of the routes hold their real answers against its schemas.

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// The document.
pub const DOCUMENT: &str = include_str!("openapi.json");

pub(super) fn routes() -> Router {
    Router::new().route("/openapi.json", get(document))
}

async fn document() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "public, max-age=3600"),
        // Caches keep it for whoever asks, compressed or not.
        (header::VARY, "accept-encoding"),
    ];
    (headers, DOCUMENT).into_response()
}

/// Real answers against the document.
#[cfg(test)]
pub(super) mod testing {
    use std::sync::LazyLock;

    use serde_json::{Value, json};

    static STRICT: LazyLock<Value> = LazyLock::new(|| {
        let mut document = serde_json::from_str(super::DOCUMENT).unwrap();
        close(&mut document);
        document
    });

    /// An object has the fields that are documented and no others.
    fn close(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.values_mut().for_each(close);
                if fields.get("type") == Some(&json!("object")) && fields.contains_key("properties") {
                    fields.entry("additionalProperties").or_insert(json!(false));
                }
            }
            Value::Array(items) => items.iter_mut().for_each(close),
            _ => {}
        }
    }

    /// The operation of a method and a path with its values in place.
    fn operation(method: &str, path: &str) -> Option<&'static Value> {
        let fits = |template: &str| {
            let (mut parts, mut names) = (path.split('/'), template.split('/'));
            let same =
                names.by_ref().zip(parts.by_ref()).all(|(name, part)| name == part || name.starts_with('{'));
            same && path.split('/').count() == template.split('/').count()
        };
        let paths = STRICT["paths"].as_object()?;
        let exact = paths.get(path);
        let operations =
            exact.or_else(|| paths.iter().find(|(template, _)| fits(template)).map(|(_, found)| found));
        operations?.get(method)
    }

    /// Panics where the document does not describe this answer to this request.
    pub(crate) fn assert_documented(method: &str, uri: &str, status: u16, body: &Value) {
        let path = uri.split('?').next().unwrap();
        let operation =
            operation(method, path).unwrap_or_else(|| panic!("{method} {path} is not documented"));
        let mut response = &operation["responses"][status.to_string()];
        if let Some(target) = response["$ref"].as_str() {
            response = STRICT.pointer(target.trim_start_matches('#')).unwrap();
        }
        let schema = &response["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{method} {path}: {status} is not documented: {body}");
        let schema = json!({"components": STRICT["components"], "allOf": [schema]});
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let errors: Vec<String> =
            validator.iter_errors(body).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{method} {uri} {status}: {errors:#?} in {body}");
    }

    #[test]
    fn what_is_not_as_documented_is_found() {
        let caught = |body: Value| {
            std::panic::catch_unwind(|| assert_documented("get", "/v2/stocks/A/trades?limit=1", 200, &body))
                .is_err()
        };
        let trade = json!({"t": "2024-01-03T14:30:00Z", "x": "Q", "p": 1, "s": 1, "c": []});
        let page = |trade: &Value| json!({"symbol": "A", "trades": [trade], "next_page_token": null});
        assert!(!caught(page(&trade)));
        for (field, value) in [("s", json!(1.5)), ("z", json!("X")), ("y", json!(1)), ("x", json!(null))] {
            let mut wrong = trade.clone();
            wrong[field] = value;
            assert!(caught(page(&wrong)), "{field}");
        }
        assert!(std::panic::catch_unwind(|| assert_documented("get", "/v1/none", 200, &json!({}))).is_err());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use serde_json::Value;

    use super::*;

    /// The methods that a route may be given by, as the router names them.
    const METHODS: [&str; 4] = ["get", "post", "put", "delete"];
    /// The file with the routes of the admin door, and those whose routes are for tests.
    const NOT_PUBLIC: [&str; 3] = ["ops.rs", "server.rs", "tests.rs"];

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    /// `.route("/path", get(…).post(…))` in a source, as `get /path`.
    fn routes_in(source: &str) -> Vec<String> {
        let mut found = Vec::new();
        for part in source.split(".route(\"").skip(1) {
            let (path, rest) = part.split_once('"').unwrap();
            let rest = rest.split_once(".route(").map_or(rest, |(this, _)| this);
            let rest = rest.split_once(';').map_or(rest, |(this, _)| this);
            for method in METHODS {
                if rest.contains(&format!(" {method}(")) || rest.contains(&format!(".{method}(")) {
                    found.push(format!("{method} {path}"));
                }
            }
        }
        found
    }

    #[test]
    fn the_document_lists_every_route_and_no_other() {
        let mut routes = BTreeSet::new();
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                if path.is_dir() {
                    folders.extend(Some(path).filter(|_| name != "tests"));
                } else if !NOT_PUBLIC.contains(&name.as_str()) {
                    let source = std::fs::read_to_string(path).unwrap();
                    routes.extend(routes_in(source.split("mod tests {").next().unwrap()));
                }
            }
        }
        assert!(routes.len() >= 10, "{routes:?}");
        let document = document();
        let paths = document["paths"].as_object().unwrap();
        let documented: BTreeSet<String> = paths
            .iter()
            .flat_map(|(path, methods)| {
                methods.as_object().unwrap().keys().map(move |method| format!("{method} {path}"))
            })
            .collect();
        assert_eq!(documented, routes);
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_answer_has_a_schema() {
        fn walk(value: &Value, document: &Value) {
            match value {
                Value::Object(fields) => {
                    if let Some(target) = fields.get("$ref").and_then(Value::as_str) {
                        let pointer = target.strip_prefix('#').unwrap();
                        assert!(document.pointer(pointer).is_some(), "{target}");
                    }
                    fields.values().for_each(|field| walk(field, document));
                }
                Value::Array(items) => items.iter().for_each(|item| walk(item, document)),
                _ => {}
            }
        }
        let document = document();
        walk(&document, &document);
        assert_eq!(document["openapi"], "3.1.0");
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                assert!(operation["operationId"].is_string(), "{method} {path}");
                let upgrades = !operation["responses"]["101"].is_null();
                let is_told = !operation["responses"]["200"]["content"].is_null();
                assert!(upgrades || is_told, "{method} {path}");
                for name in path.split('{').skip(1).filter_map(|part| part.split('}').next()) {
                    let named = operation["parameters"].to_string();
                    let own = format!("\"name\":\"{name}\"");
                    let shared = format!("#/components/parameters/{name}\"");
                    assert!(named.contains(&own) || named.contains(&shared), "{path}: {name}");
                }
            }
        }
    }

    #[test]
    fn routes_are_found_in_a_source() {
        let source = "Router::new().route(\"/a\", get(a).post(b)).route(\"/b/{id}\", delete(c)); get(x)";
        assert_eq!(routes_in(source), ["get /a", "post /a", "delete /b/{id}"]);
    }
}

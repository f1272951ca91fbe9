//! `GET /openapi.json`: the API in OpenAPI 3.1, written by hand in `openapi.json` beside this
//! file. A test holds its paths and methods against the routes, both ways.

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
    let headers =
        [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "public, max-age=3600")];
    (headers, DOCUMENT).into_response()
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
                assert!(!operation["responses"]["200"]["content"].is_null(), "{method} {path}");
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

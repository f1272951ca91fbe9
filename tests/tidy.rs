//! The source itself is checked here: layering, doors, and a few rules that no lint knows.
//!
//! - `src/lib.rs` lists the modules in the order of the data flow; a module imports only from
//!   those before it.
//! - A crate with a door of its own is named behind that door alone; environment variables are
//!   read in `config` alone.
//! - Every metric of the list is set somewhere.
//! - No drawer for odds and ends, no skipped test, nothing left to do, no file that outgrew
//!   reading, and every `mod.rs` opens with what it is for.
//!
//! The rules are functions over text, and have tests of their own below.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a check of the source fails by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// The most lines of a file, its tests left out.
const FILE_LINES_MAX: usize = 600;

/// Crates, and the folders of `src` (or files) that may name them.
const DOORS: &[(&str, &[&str])] = &[
    ("scylla", &["store/cassandra"]),
    ("redis", &["hot/redis"]),
    ("fjall", &["store/embedded"]),
    ("axum", &["http", "node"]),
    ("axum_server", &["http", "node"]),
    ("utoipa", &["http"]),
    ("reqwest", &["cli"]),
    ("rcgen", &["http/tls"]),
];

/// The folder that reads environment variables.
const ENVIRONMENT_DOOR: &str = "config";

/// Names that say nothing about what is in a module.
const DRAWERS: &[&str] = &["util", "utils", "common", "helper", "helpers", "core", "misc", "shared"];

/// Macros that stand for code which is not there.
const UNWRITTEN: &[&str] = &["todo", "unimplemented"];

#[test]
fn modules_import_only_from_those_before_them() {
    let order = modules(&read(&source_root().join("lib.rs")));
    assert!(order.len() > 10, "src/lib.rs lists the modules: {order:?}");
    for (path, text) in sources() {
        report(&path, &upward_imports(&path, &text, &order));
    }
}

#[test]
fn crates_are_named_behind_their_doors() {
    for (path, text) in sources() {
        report(&path, &doors(&path, &text));
        report(&path, &environment(&path, &text));
    }
}

#[test]
fn modules_are_named_explained_and_not_too_long() {
    for (path, text) in sources() {
        report(&path, &names(&path, &text));
        report(&path, &opening(&path, &text));
        report(&path, &length(&text));
    }
}

#[test]
fn no_test_is_skipped_and_nothing_is_left_to_do() {
    let tests = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"));
    for (path, text) in sources().into_iter().chain(tests) {
        report(&path, &unfinished(&text));
    }
}

#[track_caller]
#[test]
fn every_metric_is_set_somewhere() {
    let list = "telemetry/metrics.rs";
    let all = sources();
    let text = &all.iter().find(|(path, _)| path == list).expect("the list of metrics").1;
    let fields = metric_fields(text);
    assert!(fields.len() > 20, "{fields:?}");
    let elsewhere: String =
        all.iter().filter(|(path, _)| path != list).map(|(_, text)| text.as_str()).collect();
    let unset: Vec<&String> =
        fields.iter().filter(|field| !elsewhere.contains(&format!(".{field}"))).collect();
    assert!(unset.is_empty(), "{list}: nothing sets {unset:?}");
}

/// The fields of the list of metrics: `field: Kind = "tapeline_…"`.
fn metric_fields(text: &str) -> Vec<String> {
    let field = |line: &str| {
        let (field, rest) = line.trim().split_once(": ")?;
        rest.contains("= \"tapeline_").then(|| field.to_owned())
    };
    text.lines().filter_map(field).collect()
}

fn report(path: &str, found: &[Finding]) {
    let lines: Vec<String> = found.iter().map(|(line, what)| format!("{path}:{line}: {what}")).collect();
    assert!(lines.is_empty(), "{}", lines.join("\n"));
}

fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The files of `src` as (path below `src`, text).
fn sources() -> Vec<(String, String)> {
    files(&source_root())
}

fn files(root: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
                found.push((name, read(&path)));
            }
        }
    }
    assert!(!found.is_empty(), "{} holds no source", root.display());
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

// The rules.

/// A line number and what is wrong there.
type Finding = (usize, String);

/// The modules that a crate's root declares, in order.
fn modules(lib: &str) -> Vec<String> {
    let tokens = tokens(lib);
    let declared = tokens.windows(3).filter(|three| three[0].is("mod") && three[2].is(";"));
    declared.map(|three| three[1].text.clone()).collect()
}

/// Paths to a module that comes later, through `crate::` or enough `super::`.
fn upward_imports(path: &str, text: &str, order: &[String]) -> Vec<Finding> {
    let segments = module_path(path);
    let Some(place) = segments.first().and_then(|first| order.iter().position(|module| module == first))
    else {
        return Vec::new(); // The roots, `lib.rs` and `main.rs`, see everything.
    };
    let tokens = tokens(text);
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let target = if token.is("crate") {
            at + 1
        } else if token.is("super") && !(at >= 2 && tokens[at - 1].is("::") && tokens[at - 2].is("super")) {
            let supers = tokens[at..].chunks(2).take_while(|pair| pair[0].is("super")).count();
            if supers < segments.len() + inline_modules(&tokens[..at]) {
                continue;
            }
            at + 2 * supers - 1
        } else {
            continue;
        };
        for name in first_names(&tokens, target) {
            if order.iter().position(|module| *module == name.text).is_some_and(|other| other > place) {
                found.push((name.line, format!("`{}` comes after `{}`", name.text, segments[0])));
            }
        }
    }
    found
}

/// The first names of a path that goes on with `::` at a token: one, or those of a group.
fn first_names(tokens: &[Token], at: usize) -> Vec<&Token> {
    let Some([colons, next, rest @ ..]) = tokens.get(at..) else { return Vec::new() };
    if !colons.is("::") {
        return Vec::new();
    }
    if !next.is("{") {
        return vec![next];
    }
    let mut names = Vec::new();
    let (mut depth, mut expects_name) = (1, true);
    for token in rest {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," if depth == 1 => {
                expects_name = true;
                continue;
            }
            _ if expects_name => names.push(token),
            _ => {}
        }
        expects_name = false;
        if depth == 0 {
            break;
        }
    }
    names
}

/// How many modules with a body are open after these tokens.
fn inline_modules(tokens: &[Token]) -> usize {
    let mut braces = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        if token.is("{") {
            braces.push(at >= 2 && tokens[at - 2].is("mod"));
        } else if token.is("}") {
            braces.pop();
        }
    }
    braces.into_iter().filter(|module| *module).count()
}

/// Crates named outside of their doors.
fn doors(path: &str, text: &str) -> Vec<Finding> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    for (name, allowed) in DOORS {
        if allowed.iter().any(|door| is_below(path, door)) {
            continue;
        }
        for (at, token) in tokens.iter().enumerate().filter(|(_, token)| token.is(name)) {
            let before = at.checked_sub(1).map(|at| &tokens[at]);
            let inside_a_path =
                before.is_some_and(|token| token.is("::") || token.is(".") || token.is("mod"));
            let path_begins = tokens.get(at + 1).is_some_and(|token| token.is("::"));
            let used = before.is_some_and(|token| token.is("use") || token.is("crate"));
            let grouped = inside_a_path && at >= 2 && tokens[at - 2].is("{");
            if (path_begins || used) && !inside_a_path || grouped {
                found.push((token.line, format!("`{name}` is named in {} alone", allowed.join(" and "))));
            }
        }
    }
    found
}

/// Environment variables read or set outside of their door, also through a flag's `env`.
fn environment(path: &str, text: &str) -> Vec<Finding> {
    if is_below(path, ENVIRONMENT_DOOR) {
        return Vec::new();
    }
    let calls = ["var", "var_os", "vars", "vars_os", "set_var", "remove_var"];
    let tokens = tokens(text);
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate().filter(|(_, token)| token.is("env")) {
        let called = first_names(&tokens, at + 1).iter().any(|name| calls.contains(&name.text.as_str()));
        if called || is_flag_attribute(&tokens[..at]) {
            found.push((token.line, format!("environment variables are read in {ENVIRONMENT_DOOR} alone")));
        }
    }
    found
}

/// Whether the tokens end inside of `#[arg(…` or `#[clap(…`.
fn is_flag_attribute(tokens: &[Token]) -> bool {
    let begins = tokens.windows(4).rposition(|four| {
        four[0].is("#") && four[1].is("[") && (four[2].is("arg") || four[2].is("clap")) && four[3].is("(")
    });
    begins.is_some_and(|at| tokens[at..].iter().all(|token| !token.is("]")))
}

/// Modules with a name that says nothing.
fn names(path: &str, text: &str) -> Vec<Finding> {
    let of_path = module_path(path).into_iter().map(|name| (1, name));
    let tokens = tokens(text);
    let declared =
        tokens.windows(2).filter(|two| two[0].is("mod")).map(|two| (two[1].line, two[1].text.clone()));
    of_path
        .chain(declared)
        .filter(|(_, name)| DRAWERS.contains(&name.as_str()))
        .map(|(line, name)| (line, format!("a module named `{name}` says nothing about what is in it")))
        .collect()
}

/// A `mod.rs` that does not open with its documentation.
fn opening(path: &str, text: &str) -> Vec<Finding> {
    let is_module = Path::new(path).file_name().is_some_and(|name| name == "mod.rs" || name == "lib.rs");
    if is_module && !text.starts_with("//!") {
        return vec![(1, "opens with what the module is for (`//!`)".to_owned())];
    }
    Vec::new()
}

/// A file that is too long to read, its module of tests left out.
fn length(text: &str) -> Vec<Finding> {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(2).position(|two| two[0] == "#[cfg(test)]" && two[1].starts_with("mod "));
    let count = tests.unwrap_or(lines.len());
    if count > FILE_LINES_MAX {
        return vec![(count, format!("{count} lines, {FILE_LINES_MAX} at most: split it by role"))];
    }
    Vec::new()
}

/// Skipped tests, and macros for code that is not there.
fn unfinished(text: &str) -> Vec<Finding> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let called = tokens.get(at + 1).is_some_and(|next| next.is("!"))
            && tokens.get(at + 2).is_some_and(|next| next.is("(") || next.is("[") || next.is("{"));
        let attribute = at >= 2 && tokens[at - 1].is("[") && tokens[at - 2].is("#");
        if attribute && token.is("ignore") {
            found.push((token.line, "a skipped test proves nothing".to_owned()));
        }
        if UNWRITTEN.contains(&token.text.as_str()) && called {
            found.push((token.line, format!("`{}!` is no code", token.text)));
        }
    }
    found
}

// Reading source.

/// `store/cassandra/mod.rs` is `[store, cassandra]`, `lib.rs` and `main.rs` are empty.
fn module_path(path: &str) -> Vec<String> {
    let mut segments: Vec<String> =
        path.trim_end_matches(".rs").split(['/', '\\']).map(str::to_owned).collect();
    let last = segments.last().map_or("", String::as_str);
    if last == "mod" || (segments.len() == 1 && (last == "lib" || last == "main")) {
        segments.pop();
    }
    segments
}

/// Whether a path is a folder's, or the file of the same name.
fn is_below(path: &str, door: &str) -> bool {
    let door: Vec<String> = door.split('/').map(str::to_owned).collect();
    module_path(path).starts_with(&door)
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    text: String,
    line: usize,
}

impl Token {
    fn is(&self, text: &str) -> bool {
        self.text == text
    }
}

/// Names, `::` and single signs; comments, texts, characters and lifetimes left out.
fn tokens(source: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = text_literal(rest) {
            length
        } else if first == '\'' {
            character_or_lifetime(rest)
        } else {
            let name: usize = rest
                .chars()
                .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
                .map(char::len_utf8)
                .sum();
            let length = match name {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                _ => name,
            };
            if !first.is_whitespace() {
                tokens.push(Token { text: rest[..length].to_owned(), line });
            }
            length
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    tokens
}

/// The length of a block comment, which may hold others.
fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of a text literal, with its prefix, where one begins here.
fn text_literal(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "r", "b", "c", ""].into_iter().find(|prefix| {
        text.strip_prefix(prefix).is_some_and(|rest| {
            rest.starts_with('"')
                || (prefix.ends_with('r')
                    && rest.trim_start_matches('#').starts_with('"')
                    && rest.starts_with('#'))
        })
    })?;
    let body = &text[prefix.len()..];
    if prefix.ends_with('r') {
        let hashes = body.len() - body.trim_start_matches('#').len();
        let end = format!("\"{}", "#".repeat(hashes));
        let from = prefix.len() + hashes + 1;
        return Some(text[from..].find(&end).map_or(text.len(), |at| from + at + end.len()));
    }
    let mut escaped = false;
    for (at, letter) in body.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(prefix.len() + at + 1),
            _ => {}
        }
    }
    Some(text.len())
}

/// The length of `'x'`, `'\n'`, `'\u{1f}'`, or of the mark in front of a lifetime's name.
fn character_or_lifetime(text: &str) -> usize {
    let mut letters = text.char_indices().skip(1);
    match (letters.next(), letters.next()) {
        (Some((_, '\\')), Some((escaped, _))) => {
            text[escaped + 1..].find('\'').map_or(text.len(), |at| escaped + 1 + at + 1)
        }
        (Some(_), Some((end, '\''))) => end + 1,
        (Some((start, _)), _) => {
            let name = text[start..].find(|letter: char| !letter.is_alphanumeric() && letter != '_');
            name.map_or(text.len(), |at| start + at).max(1)
        }
        _ => text.len(),
    }
}

mod tests {
    use super::*;

    const NONE: [usize; 0] = [];

    fn order() -> Vec<String> {
        modules("//! x\n\npub mod market;\npub mod store;\nmod tape; // pub mod fake;\npub mod http;\n")
    }

    fn lines(found: &[Finding]) -> Vec<usize> {
        found.iter().map(|(line, _)| *line).collect()
    }

    fn upward(path: &str, text: &str) -> Vec<usize> {
        lines(&upward_imports(path, text, &order()))
    }

    #[test]
    fn the_order_is_that_of_the_root() {
        assert_eq!(order(), ["market", "store", "tape", "http"]);
    }

    #[test]
    fn an_upward_import_is_found_in_every_form() {
        for text in [
            "use crate::tape::Frame;",
            "use crate::{market::Tick, tape};",
            "use crate::{market::{self, Tick}, store::x, tape::{Frame, y}};",
            "fn f() { crate::http::serve() }",
            "use super::tape::Frame;",
            "type T = super::super::x::Y<super::tape::Z>;",
            "mod tests { use super::super::tape::Frame; }",
        ] {
            assert_eq!(upward("store/mod.rs", text), [1], "{text}");
        }
        assert_eq!(upward("store/embedded/log.rs", "\nuse super::super::super::tape::X;"), [2]);
        assert_eq!(upward("market/price.rs", "use super::super::{store, http::X};"), [1, 1]);
    }

    #[test]
    fn what_stays_below_is_no_upward_import() {
        for text in [
            "use crate::market::Tick; use crate::store::Store; use crate::{market, store::x};",
            "use super::market;",
            "/// Unlike `crate::tape::Frame`.\n// crate::tape\n/* crate::http /* crate::http */ crate::http */",
            "const A: &str = \"crate::http\"; const B: &str = r#\"crate::\"http\"#; const C: &[u8] = b\"crate::tape\";",
            "mod tests { use super::tape::Fake; }",
            "use other::tape; use crate::store::tape::X;",
            "fn f<'a>(c: char) -> bool { c == '\"' || c == '\\'' || c == '\\u{7f}' }",
        ] {
            assert_eq!(upward("store/mod.rs", text), NONE, "{text}");
        }
        assert_eq!(upward("store/embedded/log.rs", "use super::super::tape::X;"), NONE);
        assert_eq!(upward("lib.rs", "use crate::http;"), NONE);
        assert_eq!(upward("main.rs", "use tapeline::http;"), NONE);
        let after_text = "const A: &str = \"x\\\"\"; use crate::tape::X;";
        assert_eq!(upward("store/mod.rs", after_text), [1]);
        assert_eq!(upward("store/mod.rs", "fn f<'a>() -> &'a str { crate::tape::x() }"), [1]);
    }

    #[test]
    fn a_crate_outside_of_its_door_is_found() {
        for (path, text) in [
            ("history/mod.rs", "use fjall::Keyspace;"),
            ("store/mod.rs", "fn f() -> scylla::Session { x() }"),
            ("cli/keys.rs", "use axum::Router;"),
            ("http/mod.rs", "let c = ::reqwest::Client::new();\nlet d = reqwest::get();"),
            ("market/tick.rs", "#[derive(utoipa::ToSchema)] struct X;"),
            ("hot/memory.rs", "extern crate redis;"),
        ] {
            assert_eq!(doors(path, text).len(), 1, "{path} {text}");
        }
        for (path, text) in [
            ("store/embedded/blocks.rs", "use fjall::Keyspace;"),
            ("store/cassandra.rs", "use scylla::client::Session;"),
            ("node/mod.rs", "use axum::Router;"),
            ("store/mod.rs", "pub mod cassandra; // scylla::x\nconst A: &str = \"scylla::x\";"),
            ("hot/mod.rs", "pub mod redis; fn f(redis: &str) { config.redis::<u8>(); let x = self.redis; }"),
        ] {
            assert_eq!(doors(path, text), [], "{path} {text}");
        }
    }

    #[test]
    fn environment_variables_are_found_outside_of_config() {
        for text in [
            "let x = std::env::var(\"A\");",
            "use std::env; fn f() { env::vars_os() }",
            "use std::env::{args, var};",
            "#[arg(long, env = \"A\")] a: String,",
            "#[arg(long, env)] a: String,",
        ] {
            assert_eq!(environment("cli/query.rs", text).len(), 1, "{text}");
            assert_eq!(environment("config/load.rs", text), [], "{text}");
        }
        for text in [
            "let v = env!(\"CARGO_PKG_VERSION\");",
            "std::env::args()",
            "#[arg(long)] env: String,",
            "// env::var",
        ] {
            assert_eq!(environment("cli/query.rs", text), [], "{text}");
        }
    }

    #[test]
    fn drawers_are_found_by_file_folder_and_declaration() {
        assert_eq!(names("http/util.rs", "").len(), 1);
        assert_eq!(names("common/mod.rs", "").len(), 1);
        assert_eq!(names("http/mod.rs", "mod helpers { }").len(), 1);
        assert_eq!(names("http/mod.rs", "mod utility; use std::core; // mod util"), []);
    }

    #[test]
    fn an_unexplained_module_is_found() {
        assert_eq!(opening("http/mod.rs", "use x;").len(), 1);
        assert_eq!(opening("http/mod.rs", "//! The doors.\nuse x;"), []);
        assert_eq!(opening("http/auth.rs", "use x;"), []);
    }

    #[test]
    fn a_long_file_is_found_and_tests_do_not_count() {
        let long = "x;\n".repeat(FILE_LINES_MAX + 1);
        assert_eq!(length(&long).len(), 1);
        assert_eq!(length(&"x;\n".repeat(FILE_LINES_MAX)), []);
        assert_eq!(length(&format!("x;\n#[cfg(test)]\nmod tests {{\n{long}}}\n")), []);
        assert_eq!(length(&format!("{long}#[cfg(test)]\nmod tests {{\n}}\n")).len(), 1);
    }

    #[test]
    fn skipped_tests_and_missing_code_are_found() {
        // Put together here, so that no search for such lines finds this one.
        let (skip, [todo, other]) =
            (["#[ig", "nore"].concat(), ["todo", "unimplemented"].map(|it| format!("{it}!")));
        let text = format!(
            "#[test]\n{skip}]\nfn f() {{\n {todo}()\n}}\n{skip} = \"slow\"]\nfn g() {{ {other}(\"x\") }}"
        );
        assert_eq!(lines(&unfinished(&text)), [2, 4, 6, 7]);
        let fine = &format!(
            "// {skip}] {todo}()\nconst A: &str = \"{todo}() {skip}]\";\nfn ignore() {{ let todo = 1; todo != 2 }}"
        );
        assert_eq!(lines(&unfinished(fine)), NONE);
    }

    #[test]
    fn metrics_are_read_from_their_list() {
        let text = "metrics! {\n    a_b: IntGauge = \"tapeline_a_b\", \"help\", [];\n    // no: \"x\"\n}";
        assert_eq!(metric_fields(text), ["a_b"]);
    }
}

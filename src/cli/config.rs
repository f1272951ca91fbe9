//! `tapeline config`: the configuration in effect.

use clap::Args;

use super::{CliError, NodeArgs, print};
use crate::config::Effective;

/// Arguments of `config`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  tapeline config                        # every key, its value, and where that came from
  tapeline config --config tapeline.toml --set http.request_ms=30000
  tapeline config --defaults > tapeline.toml")]
pub(super) struct ConfigArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Print the documented defaults instead
    #[arg(long)]
    defaults: bool,
}

pub(super) fn run(args: &ConfigArgs) -> Result<(), CliError> {
    if args.defaults {
        return print(crate::config::DEFAULTS);
    }
    print(&text(&args.node.load()?.effective))
}

/// TOML that could be a configuration file, with the source of each value as a comment.
fn text(effective: &Effective) -> String {
    let mut text = String::new();
    let mut section = "";
    for (key, value, source) in effective.rows() {
        let (of, name) = key.split_once('.').unwrap_or(("", key));
        if of != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{gap}[{of}]\n"));
            section = of;
        }
        text.push_str(&format!("{:<48} # {source}\n", format!("{name} = {value}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;

    #[test]
    fn it_prints_every_key_with_its_source_and_no_secret() {
        let canary = "canaryCANARYcanaryCANARYcanaryCANARYcanaryA";
        let layers = Layers {
            sets: vec!["http.request_ms=30_000".to_owned()],
            environment: vec![("TAPELINE__STORE__SEAL_KEY".to_owned(), canary.to_owned())],
            ..Layers::default()
        };
        let text = text(&layers.load().unwrap().effective);
        assert!(text.contains("\n[http]\nlisten = \"127.0.0.1:8080\""), "{text}");
        assert!(text.contains("request_ms = 30000") && text.contains("# flag --set"), "{text}");
        assert!(text.contains("# environment TAPELINE__STORE__SEAL_KEY"), "{text}");
        assert!(text.contains("seal_key = \"********\"") && !text.contains(canary), "{text}");
    }
}

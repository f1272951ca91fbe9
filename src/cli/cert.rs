//! `tapeline cert`: a certificate for development, and the authority that clients are to trust.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use rustls::pki_types::ServerName;

use super::{CliError, print};
use crate::http::tls::development::{Development, make};
use crate::market::Nanos;

/// Make a certificate for development: an authority of its own, and a certificate by it
///
/// Browsers and clients take it only where they are told to trust the authority (ca.pem). Its
/// private key is not kept: a new run makes another authority.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  tapeline cert --out certs
  tapeline cert --out certs --host md.example.test --host 192.0.2.7 --days 7
  tapeline serve --set http.tls_cert=certs/cert.pem --set http.tls_key=certs/key.pem")]
pub(super) struct CertArgs {
    /// Folder for ca.pem, cert.pem and key.pem; made where it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A name or address that clients call the node by; may be repeated
    #[arg(long = "host", value_name = "HOST", value_parser = host, default_values = ["localhost", "127.0.0.1", "::1"])]
    hosts: Vec<String>,
    /// How long the certificate is valid; browsers take at most 398 days
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=398))]
    days: u32,
    /// Replace files that are there
    #[arg(long)]
    force: bool,
}

/// A name or address that a certificate may be for; the first label of a name may be `*`.
fn host(text: &str) -> Result<String, String> {
    match ServerName::try_from(text.strip_prefix("*.").unwrap_or(text)) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => {
            Err("it must be a DNS name in ASCII or an address, such as md.example.test or 192.0.2.7"
                .to_owned())
        }
    }
}

/// Runs `tapeline cert`.
pub(super) fn run(args: &CertArgs) -> Result<(), CliError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let now = Nanos(i64::try_from(now).unwrap_or(i64::MAX));
    let made = make(&args.hosts, args.days, now)
        .map_err(|error| CliError::usage(format!("no certificate for {}: {error}", args.hosts.join(", "))))?;
    let [ca, cert, key] = write(&args.out, &made, args.force)?.map(|path| path.display().to_string());
    let host = args.hosts.first().map_or("localhost", String::as_str);
    print(&format!(
        "authority    {ca}\ncertificate  {cert}   for {}, {} days\nprivate key  {key}\n\n\
         Serve with it:\n  tapeline serve --set http.tls_cert={cert} --set http.tls_key={key}\n\
         A running node takes new files over by itself.\n\n\
         Let clients trust the authority:\n  \
         tapeline query … --url https://{host}:8080 --ca {ca}   # or TAPELINE_CA={ca}\n  \
         curl --cacert {ca} https://{host}:8080/openapi.json\n  \
         SSL_CERT_FILE={ca}         # Python and what uses OpenSSL\n  \
         NODE_EXTRA_CA_CERTS={ca}   # Node.js\n",
        args.hosts.join(", "),
        args.days,
    ))
}

/// Writes the three files; none of them where one is there and must not be replaced.
fn write(folder: &Path, made: &Development, force: bool) -> Result<[PathBuf; 3], CliError> {
    let failed = |path: &Path, error: &io::Error| CliError::failed(format!("{}: {error}", path.display()));
    fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
    let paths = ["ca.pem", "cert.pem", "key.pem"].map(|name| folder.join(name));
    if let Some(path) = paths.iter().find(|path| !force && path.exists()) {
        let message = format!("{} is there already", path.display());
        return Err(CliError::usage(message).next("--force replaces it, or name another folder with --out"));
    }
    for ((path, text), mode) in paths.iter().zip([&made.ca, &made.cert, &made.key]).zip([0o644, 0o644, 0o600])
    {
        replaced(path, text, mode).map_err(|error| failed(path, &error))?;
    }
    Ok(paths)
}

/// A new file in the place of what was there, whose mode would stay otherwise.
fn replaced(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::options().write(true).create_new(true).mode(mode).open(&beside)?.write_all(text.as_bytes())?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn args(out: &Path, hosts: &[&str], force: bool) -> CertArgs {
        let hosts = hosts.iter().map(ToString::to_string).collect();
        CertArgs { out: out.to_path_buf(), hosts, days: 3, force }
    }

    #[test]
    fn three_files_are_made_and_not_replaced_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("certs");
        run(&args(&out, &["localhost", "192.0.2.7", "::1"], false)).unwrap();
        let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
        let mode = |name: &str| fs::metadata(out.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("key.pem"), mode("cert.pem") & 0o600), (0o600, 0o600));
        let before = read("key.pem");
        assert!(before.starts_with("-----BEGIN PRIVATE KEY-----") && read("ca.pem") != read("cert.pem"));
        fs::remove_file(out.join("cert.pem")).unwrap();
        let error = run(&args(&out, &["localhost"], false)).unwrap_err();
        assert!(error.code() == 2 && error.to_string().contains("--force"), "{error}");
        assert!(read("key.pem") == before && !out.join("cert.pem").exists());
        fs::set_permissions(out.join("key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
        run(&args(&out, &["localhost"], true)).unwrap();
        assert!(read("key.pem") != before && mode("key.pem") == 0o600);
        assert_eq!(fs::read_dir(&out).unwrap().count(), 3);
    }

    #[test]
    fn a_host_is_a_name_or_an_address() {
        for good in ["localhost", "md.example.test", "*.example.test", "192.0.2.7", "::1"] {
            assert_eq!(host(good).as_deref(), Ok(good));
        }
        for bad in ["bad host!", "bücher.example", "", "*", "a.*.b", "http://a", "192.0.2.7:80"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }
}

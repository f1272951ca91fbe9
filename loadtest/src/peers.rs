//! What the same machine gives to others: Redis, nginx, a bare loop, the disk.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::floor::line_of;
use crate::readers::Schedule;
use crate::system::{Cores, Owned, now, pause};

/// A server of the machine's packages.
pub(crate) struct Peer {
    pub(crate) process: Owned,
    pub(crate) address: SocketAddr,
}

impl Peer {
    fn start(command: &mut Command, address: SocketAddr, cores: Cores) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let name = command.get_program().display().to_string();
        let started =
            cores.spawn(command).with_context(|| format!("{name}: `make redis-env nginx-env` installs it"));
        let process = Owned(started?);
        for _ in 0..100 {
            if TcpStream::connect(address).is_ok() {
                return Ok(Self { process, address });
            }
            pause(Duration::from_millis(50));
        }
        bail!("{name} does not listen on {address}")
    }

    /// Redis without persistence, that never closes a slow subscriber.
    pub(crate) fn redis(folder: &Path, cores: Cores) -> anyhow::Result<Self> {
        let address = free_address()?;
        let port = address.port().to_string();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"]);
        command.args(["--maxclients", "20000", "--client-output-buffer-limit", "pubsub 0 0 0"]);
        command.arg("--dir").arg(folder);
        Self::start(&mut command, address, cores)
    }

    /// nginx in one process, with a file of these bytes at `/latest`.
    pub(crate) fn nginx(folder: &Path, file: &[u8], cores: Cores) -> anyhow::Result<Self> {
        let (address, root) = (free_address()?, folder.join("nginx"));
        std::fs::create_dir_all(root.join("www"))?;
        std::fs::write(root.join("www/latest"), file)?;
        let own = root.display();
        let config = format!(
            "daemon off; master_process off; pid {own}/pid; error_log {own}/error.log;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;\n\
             open_file_cache max=16; default_type application/json;\n\
             client_body_temp_path {own}/t1; proxy_temp_path {own}/t2; fastcgi_temp_path {own}/t3;\n\
             uwsgi_temp_path {own}/t4; scgi_temp_path {own}/t5;\n\
             server {{ listen {address}; location / {{ root {own}/www; }} }} }}\n"
        );
        let path = root.join("nginx.conf");
        std::fs::write(&path, config)?;
        Self::start(Command::new("nginx").arg("-c").arg(&path), address, cores)
    }
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// The bare loop.
pub(crate) struct Floor {
    pub(crate) process: Owned,
    pub(crate) address: SocketAddr,
    commands: ChildStdin,
}

impl Floor {
    pub(crate) fn start(
        program: &Path,
        readers: usize,
        flags: &[&str],
        cores: Cores,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.args(["floor-send", "--readers", &readers.to_string()]).args(flags);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Owned(cores.spawn(&mut command)?);
        let said = process.0.stdout.take().context("no standard output")?;
        let commands = process.0.stdin.take().context("no standard input")?;
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        let address = line.trim().parse().context("the loop told no address")?;
        Ok(Self { process, address, commands })
    }

    pub(crate) fn publish(&mut self, schedule: &Schedule) -> anyhow::Result<()> {
        self.commands.write_all(line_of(schedule).as_bytes())?;
        Ok(self.commands.flush()?)
    }
}

/// A plain server that answers by Redis.
pub(crate) fn feed(redis: &Peer, keys: usize, cores: Cores) -> anyhow::Result<Peer> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["floor-feed", "--redis", &redis.address.to_string(), "--keys", &keys.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = Owned(cores.spawn(&mut command)?);
    let said = process.0.stdout.take().context("no standard output")?;
    let mut line = String::new();
    BufReader::new(said).read_line(&mut line)?;
    let address = line.trim().parse().context("the server told no address")?;
    Ok(Peer { process, address })
}

/// The median of a small append with `fdatasync`, in nanoseconds.
pub(crate) fn fdatasync(folder: &Path) -> anyhow::Result<u64> {
    let mut file = std::fs::File::create(folder.join("fdatasync"))?;
    let mut times = Vec::new();
    for _ in 0..300 {
        let before = now();
        file.write_all(&[7; 512])?;
        file.sync_data()?;
        times.push(now() - before);
    }
    times.sort_unstable();
    Ok(times.get(times.len() / 2).copied().unwrap_or(0))
}

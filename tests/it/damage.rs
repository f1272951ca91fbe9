//! Damaged files and full disks: an error by name, never a wrong price, and recovery.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::node::{Node, quote, trade};

const TIME: i64 = 1_704_292_200_000_000_000;

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").filter_map(Result::ok) {
        if entry.path().is_dir() { found.extend(files(&entry.path())) } else { found.push(entry.path()) }
    }
    found.sort();
    found
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).expect("inside"));
        std::fs::create_dir_all(target.parent().expect("a parent")).expect("a folder");
        std::fs::copy(&file, &target).expect("a copy");
    }
}

/// Reads what can be read; an error must have a name.
async fn prices(node: &Node) -> Option<Vec<Value>> {
    let mut all = Vec::new();
    for kind in ["trades", "quotes"] {
        let got = node.get(&format!("/v2/stocks/{kind}?symbols=DAMAGE&limit=10000&start=2024-01-01")).await;
        if got.status != 200 {
            assert_eq!((got.status, got.json["reason"].as_str()), (501, Some("corrupt")), "{}", got.json);
            return None;
        }
        all.extend(got.json[kind]["DAMAGE"].as_array().cloned().unwrap_or_default());
    }
    Some(all)
}

#[tokio::test]
async fn flipped_bytes_of_every_stored_file_never_show_a_wrong_price() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(folder.path(), &["--set", "history.linger_ms=200"]);
    node.start().await;
    let ticks: Vec<Value> = (0..200)
        .map(|i| if i % 2 == 0 { trade("DAMAGE", i, TIME + 1) } else { quote("DAMAGE", i, TIME + 2) })
        .collect();
    assert_eq!(node.post_ticks(&ticks, "", None).await.status, 200);
    let want = prices(&node).await.expect("undamaged");
    assert_eq!(want.len(), 200);
    node.stop().await;
    let original = folder.path().join("data");
    let (mut refused, mut served) = (0, 0);
    for (number, file) in files(&original).iter().enumerate() {
        let bytes = std::fs::read(file).expect("a file");
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        if used == 0 {
            continue;
        }
        for part in [0, 1, 3, 7] {
            let at = used * part / 8;
            let damaged = tempfile::tempdir().expect("a folder");
            copy_folder(&original, &damaged.path().join("data"));
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (number % 8);
            std::fs::write(
                damaged.path().join("data").join(file.strip_prefix(&original).expect("inside")),
                flipped,
            )
            .expect("a file");
            let mut other = Node::new(damaged.path(), &[]);
            (other.read, other.write) = (node.read.clone(), node.write.clone());
            let what = format!("{} at {at}", file.display());
            match other.try_start().await {
                Err(problem) => {
                    assert!(!problem.contains("cut short"), "{what}: a panic is no name: {problem}");
                    assert!(problem.contains("error"), "{what}: the refusal has no name: {problem}");
                    refused += 1;
                }
                Ok(()) => {
                    if let Some(found) = prices(&other).await {
                        assert_eq!(found, want, "{what}");
                        served += 1;
                    } else {
                        refused += 1;
                    }
                    other.kill().await;
                }
            }
        }
    }
    assert!(refused > 0 && served > 0, "{refused} refused, {served} served");
}

/// A small file system of its own, mounted in a namespace that a process holds: nobody needs to be
/// root for it.
struct SmallDisk {
    holder: std::process::Child,
    mounted_at: PathBuf,
}

impl SmallDisk {
    fn mount(at: &Path, mib: u64) -> Self {
        std::fs::create_dir_all(at).expect("a folder");
        let script = format!("mount -t tmpfs -o size={mib}m tapeline-test \"$0\" && echo && exec sleep 600");
        let mut holder = Command::new("unshare")
            .args(["--mount", "--map-root-user", "sh", "-c", &script])
            .arg(at)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("unshare, of util-linux");
        let mut line = [0];
        let told = std::io::Read::read_exact(holder.stdout.as_mut().expect("piped"), &mut line);
        told.expect("user namespaces are allowed, so that a small disk can be mounted");
        Self { holder, mounted_at: at.to_owned() }
    }

    /// What runs a program where the disk is mounted.
    fn prefix(&self) -> Vec<String> {
        let holder = self.holder.id().to_string();
        let words = ["nsenter", "--mount", "--user", "--preserve-credentials", "--target", &holder];
        words.map(str::to_owned).to_vec()
    }

    /// The disk as seen from here.
    fn path(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.mounted_at.strip_prefix("/").expect("an absolute path"))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Trades that compress badly: scattered times and sizes.
fn fill(batch: u64) -> (std::ops::Range<u64>, Vec<Value>) {
    let ids = 2 + batch * 2000..2 + (batch + 1) * 2000;
    let scattered = |i: u64| {
        let time = TIME + i64::try_from(i * 7919 % 1_000_003).expect("small");
        let mut tick = trade("FULL", i, time);
        tick["s"] = (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33).into();
        tick
    };
    (ids.clone(), ids.map(scattered).collect())
}

#[tokio::test]
async fn a_full_disk_stops_intake_by_name_and_intake_recovers() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = SmallDisk::mount(&folder.path().join("data"), 64);
    let mut node =
        Node::new(folder.path(), &["--set", "store.segment_bytes=1048576", "--set", "history.linger_ms=200"]);
    node.prefix = disk.prefix();
    node.start().await;
    assert_eq!(node.post_ticks(&[trade("FULL", 1, TIME)], "", None).await.status, 200);
    let filler = disk.path().join("filler");
    // Fill what is left, then post until what was allocated before is full too.
    let mut file = std::fs::File::create(&filler).expect("space");
    while std::io::Write::write_all(&mut file, &[1; 1 << 16]).is_ok() {}
    drop(file);
    let mut acked = BTreeSet::from([1]);
    let mut refusal = None;
    for batch in 0..3_000_u64 {
        let (ids, ticks) = fill(batch);
        let got = node.post_ticks(&ticks, "?backfill=true", Some(&format!("full {batch}"))).await;
        match got.status {
            200 => acked.extend(ids),
            // The frames in flight when the disk filled: nobody can say yet, and so it is said.
            503 if got.json["outcome"] == "unknown" => {}
            503 => {
                refusal = Some((got, batch));
                break;
            }
            other => panic!("{other}: {}", got.json),
        }
    }
    let (refusal, batch) = refusal.expect("a disk of 64 MiB fills");
    let message = refusal.json["message"].as_str().unwrap_or_default().to_lowercase();
    assert!(message.contains("disk") || message.contains("space"), "{}", refusal.json);
    assert!(refusal.headers.contains_key("Retry-After"));
    assert!(!node.history("trades", "FULL", "").await.is_empty(), "reads go on");
    std::fs::remove_file(&filler).expect("space again");
    let (ids, ticks) = fill(batch);
    let mut recovered = false;
    for _ in 0..600 {
        let got = node.post_ticks(&ticks, "?backfill=true", Some(&format!("full {batch}"))).await;
        if got.status == 200 {
            recovered = true;
            acked.extend(ids);
            break;
        }
        assert_eq!(got.status, 503, "{}", got.json);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(recovered, "intake goes on when there is space again");
    node.kill().await;
    node.start().await;
    let found: BTreeSet<u64> =
        node.history("trades", "FULL", "").await.iter().filter_map(|tick| tick["i"].as_u64()).collect();
    let lost: Vec<_> = acked.difference(&found).take(5).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    node.stop().await;
}

#[tokio::test]
async fn a_second_node_in_the_same_folder_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new(folder.path(), &[]);
    node.start().await;
    let other_ready = tempfile::tempdir().expect("a folder");
    let mut other = Node::new(folder.path(), &[]);
    std::fs::rename(folder.path().join("ready.json"), other_ready.path().join("ready.json")).expect("a file");
    let problem = other.try_start().await.expect_err("one process at a time holds a store");
    assert!(problem.contains("held by process"), "{problem}");
    assert_eq!(node.post_ticks(&[trade("ONE", 1, TIME)], "", None).await.status, 200);
    node.stop().await;
}

/// The store opens, for only the body of one frame is damaged; but no block has its ticks yet.
#[tokio::test]
async fn a_damaged_frame_that_is_in_no_block_is_an_error_and_not_a_hole() {
    let folder = tempfile::tempdir().expect("a folder");
    let small = ["store.segment_bytes=65536", "tape.frame_bytes_max=16384", "tape.flush_bytes=8192"];
    let flags: Vec<&str> =
        small.into_iter().chain(["history.linger_ms=3600000"]).flat_map(|set| ["--set", set]).collect();
    let mut node = Node::new(folder.path(), &flags);
    node.start().await;
    for batch in 0..12 {
        let (_, ticks) = fill(batch);
        assert_eq!(node.post_ticks(&ticks, "", None).await.count("accepted"), 2_000);
    }
    assert_eq!(node.history("trades", "FULL", "").await.len(), 24_000);
    node.kill().await;
    let first = folder.path().join("data/store/tapes/0000000000000001.log");
    let mut bytes = std::fs::read(&first).expect("a segment");
    assert!(files(&folder.path().join("data/store/tapes")).len() > 1, "the first segment is finished");
    let at = bytes.windows(4).rposition(|window| window == b"TLRC").expect("a record") + 100;
    bytes[at] ^= 1;
    std::fs::write(&first, bytes).expect("a segment");
    node.start_unready().await.expect("the doors open");
    let mut answers = BTreeSet::new();
    while !answers.contains("corrupt") {
        for path in ["/v2/stocks/trades?symbols=FULL&start=2024-01-01&limit=10000", "/v1/symbols"] {
            let got = node.get(path).await;
            assert_ne!(got.status, 200, "ticks are missing, and so it is said: {}", got.json);
            answers.insert(got.json["reason"].as_str().unwrap_or_default().to_owned());
        }
    }
    let known = BTreeSet::from(["catching_up".to_owned(), "corrupt".to_owned()]);
    assert!(answers.is_subset(&known), "{answers:?}");
    assert!(node.log().contains("0000000000000001.log"), "the log names the place");
    assert_eq!(node.stop().await, Some(0), "also one that is never ready stops when it is told to");
}

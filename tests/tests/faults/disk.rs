//! A disk that is full.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use innkeeper::database_url::DatabaseUrl;
use innkeeper_tests::server::OwnServer;
use serde_json::json;

use crate::stage::Stage;

/// A file system in memory, of which little is left when the databases are made.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64m,mode=0777", "tmpfs"])
            .arg(folder.path())
            .output()
            .expect("there is `mount`");
        assert!(
            mounted.status.success(),
            "this test fills a disk of its own, which only root may make (in a container, one that may \
             mount): {}",
            String::from_utf8_lossy(&mounted.stderr)
        );
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes what is left.
    fn fill(&self) {
        let mut file = File::create(self.path().join("filler")).expect("a file can be made");
        for size in [1 << 20, 1 << 12, 1] {
            let bytes = vec![0; size];
            while file.write_all(&bytes).is_ok() {}
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.path().join("filler")).expect("it was filled");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is on its way out may still have a file open.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Handlers run in every slot, and executions wait whose results need room.
async fn until_full(stage: &mut Stage, disk: &SmallDisk) {
    stage.hold(8).await;
    let noise = (0..700).map(|_| uuid::Uuid::new_v4().to_string()).collect::<Vec<_>>();
    stage.enqueue("echo", 60, &json!({ "noise": noise })).await;
    disk.fill();
    stage.release().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_waits_for_room_on_the_disk_of_its_server() {
    let disk = SmallDisk::new();
    let server = OwnServer::start(&["autovacuum=off"]).await;
    server.execute(&format!("create tablespace small location '{}'", server.give(disk.path()))).await;
    let (mut stage, _relay) = Stage::on(&server, "tablespace small").await;
    until_full(&mut stage, &disk).await;
    stage.until_unready("the disk of the database server is full, make room there").await;
    disk.make_room();
    stage.all_ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_waits_for_room_on_the_disk_of_its_file() {
    let disk = SmallDisk::new();
    let file = disk.path().join("innkeeper.db");
    let url = format!("sqlite:{}", file.display());
    let mut stage = Stage::at(&DatabaseUrl::Sqlite(file), &url, "").await;
    until_full(&mut stage, &disk).await;
    stage.until_unready("the disk with the file of the store is full, make room there").await;
    disk.make_room();
    stage.all_ends_well().await;
}

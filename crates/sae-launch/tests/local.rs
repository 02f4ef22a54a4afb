//! The local launcher with jobs that do what a script says: none is left behind, and nothing is lost, whatever ends it.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.
#![cfg(unix)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sae_config::SweepConfig;
use sae_config::sweep::MOST_RUNS;
use sae_launch::{Launcher, Local, Outcome, Settings, Show, Sweep};

/// The launcher in a process of its own, so that signals reach it alone: this very binary, as [`as_a_process`].
fn launch(place: &Path, sae: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "as_a_process", "--nocapture"]);
    command.env(OUT, place.join("runs")).env(SAE, sae).current_dir(root());
    command
}

const OUT: &str = "LAUNCH_OUT";
const SAE: &str = "LAUNCH_SAE";
const JOBS: &str = "LAUNCH_JOBS";
const QUIET: &str = "LAUNCH_QUIET";

/// Launches a sweep and ends with a code that says how that went, where the environment asks for it.
#[test]
fn as_a_process() {
    let (Ok(out), Ok(sae)) = (std::env::var(OUT), std::env::var(SAE)) else { return };
    let manifest = SweepConfig::load(&config()).unwrap().expand(MOST_RUNS).unwrap().into();
    let pin = &mut |_: &mut _| Err("no run of it is of the hub".into());
    let jobs = std::env::var(JOBS).ok().map(|jobs| jobs.parse().unwrap());
    let show = if std::env::var(QUIET).is_ok() { Show::Quiet } else { Show::Json };
    let launched = Sweep::write(manifest, Path::new(&out), sae.into(), pin).and_then(|sweep| {
        Local::new(Settings { jobs, show, ..Settings::default() }).launch(&sweep)
    });
    let code = match launched {
        Ok(Outcome::Finished) => 0,
        Ok(Outcome::Failed(_)) => 1,
        Ok(Outcome::Prepared(how)) => panic!("{how}"),
        Ok(Outcome::Interrupted) => 130,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            2
        }
    };
    std::process::exit(code);
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A sweep of three jobs.
fn config() -> PathBuf {
    root().join("configs/sweeps/rust-lm.toml")
}

/// A binary that does for a job what the script says; `$1` is the job: the last argument but those that name its device.
fn fake(place: &Path, script: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = place.join("sae");
    let text = format!(
        "#!/bin/sh\nlast=\nwhile [ $# -gt 0 ]; do case $1 in --device|--progress) shift;; *) last=$1;; esac; shift; done\n\
         set -- \"$last\"\n{script}\n"
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn is_running(pid: &Path) -> bool {
    let pid = std::fs::read_to_string(pid).unwrap();
    Command::new("kill").args(["-0", pid.trim()]).stderr(Stdio::null()).status().unwrap().success()
}

#[test]
fn no_job_is_left_running_when_a_later_one_cannot_start() {
    let place = tempfile::tempdir().unwrap();
    let pid = place.path().join("pid");
    // The second job takes the binary away, and the third cannot start.
    let script = format!(
        "case $1 in 0) echo $$ > {pid:?}; exec sleep 100;; 1) while ! [ -s {pid:?} ]; do sleep 0.05; done; rm \"$0\";; esac"
    );
    let sae = fake(place.path(), &script);
    let began = std::time::Instant::now();
    let output = launch(place.path(), &sae).env(JOBS, "2").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("cannot start"), "{said}");
    assert!(began.elapsed().as_secs() < 60 && !is_running(&pid), "{said}");
}

#[test]
fn a_sweep_goes_on_where_nobody_can_read_what_it_says() {
    let place = tempfile::tempdir().unwrap();
    let done = place.path().join("done");
    let sae = fake(place.path(), &format!("echo said; echo told >&2; echo $1 >> {done:?}"));
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let status = launch(place.path(), &sae).stderr(full).status().unwrap();
    // All three jobs, and the analysis of the folder, whose name is its last argument.
    let done = std::fs::read_to_string(done).unwrap();
    assert_eq!(done.lines().take(3).collect::<Vec<_>>(), ["0", "1", "2"]);
    assert!(status.success() && done.lines().nth(3).unwrap().ends_with("rust-lm"), "{done}");
}

#[test]
fn a_job_that_fails_is_named_and_the_others_go_on() {
    let place = tempfile::tempdir().unwrap();
    let done = place.path().join("done");
    let sae = fake(place.path(), &format!("case $1 in 1) exit 3;; esac; echo $1 >> {done:?}"));
    let output = launch(place.path(), &sae).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("job 1, e2e ×4: FAILED") && said.contains("job 2"), "{said}");
    let done = std::fs::read_to_string(done).unwrap();
    assert_eq!(done.lines().take(2).collect::<Vec<_>>(), ["0", "2"]);
}

/// Events become lines with a run's numbers; what is no event is shown as it is.
#[test]
fn progress_is_told_with_its_numbers() {
    let place = tempfile::tempdir().unwrap();
    let event = |text: &str| format!("echo '{text}'; ");
    let script = [
        event(r#"{"event":"began","phase":"train","total":100,"tokens_per_unit":1000}"#),
        event(r#"{"event":"advanced","done":0,"message":""}"#),
        "sleep 16; ".to_owned(),
        event(r#"{"event":"advanced","done":50,"message":"a","runs":[{"run":"a","values":[["loss",0.5],["l0",12]]}]}"#),
        event("a line of its own"),
    ]
    .concat();
    let sae = fake(place.path(), &format!("case $1 in 0) {script};; esac"));
    let output = launch(place.path(), &sae).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("local ×4: a line of its own"), "{said}");
    assert!(said.contains("train 50/100, loss 0.500, L0 12.0 · "), "{said}");
    let events = String::from_utf8_lossy(&output.stdout);
    let advanced = events.lines().rfind(|line| line.contains("advanced")).unwrap();
    let advanced: serde_json::Value = serde_json::from_str(advanced).unwrap();
    assert_eq!((&advanced["job"], &advanced["done"]), (&0.into(), &50.into()));
    assert_eq!(advanced["runs"][0]["values"], serde_json::json!([["loss", 0.5], ["l0", 12.0]]));
}

/// Without a word but those of jobs and of failures.
#[test]
fn a_quiet_launcher_says_what_fails() {
    let place = tempfile::tempdir().unwrap();
    let sae = fake(place.path(), "case $1 in 1) exit 3;; 2) echo a warning >&2;; esac");
    let output = launch(place.path(), &sae).env(QUIET, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(
        lines[0].starts_with("▸ job 1, e2e ×4: FAILED") && lines[1].ends_with("a warning"),
        "{said}"
    );
}

/// Sends SIGTERM to the launcher alone, as a batch system does, while what the condition names is running.
fn terminated_while(condition: &str) {
    let place = tempfile::tempdir().unwrap();
    let pid = place.path().join("pid");
    let script = format!("case $1 in {condition}) echo $$ > {pid:?}; exec sleep 100;; esac");
    let sae = fake(place.path(), &script);
    let mut child = launch(place.path(), &sae).stderr(Stdio::null()).spawn().unwrap();
    wait_for(&pid);
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!is_running(&pid));
}

#[test]
fn a_terminated_sweep_ends_its_jobs_or_its_analysis() {
    // The last argument of a job is its number, that of the analysis the sweep's folder.
    terminated_while("0");
    terminated_while("*/rust-lm");
}

/// Waits until a fake job has written its process's number.
fn wait_for(pid: &Path) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
    while !std::fs::read_to_string(pid).is_ok_and(|text| !text.is_empty()) {
        assert!(std::time::Instant::now() < deadline, "no job is started");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// A sweep's folder keeps the manifest that it has, and refuses another sweep's.
#[test]
fn a_folder_is_of_one_sweep() {
    let place = tempfile::tempdir().unwrap();
    let sae = fake(place.path(), "true");
    assert!(launch(place.path(), &sae).output().unwrap().status.success());
    let manifest = place.path().join("runs/rust-lm/manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    assert!(launch(place.path(), &sae).output().unwrap().status.success());
    assert_eq!(std::fs::read_to_string(&manifest).unwrap(), text);
    // One that was begun elsewhere goes on with what lies here.
    let elsewhere = text.replace("/data/rust-lm\"", "/elsewhere/rust-lm\"");
    assert_ne!(elsewhere, text);
    std::fs::write(&manifest, elsewhere).unwrap();
    assert!(launch(place.path(), &sae).output().unwrap().status.success());
    assert_eq!(std::fs::read_to_string(&manifest).unwrap(), text);
    std::fs::write(&manifest, text.replace("\"seed\": 0", "\"seed\": 9")).unwrap();
    let output = launch(place.path(), &sae).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("holds another sweep"), "{said}");
}

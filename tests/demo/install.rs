//! `purser install --apply` on a real API server: everything is accepted, and doing it again changes nothing.

use super::{command, text};

#[test]
fn an_installation_is_accepted_and_accepted_again() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("cluster").display().to_string();
    let up = command(&["cluster", "up", "--dir", &dir]).output().expect("the binary runs");
    assert!(up.status.success(), "{}", text(&up.stderr));
    let kubeconfig = text(&up.stdout).trim().to_owned();
    let install = || {
        let args = ["install", "--image", "purser:test", "--ledger", "s3://finance/purser", "--apply", "--kubeconfig", &kubeconfig];
        command(&args).output().expect("the binary runs")
    };
    let (first, second) = (install(), install());
    let down = command(&["cluster", "down", "--dir", &dir]).output().expect("the binary runs");

    for ran in [&first, &second] {
        assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
        for object in ["customresourcedefinition trainingjobs.purser.dev", "clusterrole purser", "deployment purser", "validatingwebhookconfiguration purser"] {
            assert!(text(&ran.stdout).contains(&format!("{object} applied")), "{object}: {}", text(&ran.stdout));
        }
    }
    assert!(down.status.success(), "{}", text(&down.stderr));
}

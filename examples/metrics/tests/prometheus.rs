//! What the example's exporter says is read back, line by line.

use std::collections::HashMap;
use std::process::Command;

#[test]
fn prometheus_reads_times_and_counts() {
    let run = || {
        let output = Command::new(env!("CARGO_BIN_EXE_metrics-example"))
            .output()
            .unwrap();
        let report = String::from_utf8(output.stderr.clone()).unwrap();
        (output, report)
    };
    // A machine may be so busy that the slow one is stuck, too; not each time.
    let (output, report) = (0..10)
        .map(|_| run())
        .find(|(_, report)| !report.contains("stuck: slow"))
        .expect("the slow one has never ended in time");
    assert!(output.status.success(), "{report}");
    assert!(
        report.contains("stuck: deaf (") && report.contains("not polled since the cancel"),
        "{report}"
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let samples: HashMap<&str, f64> = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name, value.parse().unwrap()))
        .collect();
    let value = |name: &str| {
        *samples
            .get(name)
            .unwrap_or_else(|| panic!("no {name} in\n{text}"))
    };
    for kind in [
        "cancel_tree_gone_seconds histogram",
        "cancel_tree_cancels_total counter",
    ] {
        assert!(text.contains(&format!("# TYPE {kind}")), "{text}");
    }
    assert_eq!(
        value(r#"cancel_tree_gone_seconds_count{task="polite"}"#),
        1.0
    );
    assert_eq!(
        value(r#"cancel_tree_first_poll_seconds_count{task="slow"}"#),
        1.0
    );
    assert!(value(r#"cancel_tree_gone_seconds_sum{task="slow"}"#) >= 0.02);
    assert_eq!(
        value(r#"cancel_tree_tasks_total{task="deaf",outcome="stuck"}"#),
        1.0
    );
    assert_eq!(
        value(r#"cancel_tree_tasks_total{task="deaf",outcome="forced"}"#),
        1.0
    );
    assert_eq!(
        value(r#"cancel_tree_cancels_total{name="server",kind="cancelled"}"#),
        1.0
    );
    assert_eq!(
        value(r#"cancel_tree_requests_total{outcome="received"}"#),
        1.0
    );
}

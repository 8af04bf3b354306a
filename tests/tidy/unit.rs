//! The systemd unit: it parses, starts what the package installs, and keeps the walls that the documentation promises.

use super::repository::text;

#[test]
fn the_unit_starts_the_daemon_behind_its_walls() {
    let unit = parse(&text("deploy/systemd/liveqos.service"));
    let value = |section: &str, key: &str| -> Vec<&str> {
        let found = unit.iter().filter(|(s, k, _)| s == section && k == key);
        found.map(|(_, _, value)| value.as_str()).collect()
    };
    for (section, key, wanted) in KEYS {
        assert_eq!(value(section, key), [*wanted], "{key} of [{section}]");
    }
    let families = value("Service", "RestrictAddressFamilies").concat();
    let mut families: Vec<_> = families.split_whitespace().collect();
    families.sort_unstable();
    assert_eq!(families, ["AF_INET", "AF_INET6", "AF_NETLINK", "AF_UNIX"]);
    assert!(value("Service", "CapabilityBoundingSet") == [""], "no capability is needed");
}

#[test]
fn the_unit_runs_as_the_user_that_is_made() {
    let made = text("deploy/systemd/liveqos.sysusers");
    let user = made.lines().find(|line| line.starts_with("u ")).expect("a user is made");
    assert_eq!(user.split_whitespace().nth(1), Some("liveqos"));
}

#[test]
#[should_panic(expected = "line 2")]
fn a_line_that_is_no_setting_is_refused() {
    parse("[Unit]\nnonsense\n");
}

/// Section, key and value of each setting.
fn parse(text: &str) -> Vec<(String, String, String)> {
    let mut section = String::new();
    let mut out = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else {
            let setting = line.split_once('=').filter(|_| !section.is_empty());
            let (key, value) = setting.unwrap_or_else(|| panic!("line {} is no setting: {line}", number + 1));
            out.push((section.clone(), key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    out
}

const KEYS: &[(&str, &str, &str)] = &[
    ("Service", "Type", "notify"),
    ("Service", "WatchdogSec", "10"),
    ("Service", "ExecStart", "/usr/bin/liveqos run --config /etc/liveqos/liveqos.toml"),
    ("Service", "ExecReload", "/bin/kill -HUP $MAINPID"),
    ("Service", "Restart", "always"),
    ("Service", "User", "liveqos"),
    ("Service", "DynamicUser", "no"),
    ("Service", "StateDirectory", "liveqos"),
    ("Service", "ConfigurationDirectory", "liveqos"),
    ("Service", "ProtectSystem", "strict"),
    ("Service", "NoNewPrivileges", "yes"),
    ("Service", "PrivateNetwork", "no"),
    ("Service", "ProcSubset", "all"),
    ("Service", "ProtectProc", "default"),
    ("Service", "MemoryMax", "256M"),
    ("Service", "CPUQuota", "50%"),
    ("Install", "WantedBy", "multi-user.target"),
];

//! Reads from `/proc` which programs run on this host and on which TCP ports they listen. What may not be read is
//! omitted, and absent in the result.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use liveqos_core::base::hex;

/// Processes of one program that listen on the same sockets, as a master and its workers do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// The process name, as in `/proc/<pid>/comm` (at most 15 bytes, proc(5)).
    pub name: String,
    /// The process ids, ascending.
    pub pids: Vec<u32>,
    /// The addresses on which it listens; `None` if its open files may not be read, which requires root or the same
    /// user.
    pub listens: Option<BTreeSet<SocketAddr>>,
}

/// All listening TCP sockets of this host (in this network namespace) by inode, from `<proc>/net/tcp` and `tcp6`.
pub(crate) fn listening(proc: &Path) -> HashMap<u64, SocketAddr> {
    let mut sockets = HashMap::new();
    for table in ["net/tcp", "net/tcp6"] {
        let Ok(file) = File::open(proc.join(table)) else {
            continue;
        };
        // The kernel lists listening sockets first (`tcp_seq_start` in net/ipv4/tcp_ipv4.c), so the lines of 100,000
        // viewers are not read.
        let lines = BufReader::new(file).lines().map_while(Result::ok).skip(1).take(MAX_SOCKETS);
        sockets.extend(lines.map_while(|line| listener(&line)));
    }
    sockets
}

/// The programs whose name `wanted` accepts, in the order of their first process.
pub(crate) fn programs(proc: &Path, sockets: &HashMap<u64, SocketAddr>, wanted: impl Fn(&str) -> bool) -> Vec<Program> {
    let entries = fs::read_dir(proc).into_iter().flatten().filter_map(Result::ok).take(MAX_PROCESSES);
    let mut pids: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    let mut groups: BTreeMap<(String, Option<BTreeSet<SocketAddr>>), Vec<u32>> = BTreeMap::new();
    for pid in pids {
        let folder = proc.join(pid.to_string());
        // The process may have ended since the folder was listed.
        let Ok(name) = fs::read_to_string(folder.join("comm")) else {
            continue;
        };
        let name = name.trim_end_matches('\n');
        if wanted(name) {
            let listens = listens(&folder.join("fd"), sockets);
            groups.entry((name.to_owned(), listens)).or_default().push(pid);
        }
    }
    let mut programs: Vec<Program> =
        groups.into_iter().map(|((name, listens), pids)| Program { name, pids, listens }).collect();
    programs.sort_by_key(|program| program.pids.first().copied());
    programs
}

/// The addresses on which a process listens, by its open files; `None` if they may not be read.
fn listens(folder: &Path, sockets: &HashMap<u64, SocketAddr>) -> Option<BTreeSet<SocketAddr>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).ok()?.filter_map(Result::ok).take(MAX_FILES) {
        let Ok(target) = fs::read_link(entry.path()) else {
            continue;
        };
        let inode = target.to_str().and_then(|target| target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        found.extend(inode.and_then(|inode: u64| sockets.get(&inode)));
    }
    Some(found)
}

/// Inode and address of a line of `/proc/net/tcp`, if the socket listens (state `0A`).
fn listener(line: &str) -> Option<(u64, SocketAddr)> {
    let mut fields = line.split_ascii_whitespace();
    let (local, state) = (fields.nth(1)?, fields.nth(1)?);
    let inode = fields.nth(5)?.parse().ok()?;
    let (address, port) = local.split_once(':')?;
    let port = u16::try_from(hex::number(port.as_bytes())?).ok()?;
    (state == LISTEN).then_some((inode, SocketAddr::new(address_of(address)?, port)))
}

/// The kernel prints each 32-bit word of an address in the machine's byte order.
fn address_of(text: &str) -> Option<IpAddr> {
    let digits = text.as_bytes();
    let word = |at: usize| Some(u32::try_from(hex::number(digits.get(at..at + 8)?)?).ok()?.to_ne_bytes());
    match digits.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (part, at) in bytes.chunks_exact_mut(4).zip((0..32).step_by(8)) {
                part.copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

/// The state of a listening socket: `TCP_LISTEN` in `include/net/tcp_states.h`.
const LISTEN: &str = "0A";
/// Most listening sockets read per table.
const MAX_SOCKETS: usize = 4_096;
/// Most processes examined.
const MAX_PROCESSES: usize = 65_536;
/// Most open files examined per process; listening sockets are opened early and thus listed first.
const MAX_FILES: usize = 65_536;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TABLE: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:07C1 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1178 1 0 100 0 0 10 0
   1: 00000000:078F 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1179 1 0 100 0 0 10 0
   2: 0100007F:07C1 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 1180 1 0 20 4 30 10 -1
   3: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1181 1 0 100 0 0 10 0
";

    #[test]
    #[cfg(target_endian = "little")]
    fn a_host_made_of_files_is_read() {
        let root = tempfile::tempdir().expect("a folder");
        let proc = root.path();
        let write = |path: &str, text: &str| {
            let path = proc.join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, text).expect("written");
        };
        write("net/tcp", TABLE);
        write("net/tcp6", "head\n 0: 00000000000000000000000001000000:1F90 0:0 0A 0:0 0:0 0 0 0 77 1\n");
        for (pid, name, inode) in
            [(20, "nginx", Some(1_179)), (7, "srs", Some(1_178)), (21, "nginx", Some(1_179)), (30, "nginx", None)]
        {
            write(&format!("{pid}/comm"), &format!("{name}\n"));
            if let Some(inode) = inode {
                fs::create_dir_all(proc.join(format!("{pid}/fd"))).expect("made");
                std::os::unix::fs::symlink(format!("socket:[{inode}]"), proc.join(format!("{pid}/fd/3")))
                    .expect("linked");
                std::os::unix::fs::symlink("/dev/null", proc.join(format!("{pid}/fd/0"))).expect("linked");
            }
        }
        write("40/comm", "bash\n");
        let sockets = listening(proc);
        assert_eq!(sockets.get(&1_178), Some(&"127.0.0.1:1985".parse().expect("an address")));
        assert_eq!(sockets.get(&77), Some(&"[::1]:8080".parse().expect("an address")));
        assert_eq!(sockets.len(), 3, "reading ends where connections begin: {sockets:?}");
        let found = programs(proc, &sockets, |name| name != "bash");
        let at = |text: &str| Some(BTreeSet::from([text.parse().expect("an address")]));
        let expected = [
            Program { name: "srs".into(), pids: vec![7], listens: at("127.0.0.1:1985") },
            Program { name: "nginx".into(), pids: vec![20, 21], listens: at("0.0.0.0:1935") },
            Program { name: "nginx".into(), pids: vec![30], listens: None },
        ];
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn the_test_process_is_found() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let proc = Path::new("/proc");
        let found = programs(proc, &listening(proc), |_| true);
        let own = found.iter().find(|program| program.pids.contains(&std::process::id())).expect("found");
        assert!(own.listens.as_ref().is_some_and(|listens| listens.contains(&address)), "{own:?}");
    }

    proptest! {
        #[test]
        fn no_line_causes_a_panic(line in "\\PC{0,80}", hex in "[0-9A-F]{0,34}") {
            prop_assert_eq!(listener(&line), None);
            let line = format!("0: {hex}:1F90 0:0 0A 0:0 0:0 0 0 0 5 1");
            prop_assert_eq!(listener(&line).is_some(), matches!(hex.len(), 8 | 32));
        }
    }
}

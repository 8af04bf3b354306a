//! Matches sockets to the clients of media servers that list addresses without ports (nginx-rtmp, SRS). Decides by
//! address, direction and start time. Nothing is guessed: a socket that fits two classes about equally well is left
//! out.

use std::net::IpAddr;
use std::time::Duration;

use super::tcp_info::TcpReading;
use crate::model::Timestamp;

/// The caller's number of a live session; unchanged as long as any socket is tracked under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionIndex(pub u32);

/// The direction of the media.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The node sends media to the client.
    Viewer,
    /// The node receives media from the client.
    Publisher,
}

/// One client as the media server lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client {
    /// The remote address, without port.
    pub address: IpAddr,
    /// The direction of its media.
    pub role: Role,
    /// When its connection began: time of the server's response minus nginx-rtmp `<time>` (ms) or SRS `alive` (s).
    pub started: Option<Timestamp>,
    /// What it plays or publishes.
    pub session: SessionIndex,
}

/// One socket on the media server's port, reduced to what the join needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Candidate {
    /// The remote address.
    pub address: IpAddr,
    /// The direction of most bytes; `None` while too few were carried.
    pub role: Option<Role>,
    /// When it appeared, to within half a dump interval; `None` when it may be older.
    pub first_seen: Option<Timestamp>,
    /// [`TcpReading::identity`].
    pub identity: u64,
}

/// A socket and the session it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Assignment {
    /// [`TcpReading::identity`].
    pub identity: u64,
    /// The session whose media it carries.
    pub session: SessionIndex,
    /// The direction of the media.
    pub role: Role,
}

/// The outcome of one join: every socket is either assigned or in exactly one of the counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Join {
    /// Sorted by identity; each identity once.
    pub assignments: Vec<Assignment>,
    /// Sockets at an address of several sessions that fit no client clearly.
    pub ambiguous: u32,
    /// Sockets whose address and direction match no client.
    pub unmatched: u32,
    /// Sockets with too few bytes to distinguish viewer from publisher.
    pub undecided: u32,
    /// Sockets that appeared more than one dump interval after the list was made.
    pub too_new: u32,
    /// Clients and sockets left out because of [`MAX_JOINED`].
    pub truncated: u64,
}

impl Role {
    /// Distinguishes a viewer's socket from a publisher's by the bytes of each direction. Bytes written and not yet
    /// acknowledged count too, so a viewer that never read is one all the same. `None` below [`DIRECTION_FLOOR_BYTES`],
    /// or when neither direction has [`DIRECTION_FACTOR`] times the other: a handshake, a page, an API call.
    #[must_use]
    pub fn of(reading: &TcpReading) -> Option<Self> {
        let received = reading.bytes_received?;
        let written = reading.bytes_acked?.saturating_add(u64::from(reading.wqueue_bytes));
        let dominates = |much: u64, little: u64| much >= DIRECTION_FLOOR_BYTES && much / DIRECTION_FACTOR > little;
        if dominates(written, received) {
            Some(Self::Viewer)
        } else {
            dominates(received, written).then_some(Self::Publisher)
        }
    }
}

impl Join {
    /// Joins the server's `clients`, listed at `listed_at`, with the `sockets` on its port, dumped every `interval`.
    ///
    /// Per address and direction: clients of a single session take all sockets. Clients of several sessions take the
    /// sockets that began when they did, closest first, one socket a client, unless a client of another session is less
    /// than `interval` + [`SERVER_SLACK`] farther off. The remaining sockets of unknown start are joined only when the
    /// remaining clients are of one session and enough. The order of both inputs does not matter.
    #[must_use]
    pub fn of(clients: &[Client], sockets: &[Candidate], listed_at: Timestamp, interval: Duration) -> Self {
        let timing = Timing { newest: listed_at + interval, margin: interval.saturating_add(SERVER_SLACK) };
        let mut join = Self::default();
        let mut clients: Vec<Client> =
            clients.iter().map(|client| Client { address: client.address.to_canonical(), ..*client }).collect();
        clients.sort_unstable();
        join.truncated += truncate(&mut clients);
        let mut sockets = distinct(sockets);
        join.truncated += truncate(&mut sockets);

        let mut rest = sockets.as_slice();
        while let Some(first) = rest.first() {
            let key = (first.address, first.role);
            let (group, after) = rest.split_at(rest.partition_point(|socket| (socket.address, socket.role) <= key));
            rest = after;
            let Some(role) = first.role else {
                join.undecided += group.len() as u32;
                continue;
            };
            let from = clients.partition_point(|client| (client.address, client.role) < (first.address, role));
            let to = clients.partition_point(|client| (client.address, client.role) <= (first.address, role));
            join.group(clients.get(from..to).unwrap_or_default(), group, timing);
        }
        join.assignments.sort_unstable();
        join
    }

    /// Joins the clients and sockets of one address and direction; both are sorted by start.
    fn group(&mut self, clients: &[Client], sockets: &[Candidate], timing: Timing) {
        let (known, new): (Vec<Candidate>, Vec<Candidate>) =
            sockets.iter().partition(|socket| socket.first_seen.is_none_or(|seen| seen <= timing.newest));
        self.too_new += new.len() as u32;
        let Some(first) = clients.first() else {
            self.unmatched += known.len() as u32;
            return;
        };
        if single_session(clients.iter()) {
            self.assignments.extend(known.iter().map(|socket| assign(socket, first)));
            return;
        }
        let pairs = match_by_start(clients, &known, timing.margin);
        let (mut client_taken, mut socket_taken) = (vec![false; clients.len()], vec![false; known.len()]);
        for &(client, socket) in &pairs {
            (client_taken[client], socket_taken[socket]) = (true, true);
            self.assignments.push(assign(&known[socket], &clients[client]));
        }
        let clients_left: Vec<&Client> = remaining(clients, &client_taken).collect();
        let sockets_left: Vec<&Candidate> = remaining(&known, &socket_taken).collect();
        let fits = sockets_left.len() <= clients_left.len() && single_session(clients_left.iter().copied());
        let unknown_start = clients_left.iter().all(|client| client.started.is_none());
        for socket in sockets_left {
            match clients_left.first() {
                Some(client) if fits && (unknown_start || socket.first_seen.is_none()) => {
                    self.assignments.push(assign(socket, client));
                }
                _ => self.ambiguous += 1,
            }
        }
    }
}

/// How far apart server and kernel may place the start of a connection: half a dump interval, the server's delay from
/// accept to play, and the age of its response.
pub(super) const START_TOLERANCE: Duration = Duration::from_secs(1);

/// How far the server's own start times may be off against each other, beyond the dump interval.
pub(super) const SERVER_SLACK: Duration = Duration::from_millis(50);

/// Most clients and most sockets of one join; those left out are counted in [`Join::truncated`].
pub(super) const MAX_JOINED: usize = 200_000;

/// Bytes in the main direction before it is decided: five times an RTMP handshake (3,073 bytes each way).
pub(super) const DIRECTION_FLOOR_BYTES: u64 = 16 * 1024;

/// How many times more bytes the main direction must have carried than the other.
pub(super) const DIRECTION_FACTOR: u64 = 4;

/// How precisely starts are known in one join.
#[derive(Clone, Copy)]
struct Timing {
    /// A socket that appeared later cannot be in the list.
    newest: Timestamp,
    /// How much closer in time a client must be than every client of another session.
    margin: Duration,
}

/// How many clients before and after a socket's start are compared with it: a bound for many clients behind one
/// address.
const NEIGHBOURS: usize = 8;

/// Pairs of (client, socket) indexes by start time, closest first, each index once, without those that another session
/// fits nearly as well.
fn match_by_start(clients: &[Client], sockets: &[Candidate], margin: Duration) -> Vec<(usize, usize)> {
    let starts: Vec<(Timestamp, usize)> =
        clients.iter().enumerate().filter_map(|(index, client)| Some((client.started?, index))).collect();
    let others = Others::of(clients, &starts);
    let mut pairs = Vec::new();
    for (socket, seen) in sockets.iter().enumerate().filter_map(|(index, socket)| Some((index, socket.first_seen?))) {
        let at = starts.partition_point(|(start, _)| *start < seen);
        let near = at.saturating_sub(NEIGHBOURS)..starts.len().min(at + NEIGHBOURS);
        for position in near {
            let (start, client) = starts[position];
            let distance = distance(start, seen);
            if distance <= START_TOLERANCE {
                pairs.push((distance, client, socket));
            }
        }
    }
    pairs.sort_unstable();
    let (mut client_taken, mut socket_taken) = (vec![false; clients.len()], vec![false; sockets.len()]);
    let mut matched = Vec::new();
    for (near, client, socket) in pairs {
        if client_taken[client] || socket_taken[socket] {
            continue;
        }
        (client_taken[client], socket_taken[socket]) = (true, true);
        let rival = sockets[socket].first_seen.and_then(|seen| others.nearest(clients[client].session, seen));
        if rival.is_none_or(|rival| rival >= near + margin) {
            matched.push((client, socket));
        }
    }
    matched
}

/// For each start time, the nearest one of another session on either side, so that rivals are found without a scan.
struct Others {
    starts: Vec<(Timestamp, SessionIndex)>,
    before: Vec<Option<usize>>,
    after: Vec<Option<usize>>,
    /// Sessions of clients whose start is unknown, at most two: any socket may be theirs.
    unknown_start: Vec<SessionIndex>,
}

impl Others {
    fn of(clients: &[Client], starts: &[(Timestamp, usize)]) -> Self {
        let starts: Vec<_> = starts.iter().map(|&(start, client)| (start, clients[client].session)).collect();
        let (mut before, mut after) = (vec![None; starts.len()], vec![None; starts.len()]);
        for at in 1..starts.len() {
            before[at] = if starts[at - 1].1 == starts[at].1 { before[at - 1] } else { Some(at - 1) };
            let back = starts.len() - 1 - at;
            after[back] = if starts[back + 1].1 == starts[back].1 { after[back + 1] } else { Some(back + 1) };
        }
        let mut unknown_start: Vec<_> =
            clients.iter().filter(|client| client.started.is_none()).map(|client| client.session).collect();
        unknown_start.sort_unstable();
        unknown_start.dedup();
        unknown_start.truncate(2);
        Self { starts, before, after, unknown_start }
    }

    /// How far from `seen` the nearest client of a session other than `session` began; zero when such a client's start
    /// is unknown.
    fn nearest(&self, session: SessionIndex, seen: Timestamp) -> Option<Duration> {
        if self.unknown_start.iter().any(|other| *other != session) {
            return Some(Duration::ZERO);
        }
        let at = self.starts.partition_point(|(start, _)| *start < seen);
        let side = |position: Option<usize>, next: &[Option<usize>]| {
            let position = position.filter(|position| *position < self.starts.len())?;
            let other = if self.starts[position].1 == session { next[position]? } else { position };
            Some(distance(self.starts[other].0, seen))
        };
        [side(at.checked_sub(1), &self.before), side(Some(at), &self.after)].into_iter().flatten().min()
    }
}

fn distance(a: Timestamp, b: Timestamp) -> Duration {
    a.since(b).max(b.since(a))
}

fn assign(socket: &Candidate, client: &Client) -> Assignment {
    Assignment { identity: socket.identity, session: client.session, role: client.role }
}

fn single_session<'a>(mut clients: impl Iterator<Item = &'a Client>) -> bool {
    let first = clients.next();
    first.is_some_and(|first| clients.all(|client| client.session == first.session))
}

fn remaining<'a, T>(items: &'a [T], taken: &[bool]) -> impl Iterator<Item = &'a T> {
    items.iter().zip(taken).filter(|(_, taken)| !**taken).map(|(item, _)| item)
}

/// The sockets with canonical addresses, each identity once, sorted by address, role and start.
fn distinct(sockets: &[Candidate]) -> Vec<Candidate> {
    let mut sockets: Vec<Candidate> =
        sockets.iter().map(|socket| Candidate { address: socket.address.to_canonical(), ..*socket }).collect();
    sockets.sort_unstable_by_key(|socket| (socket.identity, *socket));
    sockets.dedup_by_key(|socket| socket.identity);
    sockets.sort_unstable();
    sockets
}

fn truncate<T>(items: &mut Vec<T>) -> u64 {
    let over = items.len().saturating_sub(MAX_JOINED);
    items.truncate(MAX_JOINED);
    over as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::SocketAddr;

    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::model::TICK;

    const LISTED: Timestamp = Timestamp::from_secs(1000);

    fn client(host: u8, session: u32, started_millis: Option<u64>) -> Client {
        let started = started_millis.map(Timestamp::from_millis);
        Client { address: IpAddr::from([10, 0, 0, host]), role: Role::Viewer, started, session: SessionIndex(session) }
    }

    fn socket(host: u8, identity: u64, seen_millis: Option<u64>) -> Candidate {
        let first_seen = seen_millis.map(Timestamp::from_millis);
        Candidate { address: IpAddr::from([10, 0, 0, host]), role: Some(Role::Viewer), first_seen, identity }
    }

    fn joined(join: &Join) -> Vec<(u64, u32)> {
        join.assignments.iter().map(|assignment| (assignment.identity, assignment.session.0)).collect()
    }

    #[test]
    fn an_address_of_one_session_takes_all_its_sockets() {
        let clients = [client(1, 7, Some(0)), client(1, 7, Some(0)), client(2, 8, None)];
        let sockets = [socket(1, 1, None), socket(1, 2, Some(900_000)), socket(2, 3, None), socket(3, 4, None)];
        let join = Join::of(&clients, &sockets, LISTED, TICK);
        assert_eq!(joined(&join), [(1, 7), (2, 7), (3, 8)]);
        assert_eq!((join.unmatched, join.ambiguous), (1, 0));
    }

    #[test]
    fn two_classes_at_one_address_are_separated_by_start() {
        let clients = [client(1, 1, Some(10_000)), client(1, 2, Some(20_000)), client(1, 2, Some(20_100))];
        let sockets = [socket(1, 1, Some(10_200)), socket(1, 2, Some(20_250)), socket(1, 3, Some(20_000))];
        assert_eq!(joined(&Join::of(&clients, &sockets, LISTED, TICK)), [(1, 1), (2, 2), (3, 2)]);
    }

    #[test]
    fn two_classes_at_the_same_moment_stay_unjoined() {
        let clients = [client(1, 1, Some(10_000)), client(1, 2, Some(10_100)), client(1, 1, Some(50_000))];
        let sockets = [socket(1, 1, Some(10_000)), socket(1, 2, Some(10_100)), socket(1, 3, Some(50_000))];
        let join = Join::of(&clients, &sockets, LISTED, TICK);
        assert_eq!((joined(&join), join.ambiguous), (vec![(3, 1)], 2));
        let unknown_start = [client(1, 1, Some(10_000)), client(1, 2, None)];
        let join = Join::of(&unknown_start, &[socket(1, 1, Some(10_000)), socket(1, 2, Some(9_000))], LISTED, TICK);
        assert_eq!((joined(&join), join.ambiguous), (vec![], 2), "a client of unknown start may own either");
    }

    #[test]
    fn remaining_clients_of_one_class_take_sockets_of_unknown_start() {
        let clients = [client(1, 1, Some(10_000)), client(1, 2, Some(500))];
        let known = socket(1, 1, Some(10_000));
        assert_eq!(joined(&Join::of(&clients, &[known, socket(1, 2, None)], LISTED, TICK)), [(1, 1), (2, 2)]);
        let unfit = Join::of(&clients, &[known, socket(1, 2, Some(300_000))], LISTED, TICK);
        assert_eq!(
            (joined(&unfit), unfit.ambiguous),
            (vec![(1, 1)], 1),
            "a known start that fits no client is not joined"
        );
        let too_many = Join::of(&clients, &[known, socket(1, 2, None), socket(1, 3, None)], LISTED, TICK);
        assert_eq!((joined(&too_many), too_many.ambiguous), (vec![(1, 1)], 2), "one client cannot own two");
    }

    #[test]
    fn new_undecided_and_publishing_sockets_are_kept_apart() {
        let publisher = Client { role: Role::Publisher, ..client(1, 5, Some(0)) };
        let clients = [client(1, 7, None), publisher];
        let upload = Candidate { role: Some(Role::Publisher), ..socket(1, 1, None) };
        let silent = Candidate { role: None, ..socket(1, 2, None) };
        let join =
            Join::of(&clients, &[upload, silent, socket(1, 3, Some(1_000_251)), socket(1, 4, None)], LISTED, TICK);
        assert_eq!(joined(&join), [(1, 5), (4, 7)]);
        assert_eq!((join.undecided, join.too_new), (1, 1));
    }

    #[test]
    fn the_direction_needs_evidence() {
        let at: SocketAddr = "127.0.0.1:1935".parse().unwrap();
        let role = |acked, wqueue_bytes, received| {
            let (bytes_acked, bytes_received) = (Some(acked), Some(received));
            Role::of(&TcpReading { wqueue_bytes, bytes_acked, bytes_received, ..TcpReading::bare(at, at, 1) })
        };
        assert_eq!(role(3_500, 0, 3_400), None, "a handshake");
        assert_eq!(role(1_000_000, 0, 4_000), Some(Role::Viewer));
        assert_eq!(role(3_500, 100_000, 3_400), Some(Role::Viewer), "a viewer that never read");
        assert_eq!(role(4_000, 0, 1_000_000), Some(Role::Publisher));
        assert_eq!(role(1_000_000, 0, 900_000), None);
        assert_eq!(role(u64::MAX, u32::MAX, u64::MAX), None);
        assert_eq!(Role::of(&TcpReading::bare(at, at, 1)), None);
    }

    fn any_client() -> impl Strategy<Value = Client> {
        (0_u8..3, 0_u32..3, proptest::option::of(0_u64..6_000), any::<bool>()).prop_map(
            |(host, session, started, up)| Client {
                role: if up { Role::Publisher } else { Role::Viewer },
                ..client(host, session, started)
            },
        )
    }

    fn any_socket() -> impl Strategy<Value = Candidate> {
        let role = prop_oneof![Just(None), Just(Some(Role::Viewer)), Just(Some(Role::Publisher))];
        (0_u8..4, 0_u64..40, proptest::option::of(0_u64..6_000), role)
            .prop_map(|(host, identity, seen, role)| Candidate { role, ..socket(host, identity, seen) })
    }

    proptest! {
        #[test]
        fn each_socket_is_joined_at_most_once_and_counted_exactly_once(
            clients in proptest::collection::vec(any_client(), 0..30), sockets in proptest::collection::vec(any_socket(), 0..40),
        ) {
            let join = Join::of(&clients, &sockets, Timestamp::from_millis(4_000), TICK);
            prop_assert!(join.assignments.windows(2).all(|pair| pair[0].identity < pair[1].identity));
            let counted = join.ambiguous + join.unmatched + join.undecided + join.too_new;
            prop_assert_eq!(counted as usize + join.assignments.len(), distinct(&sockets).len());
            for (host, role) in (0..4).flat_map(|host| [(host, Role::Viewer), (host, Role::Publisher)]) {
                let address = IpAddr::from([10, 0, 0, host]);
                let mut room = BTreeMap::<SessionIndex, usize>::new();
                for client in clients.iter().filter(|client| client.address == address && client.role == role) {
                    *room.entry(client.session).or_default() += 1;
                }
                let at_address = |identity| distinct(&sockets).iter().any(|s| s.identity == identity && s.address == address);
                for assignment in join.assignments.iter().filter(|a| a.role == role && at_address(a.identity)) {
                    let is_shared = room.len() > 1;
                    let remaining = room.get_mut(&assignment.session).expect("a session that the address has");
                    prop_assert!(!is_shared || *remaining > 0, "more sockets than clients");
                    *remaining = remaining.saturating_sub(1);
                }
            }
        }

        #[test]
        fn order_does_not_matter(
            clients in proptest::collection::vec(any_client(), 1..20), sockets in proptest::collection::vec(any_socket(), 1..30),
            swaps in proptest::collection::vec((any::<Index>(), any::<Index>()), 0..40),
        ) {
            let (mut clients_mixed, mut sockets_mixed) = (clients.clone(), sockets.clone());
            for (a, b) in &swaps {
                clients_mixed.swap(a.index(clients.len()), b.index(clients.len()));
                sockets_mixed.swap(a.index(sockets.len()), b.index(sockets.len()));
            }
            let at = Timestamp::from_millis(5_000);
            prop_assert_eq!(Join::of(&clients, &sockets, at, TICK), Join::of(&clients_mixed, &sockets_mixed, at, TICK));
        }

        #[test]
        fn perfect_data_is_joined_fully(
            sessions in proptest::collection::vec((0_u8..3, 0_u32..5, any::<bool>()), 1..60), delay in 0_u64..=250,
        ) {
            // Starts are 900 ms apart and each socket is first seen up to one dump interval later.
            let start = |index: usize| 900 * index as u64;
            let clients: Vec<Client> = sessions.iter().enumerate()
                .map(|(index, &(host, session, _))| client(host, session, Some(start(index)))).collect();
            let sockets: Vec<Candidate> = sessions.iter().enumerate()
                .map(|(index, &(host, _, late))| socket(host, index as u64, Some(start(index) + if late { delay } else { 0 })))
                .collect();
            let want: Vec<(u64, u32)> = sessions.iter().enumerate().map(|(index, s)| (index as u64, s.1)).collect();
            let join = Join::of(&clients, &sockets, LISTED, TICK);
            prop_assert_eq!(joined(&join), want);
        }
    }
}

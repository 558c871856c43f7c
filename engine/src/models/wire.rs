//! What a download's requests go through: name look-up, connection and reading, each in slices, so that a work that is to end
//! ends within a second or two, and nothing waits longer than [`ANSWER`] for the next byte. On the work's own thread; a look-up
//! has one of its own, since the system offers no other way to leave one.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, TcpConnector, Transport};
use ureq::{Error, Timeout};

/// Longest wait for the next byte of an answer, everything before it included.
pub(super) const ANSWER: Duration = Duration::from_secs(9);
/// Longest wait within a file before the connection is given up and opened again.
const STALL: Duration = Duration::from_secs(4);
/// Longest wait for one address.
const CONNECT: Duration = Duration::from_millis(1500);
/// How often a wait looks up.
const SLICE: Duration = Duration::from_millis(100);
/// Addresses of a host that are tried.
const MOST_ADDRESSES: usize = 8;

/// How long a request may still wait, and whether it is to wait at all.
#[derive(Debug)]
pub(super) struct Patience {
    until: Mutex<Instant>,
    /// A file is being read: a connection that is silent may be opened again.
    within_file: AtomicBool,
    stop: Arc<AtomicBool>,
    /// Look-ups that were left to themselves.
    lookups: Mutex<Vec<JoinHandle<()>>>,
}

impl Patience {
    pub fn new(stop: Arc<AtomicBool>) -> Self {
        let (until, lookups) = (Mutex::new(Instant::now() + ANSWER), Mutex::default());
        Self { until, within_file: AtomicBool::new(false), stop, lookups }
    }

    /// Something came, or something new is asked for.
    pub fn renew(&self) {
        *self.until.lock() = Instant::now() + ANSWER;
    }

    pub fn set_within_file(&self, within: bool) {
        self.within_file.store(within, Ordering::Relaxed);
    }

    /// Nothing came for too long.
    pub fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// Threads that the system has not given back yet.
    pub fn take_lookups(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut *self.lookups.lock())
    }

    fn left(&self) -> Duration {
        self.until.lock().saturating_duration_since(Instant::now())
    }

    /// What may still be waited for `reason`.
    fn check(&self, reason: Timeout) -> Result<Duration, Error> {
        if self.stop.load(Ordering::Relaxed) {
            // Whoever reads this looks whether it was told to stop first.
            return Err(Error::Io(io::Error::other("stopped")));
        }
        let left = self.left();
        if left.is_zero() { Err(Error::Timeout(reason)) } else { Ok(left) }
    }
}

/// Looks names up on a thread, and leaves it when nobody waits any more.
#[derive(Debug)]
pub(super) struct PatientResolver(pub Arc<Patience>);

impl Resolver for PatientResolver {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let address = uri.scheme().zip(uri.authority());
        let address = address.and_then(|(scheme, authority)| DefaultResolver::host_and_port(scheme, authority));
        let address = address.ok_or_else(|| Error::BadUri(uri.to_string()))?;
        let found = match address.parse::<SocketAddr>() {
            Ok(number) => vec![number],
            Err(_) => self.look_up(address)?,
        };
        let mut addresses = self.empty();
        alternating(found).into_iter().take(MOST_ADDRESSES).for_each(|address| addresses.push(address));
        if addresses.is_empty() { Err(Error::HostNotFound) } else { Ok(addresses) }
    }
}

impl PatientResolver {
    fn look_up(&self, address: String) -> Result<Vec<SocketAddr>, Error> {
        let (sender, receiver) = sync_channel(1);
        let body = move || {
            let found = address.to_socket_addrs().map(Iterator::collect::<Vec<_>>);
            // Nobody may wait any more.
            let _ = sender.send(found);
        };
        let thread = std::thread::Builder::new().name("tiller-lookup".to_owned()).spawn(body)?;
        let found = loop {
            let waited = self.0.check(Timeout::Resolve).map(|left| receiver.recv_timeout(left.min(SLICE)));
            match waited {
                Ok(Err(RecvTimeoutError::Timeout)) => {}
                Ok(Ok(found)) => break found,
                Ok(Err(RecvTimeoutError::Disconnected)) => break Err(io::Error::other("the look-up ended")),
                Err(why) => {
                    self.0.lookups.lock().push(thread);
                    return Err(why);
                }
            }
        };
        // It has nothing left to do.
        let _ = thread.join();
        found.map_err(|error| if error.raw_os_error().is_some() { error.into() } else { NotFound(error).into() })
    }
}

/// Why the system found no address.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotFound(io::Error);

impl From<NotFound> for Error {
    fn from(own: NotFound) -> Self {
        Self::Other(Box::new(own))
    }
}

/// The families by turns, the system's favourite first: one of them may lead nowhere.
fn alternating(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first = found.first().is_some_and(SocketAddr::is_ipv4);
    let (mut these, mut others): (Vec<_>, Vec<_>) = found.into_iter().partition(|address| address.is_ipv4() == first);
    let mut mixed = Vec::with_capacity(these.len() + others.len());
    these.reverse();
    others.reverse();
    while let Some(address) = these.pop() {
        mixed.push(address);
        mixed.extend(others.pop());
    }
    others.reverse();
    mixed.extend(others);
    mixed
}

/// Connects address by address, and watches over what is read.
#[derive(Debug)]
pub(super) struct PatientConnector {
    tcp: TcpConnector,
    patience: Arc<Patience>,
}

impl PatientConnector {
    pub fn new(patience: Arc<Patience>) -> Self {
        Self { tcp: TcpConnector::default(), patience }
    }
}

impl<In: Transport> Connector<In> for PatientConnector {
    type Out = Patient<<TcpConnector as Connector<In>>::Out>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        let patient = |inner| Patient { inner, patience: self.patience.clone() };
        if chained.is_some() {
            return Ok(self.tcp.connect(details, chained)?.map(patient));
        }
        let mut failed = Error::ConnectionFailed;
        for address in &details.addrs {
            let left = self.patience.check(Timeout::Connect)?;
            let mut one = details.resolver.empty();
            one.push(*address);
            let timeout = NextTimeout { after: left.min(CONNECT).into(), ..details.timeout };
            let details = ConnectionDetails {
                uri: details.uri,
                addrs: one,
                config: details.config,
                request_level: details.request_level,
                resolver: details.resolver,
                now: (details.current_time)(),
                timeout,
                current_time: details.current_time.clone(),
                run_connector: details.run_connector.clone(),
                register_shutdown: details.register_shutdown.clone(),
            };
            match Connector::<In>::connect(&self.tcp, &details, None) {
                Ok(connected) => return Ok(connected.map(patient)),
                // The next address may do.
                Err(why) => failed = why,
            }
        }
        Err(failed)
    }
}

/// A connection that does not wait for ever.
#[derive(Debug)]
pub(super) struct Patient<T> {
    inner: T,
    patience: Arc<Patience>,
}

impl<T: Transport> Transport for Patient<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        // Requests have no bodies: what is written fits the system's buffers.
        let after = self.patience.check(Timeout::SendRequest)?.min(CONNECT).into();
        self.inner.transmit_output(amount, NextTimeout { after, ..timeout })
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let began = Instant::now();
        loop {
            let left = self.patience.check(Timeout::RecvResponse)?;
            if self.patience.within_file.load(Ordering::Relaxed) && began.elapsed() > STALL {
                return Err(Error::Timeout(Timeout::RecvBody));
            }
            let slice = NextTimeout { after: left.min(SLICE).into(), ..timeout };
            match self.inner.await_input(slice) {
                Err(Error::Timeout(_)) => {}
                other => return other,
            }
        }
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_none_is_lost() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let (a, b, c) = (address("[::1]:1"), address("[::2]:1"), address("[::3]:1"));
        let (d, e) = (address("1.2.3.4:1"), address("1.2.3.5:1"));
        assert_eq!(alternating(vec![a, b, c, d]), [a, d, b, c]);
        assert_eq!(alternating(vec![a, d, e]), [a, d, e]);
        assert_eq!(alternating(vec![]), []);
    }

    #[test]
    fn a_wait_ends_when_it_is_told_to() {
        let stop = Arc::new(AtomicBool::new(false));
        let patience = Patience::new(stop.clone());
        assert!(patience.check(Timeout::Connect).is_ok_and(|left| left > ANSWER / 2));
        stop.store(true, Ordering::Relaxed);
        assert!(matches!(patience.check(Timeout::Connect), Err(Error::Io(_))));
    }
}

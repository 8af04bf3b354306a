//! The configuration of signals: mutual TLS, failover endpoints, copies.

use std::sync::Arc;
use std::time::Duration;

use liveqos::otlp::stats::read;
use liveqos::otlp::{Backlog, Compression, CopySettings, MemoryQueue, Otlp, OtlpSettings, Secret, Signal, check};
use liveqos_testkit::collector::{Collector, Reply};
use liveqos_testkit::ports::LOOPBACK;
use liveqos_testkit::telemetry::{sample, segments, session};
use liveqos_testkit::wait::PATIENCE;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tonic::Code;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use crate::{NODE, grpc_to, http_to, node, quick, sampling, start, stop};

/// An authority of the test's own, a collector's certificate and a node's, as PEM; and files of what a node needs.
struct Papers {
    folder: TempDir,
    authority: String,
    collector: (String, String),
}

impl Papers {
    fn issue() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let signed = |name: &str, purpose| {
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.extended_key_usages = vec![purpose];
            let key = KeyPair::generate().unwrap();
            (params.signed_by(&key, &authority).unwrap().pem(), key.serialize_pem())
        };
        let collector = signed("localhost", ExtendedKeyUsagePurpose::ServerAuth);
        let node = signed(NODE, ExtendedKeyUsagePurpose::ClientAuth);
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in [("ca.pem", &authority.pem()), ("node.pem", &node.0), ("node.key", &node.1)] {
            std::fs::write(folder.path().join(file), text).unwrap();
        }
        Self { folder, authority: authority.pem(), collector }
    }

    /// `settings` that trust the authority, with or without the node's own certificate.
    fn trusting(&self, settings: OtlpSettings, own: bool) -> OtlpSettings {
        let file = |name| Some(self.folder.path().join(name));
        OtlpSettings {
            ca_file: file("ca.pem"),
            client_certificate_file: file("node.pem").filter(|_| own),
            client_key_file: file("node.key").filter(|_| own),
            ..settings
        }
    }

    /// Ends TLS in front of the plain HTTP of `collector`, for nodes that show a certificate; returns the port.
    async fn guard(&self, collector: &Collector) -> u16 {
        liveqos::platform::tls::install();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.as_bytes()).unwrap()).unwrap();
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
        let chain = vec![CertificateDer::from_pem_slice(self.collector.0.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(self.collector.1.as_bytes()).unwrap();
        let config = ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(LOOPBACK).await.unwrap();
        let (port, behind) = (listener.local_addr().unwrap().port(), collector.address);
        tokio::spawn(async move {
            while let Ok((outside, _)) = listener.accept().await {
                // Who shows no certificate is turned away here.
                if let Ok(mut outside) = acceptor.accept(outside).await {
                    let mut inside = TcpStream::connect(behind).await.unwrap();
                    tokio::spawn(async move { tokio::io::copy_bidirectional(&mut outside, &mut inside).await });
                }
            }
        });
        port
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mutual_tls_accepts_the_node_alone() {
    let papers = Papers::issue();
    let identity = Identity::from_pem(&papers.collector.0, &papers.collector.1);
    let tls = ServerTlsConfig::new().identity(identity).client_ca_root(Certificate::from_pem(&papers.authority));
    let grpc = Collector::grpc_with(LOOPBACK, Some(tls));
    let http = Collector::http();
    let guarded = papers.guard(&http).await;
    let to_grpc = grpc_to(format!("https://localhost:{}", grpc.address.port()));
    for (collector, settings) in [(&grpc, to_grpc), (&http, http_to(format!("https://localhost:{guarded}")))] {
        let refused = check(&papers.trusting(settings.clone(), false), &node()).await.unwrap();
        assert!(!matches!(refused[0].verdict, liveqos::otlp::Verdict::Delivered(_)), "{refused:?}");
        let otlp = start(&papers.trusting(settings, true), quick());
        otlp.take(&segments(&session(1), 3));
        assert_eq!(collector.spans(3).await.len(), 3);
        stop(otlp, PATIENCE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_an_identity_or_a_bad_one_is_refused_at_the_start() {
    let papers = Papers::issue();
    let mut settings = papers.trusting(grpc_to("https://localhost:1".to_owned()), true);
    settings.client_key_file.clone_from(&settings.client_certificate_file);
    let error = Otlp::start(&settings, &node(), sampling()).unwrap_err().to_string();
    assert!(error.contains("client key") && error.contains("node.pem"), "{error}");
    settings.client_key_file = None;
    let error = Otlp::start(&settings, &node(), sampling()).unwrap_err().to_string();
    assert!(error.contains("set together"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn zstd_works_over_both_protocols() {
    for (collector, http) in [(Collector::grpc(), false), (Collector::http(), true)] {
        let settings = if http { http_to(collector.url()) } else { grpc_to(collector.url()) };
        let otlp = start(&OtlpSettings { compression: Compression::Zstd, ..settings }, quick());
        otlp.take(&segments(&session(1), 50));
        assert_eq!(collector.spans(50).await.len(), 50);
        assert_eq!(collector.received()[0].encoding, "zstd");
        stop(otlp, PATIENCE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_endpoint_takes_over_and_throttling_is_no_reason() {
    let (first, second) = (Collector::grpc(), Collector::grpc());
    let failover = vec!["http://127.0.0.1:1".to_owned(), second.url()];
    let otlp = start(&OtlpSettings { failover, ..grpc_to(first.url()) }, quick());
    otlp.take(&segments(&session(1), 3));
    first.spans(3).await;
    // google.rpc.Status with an empty RetryInfo.
    let mut details = b"\x1a\x2c\x0a\x28type.googleapis.com/google.rpc.RetryInfo\x12\x00".to_vec();
    details[1] = u8::try_from(details.len() - 2).unwrap();
    first.script(Signal::Traces.as_str(), [Reply::Code(Code::Unavailable, details)]);
    otlp.take(&segments(&session(2), 3));
    first.spans(6).await;
    assert!(second.received().is_empty(), "a collector that asks to wait is waited for");
    first.script(Signal::Traces.as_str(), [Reply::Code(Code::Unavailable, Vec::new())]);
    otlp.take(&segments(&session(3), 3));
    assert_eq!(second.spans(3).await.len(), 3, "past an endpoint that refuses connections");
    otlp.take(&segments(&session(4), 3));
    assert_eq!(second.spans(6).await.len(), 6, "it stays there");
    assert_eq!(stop(otlp, PATIENCE).await[0], Backlog::default());
    assert_eq!(first.received().iter().filter(|one| one.taken).count(), 2);
}

fn copy(name: &str, endpoint: String, signals: &[Signal]) -> CopySettings {
    CopySettings {
        name: name.to_owned(),
        endpoint,
        failover: Vec::new(),
        signals: signals.to_vec(),
        protocol: None,
        headers: [("authorization".to_owned(), Secret::new(format!("for {name}")))].into(),
        compression: None,
        timeout: None,
        ca_file: None,
        client_certificate_file: None,
        client_key_file: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_get_the_same_bytes_and_one_that_is_down_holds_up_nobody() {
    let (jaeger, analytics, hanging) = (Collector::grpc(), Collector::grpc(), Collector::grpc());
    hanging.always(Some(Reply::Hang));
    let copies = vec![
        copy("analytics", analytics.url(), &Signal::ALL),
        copy("down", "http://127.0.0.1:1".to_owned(), &[Signal::Traces]),
        copy("hanging", hanging.url(), &[Signal::Traces, Signal::Logs]),
    ];
    let settings = OtlpSettings { copies, timeout: Duration::from_mins(1), ..grpc_to(jaeger.url()) };
    let open = |_: &str| Ok(Arc::<MemoryQueue>::default() as _);
    let otlp = Otlp::start_with(&settings, &node(), sampling(), &open, quick()).unwrap();
    for number in 0..20 {
        otlp.take(&segments(&session(number), 10));
        otlp.take(&[sample(&session(number), 0, Vec::new())]);
    }
    let (one, two) = (jaeger.spans(200).await, analytics.spans(200).await);
    assert_eq!(one, two);
    assert!(analytics.received().iter().all(|one| one.authorization == "for analytics"));
    let logs = |collector: &Collector| collector.received().iter().map(|one| one.logs().len()).sum::<usize>();
    for collector in [&jaeger, &analytics] {
        collector.wait(|received| received.iter().map(|one| one.logs().len()).sum::<usize>() == 20).await;
    }
    assert_eq!((logs(&jaeger), logs(&analytics)), (20, 20));
    let waiting = |name: &str| {
        let target = otlp.targets().iter().find(|target| target.name() == name).unwrap();
        (target.backlog(Signal::Traces).records, target.backlog(Signal::Logs).records)
    };
    assert_eq!((waiting("down"), waiting("hanging")), ((200, 0), (200, 20)));
    let main = otlp.targets()[0].stats();
    // The collector has a request a moment before its answer is read.
    let settled = async {
        while read(&main.of(Signal::Traces).sent) < 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, settled).await.expect("all is acknowledged");
    assert_eq!((read(&main.of(Signal::Traces).sent), read(&main.of(Signal::Traces).retried)), (200, 0));
    let left = stop(otlp, Duration::from_millis(200)).await;
    assert_eq!((left[0].records, left[2].records), (400, 20));
}

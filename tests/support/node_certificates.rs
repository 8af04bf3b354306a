//! Certificates of nodes, and the authority that signs them, as files.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};

/// Writes `ca.pem`, and for each node `<name>.pem` and `<name>.key`, into `folder`. Every node is `localhost` and
/// 127.0.0.1.
pub fn write_certificates(folder: &Path, nodes: &[&str]) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
    std::fs::write(folder.join("ca.pem"), authority.pem()).expect("written");
    for node in nodes {
        let key = KeyPair::generate().expect("a key");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &authority).expect("a certificate");
        std::fs::write(folder.join(format!("{node}.pem")), certificate.pem()).expect("written");
        std::fs::write(folder.join(format!("{node}.key")), key.serialize_pem()).expect("written");
    }
}

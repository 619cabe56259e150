//! What a server's certificate says: for whom it is, and what a login is bound to.
//!
//! Names are compared as libpq does (C: `fe-secure-common.c`,
//! `pgtls_verify_peer_name_matches_certificate_guts`), which takes the common name where there is no
//! alternative name of the host's kind.

use std::net::IpAddr;

use openssl::{hash::MessageDigest, nid::Nid, x509::X509Ref};

/// Compares the certificate's names with the host.
///
/// # Errors
/// The names that it has, in a sentence.
pub(super) fn check_name(certificate: &X509Ref, host: &str) -> Result<(), String> {
    let address = host.parse::<IpAddr>().ok();
    let mut names = Vec::new();
    let mut has_kind = false;
    for alternative in certificate.subject_alt_names().iter().flatten() {
        if let Some(name) = alternative.dnsname() {
            has_kind |= address.is_none();
            if is_name_of(name, host) {
                return Ok(());
            }
            names.push(name.to_owned());
        } else if let Some(bytes) = alternative.ipaddress() {
            has_kind |= address.is_some();
            let found = address_of(bytes);
            if found.is_some() && found == address {
                return Ok(());
            }
            names.extend(found.map(|found| found.to_string()));
        }
    }
    if !has_kind {
        let mut common = certificate.subject_name().entries_by_nid(Nid::COMMONNAME);
        if let Some(Ok(name)) = common.next().map(|entry| entry.data().to_string()) {
            if is_name_of(&name, host) {
                return Ok(());
            }
            names.push(name);
        }
    }
    Err(match names.as_slice() {
        [] => format!("the server's certificate is for nobody, not for \"{host}\""),
        names => {
            let names = names.join("\", \"");
            format!("the server's certificate is for \"{names}\", not for \"{host}\"")
        }
    })
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// The same but for case, or by a star in the place of the first label.
fn is_name_of(name: &str, host: &str) -> bool {
    // A C library would end the name here.
    if name.contains('\0') {
        return false;
    }
    if name.eq_ignore_ascii_case(host) {
        return true;
    }
    let Some(domain) = name.strip_prefix('*').filter(|domain| domain.len() > 1) else {
        return false;
    };
    let Some((label, rest)) = host.split_once('.') else { return false };
    domain.starts_with('.')
        && !label.is_empty()
        && domain.get(1..).is_some_and(|domain| domain.eq_ignore_ascii_case(rest))
}

/// `tls-server-end-point` (RFC 5929): the certificate's digest, by the algorithm that it is signed
/// with, SHA-256 in the place of MD5 and SHA-1. None where that names no digest: Ed25519, RSA-PSS.
pub(super) fn end_point(certificate: &X509Ref) -> Option<Vec<u8>> {
    let signature = certificate.signature_algorithm().object().nid().signature_algorithms()?;
    let digest = match signature.digest {
        Nid::MD5 | Nid::SHA1 => MessageDigest::sha256(),
        other => MessageDigest::from_nid(other)?,
    };
    certificate.digest(digest).ok().map(|digest| digest.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_the_first_label_alone() {
        for (name, host, expected) in [
            ("db.example.com", "DB.example.com", true),
            ("*.example.com", "db.EXAMPLE.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "one.db.example.com", false),
            ("*.example.com", ".example.com", false),
            ("d*.example.com", "db.example.com", false),
            ("db.*.com", "db.example.com", false),
            ("*", "db", false),
            ("*.", "db.", false),
            ("db.example.com\0.evil.org", "db.example.com", false),
        ] {
            assert_eq!(is_name_of(name, host), expected, "{name} {host}");
        }
    }
}
